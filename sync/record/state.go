package record

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/hlc"
)

// A DeviceNumber is a device's place in the group file's own table of devices.
// It saves 30 bytes a stamp on disk and never leaves the device.
type DeviceNumber uint32

// A Stamp says when and by whom something was written.
type Stamp struct {
	Time   hlc.Timestamp
	Device DeviceNumber
}

// Devices resolves device numbers: index i holds device i.
type Devices []keys.DeviceID

// Compare orders stamps by (timestamp, device id). Numbers do not order
// devices: they differ from file to file.
func (d Devices) Compare(a, b Stamp) int {
	switch {
	case a.Time < b.Time:
		return -1
	case a.Time > b.Time:
		return 1
	case a.Device == b.Device:
		return 0
	}
	return d[a.Device].Compare(d[b.Device])
}

// A StoredCell is a field's winning value and its stamp.
type StoredCell struct {
	Field FieldID
	Stamp Stamp
	Value Value
}

// A State is what one device knows of one record: the merge of every op applied
// to it. The zero State is a record never heard of.
type State struct {
	Insert Stamp        // newest insert; zero Time: none
	Delete Stamp        // newest delete; zero Time: none
	Cells  []StoredCell // ascending by field; none older than Delete
}

// Visible reports whether the record shows: its newest insert is not older than
// its newest delete. An update alone never makes a record show.
func (s *State) Visible(d Devices) bool {
	if s.Insert.Time == 0 {
		return false
	}
	return s.Delete.Time == 0 || d.Compare(s.Insert, s.Delete) >= 0
}

// Field returns a field's value, or an absent Value.
func (s *State) Field(f FieldID) Value {
	for i := range s.Cells {
		if s.Cells[i].Field == f {
			return s.Cells[i].Value
		}
	}
	return nil
}

// Apply merges one op stamped at. It reports whether the State changed. Values
// are aliased, not copied. The result depends only on the set of ops applied,
// not on their order (TestMergeLaws).
func (s *State) Apply(d Devices, at Stamp, op *Op) (changed bool) {
	if op.Code == OpDelete || op.Code == OpReplace {
		if s.Delete.Time == 0 || d.Compare(at, s.Delete) > 0 {
			s.Delete, changed = at, true
			s.Cells = slices.DeleteFunc(s.Cells, func(c StoredCell) bool { return d.Compare(c.Stamp, at) < 0 })
			if s.Insert.Time != 0 && d.Compare(s.Insert, at) < 0 {
				s.Insert = Stamp{}
			}
		}
	}
	void := s.Delete.Time != 0 && d.Compare(at, s.Delete) < 0
	if void {
		return changed
	}
	if op.Code == OpInsert || op.Code == OpReplace {
		if s.Insert.Time == 0 || d.Compare(at, s.Insert) > 0 {
			s.Insert, changed = at, true
		}
	}
	for _, c := range op.Cells {
		if s.merge(d, StoredCell{Field: c.Field, Stamp: at, Value: c.Value}) {
			changed = true
		}
	}
	return changed
}

func (s *State) merge(d Devices, c StoredCell) bool {
	n := len(s.Cells)
	if n == 0 || s.Cells[n-1].Field < c.Field { // a new record's cells arrive in order
		s.Cells = append(s.Cells, c)
		return true
	}
	i, found := slices.BinarySearchFunc(s.Cells, c.Field, func(e StoredCell, f FieldID) int { return int(e.Field) - int(f) })
	if !found {
		s.Cells = slices.Insert(s.Cells, i, c)
		return true
	}
	order := d.Compare(c.Stamp, s.Cells[i].Stamp)
	if order == 0 { // two incarnations of one device, or a fork, at one instant
		order = c.Value.Compare(s.Cells[i].Value)
	}
	if order <= 0 {
		return false
	}
	s.Cells[i] = c
	return true
}

// ErrState says that a stored State is damaged.
var ErrState = errors.New("damaged record state")

