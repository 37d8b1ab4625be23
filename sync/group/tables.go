package group

import (
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// tables are the file's own numbers for devices, hashes, namespaces and
// branches. They only grow. A number given in a transaction that failed stays
// given in memory and is written with the next transaction; after a restart it
// is free again, since no row on disk uses it.
type tables struct {
	devices    record.Devices
	deviceNums map[keys.DeviceID]record.DeviceNumber
	refs       []keys.Hash
	refNums    map[keys.Hash]refNumber
	spaces     map[record.NamespaceID]namespaceNumber
	branches   map[record.Stream][]BranchNumber

	nextSpace  namespaceNumber
	nextStream BranchNumber

	savedDevices, savedRefs     int // on disk
	writtenDevices, writtenRefs int // in the transaction under way
}

func newTables() tables {
	return tables{
		deviceNums: map[keys.DeviceID]record.DeviceNumber{},
		refNums:    map[keys.Hash]refNumber{},
		spaces:     map[record.NamespaceID]namespaceNumber{},
		branches:   map[record.Stream][]BranchNumber{},
	}
}

func (t *tables) load(meta store.Bucket) error {
	err := eachNumbered(meta, "d", func(n uint32, b []byte) error {
		if int(n) != len(t.devices) || len(b) != 32 {
			return errStored
		}
		id := keys.DeviceID(b)
		t.deviceNums[id] = record.DeviceNumber(n)
		t.devices = append(t.devices, id)
		return nil
	})
	if err != nil {
		return err
	}
	err = eachNumbered(meta, "r", func(n uint32, b []byte) error {
		if int(n) != len(t.refs) || len(b) != 32 {
			return errStored
		}
		h := keys.Hash(b)
		t.refNums[h] = refNumber(n)
		t.refs = append(t.refs, h)
		return nil
	})
	t.savedDevices, t.savedRefs = len(t.devices), len(t.refs)
	return err
}

func (t *tables) flush(meta store.Bucket) error {
	for n := t.savedDevices; n < len(t.devices); n++ {
		if err := meta.Put(numbered("d", uint32(n)), t.devices[n][:]); err != nil {
			return err
		}
	}
	for n := t.savedRefs; n < len(t.refs); n++ {
		if err := meta.Put(numbered("r", uint32(n)), t.refs[n][:]); err != nil {
			return err
		}
	}
	t.writtenDevices, t.writtenRefs = len(t.devices), len(t.refs)
	return nil
}

// saved notes that the transaction that flush wrote into is durable.
func (t *tables) saved() { t.savedDevices, t.savedRefs = t.writtenDevices, t.writtenRefs }

// The numbers below are given on the writer's goroutine alone; mu keeps readers
// out while a table grows.

func (g *Group) deviceNumber(id keys.DeviceID) record.DeviceNumber {
	if n, ok := g.tables.deviceNums[id]; ok {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := record.DeviceNumber(len(g.tables.devices))
	g.tables.deviceNums[id] = n
	g.tables.devices = append(g.tables.devices, id)
	return n
}

func (g *Group) refNumber(h keys.Hash) refNumber {
	if n, ok := g.tables.refNums[h]; ok {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := refNumber(len(g.tables.refs))
	g.tables.refNums[h] = n
	g.tables.refs = append(g.tables.refs, h)
	return n
}

func (g *Group) newSpaceNumber(id record.NamespaceID) namespaceNumber {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.tables.nextSpace
	g.tables.nextSpace++
	g.tables.spaces[id] = n
	return n
}

func (g *Group) newBranchNumber(id record.Stream) BranchNumber {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.tables.nextStream
	g.tables.nextStream++
	g.tables.branches[id] = append(g.tables.branches[id], n)
	return n
}

// deviceTable returns the devices by number. The slice only ever grows at its
// end, so it stays good for every number that existed when it was taken.
func (g *Group) deviceTable() record.Devices {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.tables.devices
}

func (g *Group) refCount() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.tables.refs)
}

func (g *Group) ref(n refNumber) keys.Hash {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.tables.refs[n]
}

func (g *Group) streamByNumber(n BranchNumber) *stream {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.streams[n]
}

func (g *Group) branchNumbers(id record.Stream) []BranchNumber {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.tables.branches[id]
}
