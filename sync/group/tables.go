package group

import (
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
)

// The numbers below are given on the writer's goroutine alone; mu keeps readers
// out while a table grows.

func (g *Group) deviceNumber(id keys.DeviceID) record.DeviceNumber {
	if n, ok := g.tables.DeviceNums[id]; ok {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := record.DeviceNumber(len(g.tables.Devices))
	g.tables.DeviceNums[id] = n
	g.tables.Devices = append(g.tables.Devices, id)
	return n
}

func (g *Group) refNumber(h keys.Hash) keyspace.Ref {
	if n, ok := g.tables.RefNums[h]; ok {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := keyspace.Ref(len(g.tables.Refs))
	g.tables.RefNums[h] = n
	g.tables.Refs = append(g.tables.Refs, h)
	return n
}

func (g *Group) newSpaceNumber(id record.NamespaceID) keyspace.Namespace {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.tables.NextSpace
	g.tables.NextSpace++
	g.tables.Spaces[id] = n
	return n
}

func (g *Group) newBranchNumber(id record.Stream) BranchNumber {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.tables.NextBranch
	g.tables.NextBranch++
	g.tables.Branches[id] = append(g.tables.Branches[id], n)
	return n
}

// deviceTable returns the devices by number. The slice only ever grows at its
// end, so it stays good for every number that existed when it was taken.
func (g *Group) deviceTable() record.Devices {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.tables.Devices
}

func (g *Group) refCount() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.tables.Refs)
}

func (g *Group) ref(n keyspace.Ref) keys.Hash {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.tables.Refs[n]
}

func (g *Group) streamByNumber(n BranchNumber) *stream {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.streams[n]
}

func (g *Group) branchNumbers(id record.Stream) []BranchNumber {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.tables.Branches[id]
}