// Append appends the State's local layout:
//
//	stamps   uvarint count, then each: 8 bytes big-endian timestamp, uvarint device number
//	insert   uvarint: 1 + index of its stamp, 0 for none
//	delete   the same
//	cells    until the end: field byte, uvarint stamp index, uvarint length, value
//
// Cells of one batch share a stamp, so a record written at once costs three
// bytes a cell beside the value.
func (s *State) Append(b []byte) []byte {
	var room [16]Stamp
	stamps := room[:0]
	index := func(st Stamp) uint64 {
		for i := len(stamps) - 1; i >= 0; i-- {
			if stamps[i] == st {
				return uint64(i)
			}
		}
		stamps = append(stamps, st)
		return uint64(len(stamps) - 1)
	}
	var ins, del uint64
	if s.Insert.Time != 0 {
		ins = index(s.Insert) + 1
	}
	if s.Delete.Time != 0 {
		del = index(s.Delete) + 1
	}
	for i := range s.Cells {
		index(s.Cells[i].Stamp)
	}
	b = binary.AppendUvarint(b, uint64(len(stamps)))
	for _, st := range stamps {
		b = binary.BigEndian.AppendUint64(b, uint64(st.Time))
		b = binary.AppendUvarint(b, uint64(st.Device))
	}
	b = binary.AppendUvarint(binary.AppendUvarint(b, ins), del)
	for i := range s.Cells {
		c := &s.Cells[i]
		b = binary.AppendUvarint(append(b, byte(c.Field)), index(c.Stamp))
		b = append(binary.AppendUvarint(b, uint64(len(c.Value))), c.Value...)
	}
	return b
}

// DecodeState reads what Append wrote into s, reusing its slice; values alias
// b. devices is how many device numbers exist. ErrState: the bytes are damaged; s
// then holds part of them.
func DecodeState(b []byte, devices int, s *State) error {
	var room [16]Stamp
	stamps := room[:0]
	*s = State{Cells: s.Cells[:0]}
	n, b, ok := uvarint(b)
	if !ok || n > uint64(len(b))/9 {
		return ErrState
	}
	for range n {
		if len(b) < 9 {
			return ErrState
		}
		t := binary.BigEndian.Uint64(b)
		var dev uint64
		if dev, b, ok = uvarint(b[8:]); !ok || dev >= uint64(devices) || t == 0 {
			return ErrState
		}
		stamps = append(stamps, Stamp{Time: hlc.Timestamp(t), Device: DeviceNumber(dev)})
	}
	var ins, del uint64
	if ins, b, ok = uvarint(b); !ok || ins > n {
		return ErrState
	}
	if del, b, ok = uvarint(b); !ok || del > n {
		return ErrState
	}
	if ins > 0 {
		s.Insert = stamps[ins-1]
	}
	if del > 0 {
		s.Delete = stamps[del-1]
	}
	for len(b) > 0 {
		c := StoredCell{Field: FieldID(b[0])}
		var at, size uint64
		if at, b, ok = uvarint(b[1:]); !ok || at >= n {
			return ErrState
		}
		if size, b, ok = uvarint(b); !ok || size > uint64(len(b)) {
			return ErrState
		}
		if k := len(s.Cells); c.Field == 0 || k > 0 && s.Cells[k-1].Field >= c.Field {
			return ErrState
		}
		c.Stamp, c.Value, b = stamps[at], b[:size:size], b[size:]
		s.Cells = append(s.Cells, c)
	}
	return nil
}

func uvarint(b []byte) (uint64, []byte, bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// DigestPart appends what a visible record contributes to the state digest: its
// collection, id, and each cell with its timestamp, full device id and value.
// It is the same on every device.
func (s *State) DigestPart(b []byte, d Devices, c CollectionID, id ID) []byte {
	b = append(binary.BigEndian.AppendUint16(b, uint16(c)), id[:]...)
	for i := range s.Cells {
		cell := &s.Cells[i]
		b = binary.BigEndian.AppendUint64(append(b, byte(cell.Field)), uint64(cell.Stamp.Time))
		b = append(b, d[cell.Stamp.Device][:]...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(cell.Value))), cell.Value...)
	}
	return b
}
