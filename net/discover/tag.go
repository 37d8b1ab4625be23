package discover

import (
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/keys"
)

const (
	service  = "_peers._udp.local."
	tagBytes = 16
	tagChars = 2 * tagBytes
)

// A tag is the first bytes of a hash that only who knows the DeviceID can make.
type tag [tagBytes]byte

func dayOf(t time.Time) uint32 { return uint32(max(0, t.Unix()) / (24 * 60 * 60)) }

func tagOf(id keys.DeviceID, day uint32) tag {
	sum := keys.Sum(keys.DomainDiscover, id[:], binary.BigEndian.AppendUint32(nil, day))
	return tag(sum[:tagBytes])
}

func (t tag) String() string { return hex.EncodeToString(t[:]) }

// instance is the tag's service instance name.
func (t tag) instance() string { return t.String() + "." + service }

// host is what the SRV record points at. It has no address: the packet has one.
func (t tag) host() string { return t.String() + ".local." }

// parseInstance reads an instance name. DNS ignores case (RFC 6762 §16), so
// does this.
func parseInstance(name []byte) (tag, bool) {
	var t tag
	if len(name) != tagChars+1+len(service) || name[tagChars] != '.' || !equalFold(name[tagChars+1:], service) {
		return t, false
	}
	_, err := hex.Decode(t[:], name[:tagChars])
	return t, err == nil
}

func equalFold(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		c := a[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != b[i] {
			return false
		}
	}
	return true
}

// table recognises the tags of known devices.
type table struct {
	// Set by newTable, never changed.
	self  keys.DeviceID
	known func() []keys.DeviceID
	clock func() time.Time

	// mu guards what follows.
	mu   sync.Mutex
	made time.Time // monotonic
	day  uint32
	ids  map[tag]keys.DeviceID
}

// tableAge is how long a list of known devices is believed: making it costs
// three hashes a device, and strangers choose how often it is looked at.
const tableAge = time.Second

func newTable(self keys.DeviceID, known func() []keys.DeviceID, clock func() time.Time) *table {
	return &table{self: self, known: known, clock: clock}
}

// lookup finds whose tag it is, yesterday, today or tomorrow.
func (t *table) lookup(x tag) (keys.DeviceID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	day := dayOf(t.clock())
	if t.ids == nil || day != t.day || time.Since(t.made) > tableAge {
		t.ids = map[tag]keys.DeviceID{}
		for _, id := range t.known() {
			if id == t.self {
				continue
			}
			for _, d := range []uint32{day - 1, day, day + 1} {
				t.ids[tagOf(id, d)] = id
			}
		}
		t.made, t.day = time.Now(), day
	}
	id, ok := t.ids[x]
	return id, ok
}
