package keyspace

import (
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// Tables are the file's own numbers for devices, hashes, namespaces and
// branches. They only grow. A number given in a transaction that failed stays
// given in memory and is written with the next transaction; after a restart it
// is free again, since no row on disk uses it.
type Tables struct {
	Devices    record.Devices
	DeviceNums map[keys.DeviceID]record.DeviceNumber
	Refs       []keys.Hash
	RefNums    map[keys.Hash]Ref
	Spaces     map[record.NamespaceID]Namespace
	Branches   map[record.Stream][]Branch

	NextSpace  Namespace
	NextBranch Branch

	savedDevices, savedRefs     int // on disk
	writtenDevices, writtenRefs int // in the transaction under way
}

// NewTables makes empty tables.
func NewTables() Tables {
	return Tables{
		DeviceNums: map[keys.DeviceID]record.DeviceNumber{},
		RefNums:    map[keys.Hash]Ref{},
		Spaces:     map[record.NamespaceID]Namespace{},
		Branches:   map[record.Stream][]Branch{},
	}
}

// Load reads devices and hashes; namespaces and branches are added by who reads
// their rows.
func (t *Tables) Load(meta store.Bucket) error {
	err := Each(meta, "d", func(n uint32, b []byte) error {
		if int(n) != len(t.Devices) || len(b) != 32 {
			return ErrStored
		}
		id := keys.DeviceID(b)
		t.DeviceNums[id] = record.DeviceNumber(n)
		t.Devices = append(t.Devices, id)
		return nil
	})
	if err != nil {
		return err
	}
	err = Each(meta, "r", func(n uint32, b []byte) error {
		if int(n) != len(t.Refs) || len(b) != 32 {
			return ErrStored
		}
		h := keys.Hash(b)
		t.RefNums[h] = Ref(n)
		t.Refs = append(t.Refs, h)
		return nil
	})
	t.savedDevices, t.savedRefs = len(t.Devices), len(t.Refs)
	return err
}

// Flush writes the devices and hashes that the file lacks.
func (t *Tables) Flush(meta store.Bucket) error {
	for n := t.savedDevices; n < len(t.Devices); n++ {
		if err := meta.Put(Numbered("d", uint32(n)), t.Devices[n][:]); err != nil {
			return err
		}
	}
	for n := t.savedRefs; n < len(t.Refs); n++ {
		if err := meta.Put(Numbered("r", uint32(n)), t.Refs[n][:]); err != nil {
			return err
		}
	}
	t.writtenDevices, t.writtenRefs = len(t.Devices), len(t.Refs)
	return nil
}

// Saved notes that the transaction that Flush wrote into is durable.
func (t *Tables) Saved() { t.savedDevices, t.savedRefs = t.writtenDevices, t.writtenRefs }
