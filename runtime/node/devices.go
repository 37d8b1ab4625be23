package node

import (
	"context"
	"os"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/replica"
)

// HostApp is the reserved app, of the zero publisher, under which the host keeps
// its own data in the personal group.
const HostApp = "peers"

const (
	collectionDevices = record.CollectionID(1 << 2) // record: H(device id); fields below
	fieldDeviceID     = record.FieldID(1)           // bytes
	fieldDeviceName   = record.FieldID(2)           // text
)

// maxName bounds a device's name in bytes.
const maxName = 64

// A Device is one of the user's devices, and how it is reached.
type Device struct {
	ID        keys.DeviceID
	Name      string
	Self      bool
	Power     string
	Revoked   bool
	Connected bool
	How       string        // how it is connected, or why it is not
	Skew      time.Duration // its clock minus ours, when it last said
	Sent      uint64        // bytes, on the connections that stand
	Received  uint64
}

// Devices lists the user's devices, this one first.
func (n *Node) Devices() []Device {
	m, err := n.member("list the devices")
	if err != nil {
		return nil
	}
	sessions := n.Sessions()
	var out []Device
	for _, d := range m.group.Control().Devices() {
		dev := Device{ID: d.ID, Name: m.deviceName(d.ID), Self: d.ID == n.ID(), Power: d.Power.String(), Revoked: d.Revoked || d.Closed}
		if dev.Self {
			dev.Connected, dev.How = true, "this device"
			out = append([]Device{dev}, out...)
			continue
		}
		st := n.ep.Peer(d.ID).Status()
		dev.Connected, dev.How = st.Connected(), st.Why()
		dev.Skew = sessions[d.ID].Skew
		for _, c := range st.Conns {
			dev.Sent += c.BytesSent
			dev.Received += c.BytesReceived
		}
		out = append(out, dev)
	}
	return out
}

func (m *member) deviceName(id keys.DeviceID) string {
	ns, ok := m.group.Namespace(keys.UserID{}, HostApp)
	if !ok {
		return ""
	}
	s, ok, err := m.group.Get(ns, collectionDevices, record.KeyID(ns, collectionDevices, id[:]))
	if err != nil || !ok {
		return ""
	}
	return string(s.Field(fieldDeviceName).Text())
}

// NameDevice gives one of the user's devices a name that all of them show.
func (n *Node) NameDevice(ctx context.Context, id keys.DeviceID, name string) error {
	const op = "name the device"
	if name == "" || len(name) > maxName {
		return fault.New(fault.Invalid, op, "", "a name has 1 to %d bytes", maxName)
	}
	m, err := n.member(op)
	if err != nil {
		return err
	}
	if _, ok := m.group.Control().Device(id); !ok {
		return fault.New(fault.NotFound, op, `"peers-runtime device list" shows them`, "%s is not one of this user's devices", id.Short())
	}
	ns, ok := m.group.Namespace(keys.UserID{}, HostApp)
	if !ok {
		return fault.New(fault.Busy, op, "try again when another device was connected", "this device has no key of the group yet")
	}
	_, err = m.group.Commit(ctx, &group.Transaction{Namespace: ns, Writes: []group.Write{{
		Kind: group.Put, Collection: collectionDevices, Record: record.KeyID(ns, collectionDevices, id[:]),
		Cells: []record.Cell{{Field: fieldDeviceID, Value: record.Bytes(id[:])}, {Field: fieldDeviceName, Value: record.Text(name)}},
	}}})
	return err
}

// nameSelf gives this device its host's name, unless it has one.
func (n *Node) nameSelf(ctx context.Context, m *member) {
	if m.deviceName(n.ID()) != "" {
		return
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		return
	}
	if err := n.NameDevice(ctx, n.ID(), fault.Cap(name, maxName)); err != nil && ctx.Err() == nil {
		n.log.Debug("this device has no name yet", "error", err)
	}
}

// A Session is the replication with one connected device.
type Session struct {
	Skew   time.Duration
	Spaces map[record.NamespaceID]replica.SpaceStatus
	Moved  replica.Counters
}

// Sessions tells of the replications that run.
func (n *Node) Sessions() map[keys.DeviceID]Session {
	n.mu.Lock()
	links := map[keys.DeviceID]*replica.Link{}
	for id, s := range n.sessions {
		if s.link != nil {
			links[id] = s.link
		}
	}
	n.mu.Unlock()
	out := map[keys.DeviceID]Session{}
	for id, l := range links {
		st := l.Status()
		if !st.Hello {
			continue
		}
		s := Session{Skew: st.Skew, Spaces: map[record.NamespaceID]replica.SpaceStatus{}, Moved: st.Moved}
		for _, sp := range st.Spaces {
			s.Spaces[sp.Namespace] = sp
		}
		out[id] = s
	}
	return out
}
