package record

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

func TestCollectionID(t *testing.T) {
	for n := 1; n <= MaxCollection; n++ {
		for _, r := range []Rule{RuleWriter, RuleAdmin, RuleAuthor} {
			c, err := NewCollectionID(n, r)
			if err != nil || c.Number() != n || c.Rule() != r || !c.Valid() {
				t.Fatalf("%d %s: %04x, %v", n, r, uint16(c), err)
			}
		}
	}
	for _, c := range []struct {
		number int
		rule   Rule
	}{{0, RuleWriter}, {-1, RuleWriter}, {MaxCollection + 1, RuleWriter}, {1, 3}, {1, 255}} {
		if id, err := NewCollectionID(c.number, c.rule); fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%d %s: %04x, %v", c.number, c.rule, uint16(id), err)
		}
	}
	for _, id := range []CollectionID{0, 1, 2, 3, 7, 0xffff} {
		if id.Valid() {
			t.Errorf("%04x is valid", uint16(id))
		}
	}
}

func TestRuleNames(t *testing.T) {
	for _, r := range []Rule{RuleWriter, RuleAdmin, RuleAuthor} {
		if got, err := ParseRule(r.String()); err != nil || got != r {
			t.Errorf("%s: %v, %v", r, got, err)
		}
	}
	_, err := ParseRule("everyone\x1b[2J" + strings.Repeat("x", 1000))
	if fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" || len(err.Error()) > 200 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
}

func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")
		later := rapid.Int64Range(ms, 1<<48-1).Draw(t, "later")
		random := [10]byte(rapid.SliceOfN(rapid.Byte(), 10, 10).Draw(t, "random"))
		id := NewID(ms, random)
		if id.Millis() != ms || [10]byte(id[6:]) != random {
			t.Fatalf("%s does not hold its parts", id)
		}
		if later > ms && NewID(later, [10]byte{}).Compare(id) <= 0 {
			t.Fatal("a later record does not sort last")
		}
		back, err := ParseID(id.String())
		if err != nil || back != id {
			t.Fatalf("%s reads as %s, %v", id, back, err)
		}
		up, err := ParseID(strings.ToUpper(id.String()))
		if err != nil || up != id {
			t.Fatalf("%s in capitals: %v", id, err)
		}
	})
	for _, s := range []string{"", "00", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("g", 32), strings.Repeat("é", 16)} {
		if _, err := ParseID(s); fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// An author's id is good for exactly the user, group, namespace, collection,
// instant and number it was made for.
func TestAuthorID(t *testing.T) {
	user, group, ns := keys.UserID(pattern(1)), keys.GroupID(pattern(2)), NamespaceID(pattern(3))
	c := coll(t, 7, RuleAuthor)
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")
		n := uint16(rapid.IntRange(0, math.MaxUint16).Draw(t, "n"))
		id := AuthorID(user, group, ns, c, ms, n)
		if id.Millis() != ms || !id.IsAuthor(user, group, ns, c) {
			t.Fatalf("%s is not its author's", id)
		}
		bit := rapid.IntRange(0, 127).Draw(t, "bit")
		forged := id
		forged[bit/8] ^= 1 << (bit % 8)
		if forged.IsAuthor(user, group, ns, c) {
			t.Fatalf("%s with bit %d flipped passes", id, bit)
		}
	})
	id := AuthorID(user, group, ns, c, testMillis, 5)
	other := [32]byte(pattern(9))
	for name, ok := range map[string]bool{
		"another user":       id.IsAuthor(other, group, ns, c),
		"another group":      id.IsAuthor(user, other, ns, c),
		"another namespace":  id.IsAuthor(user, group, other, c),
		"another collection": id.IsAuthor(user, group, ns, c+4),
		"a random id":        testID(1).IsAuthor(user, group, ns, c),
		"the zero id":        ID{}.IsAuthor(user, group, ns, c),
	} {
		if ok {
			t.Errorf("%s passes", name)
		}
	}
}

func TestKeyID(t *testing.T) {
	ns, c := NamespaceID(pattern(1)), coll(t, 1, RuleWriter)
	id := KeyID(ns, c, []byte("key"))
	if id != KeyID(ns, c, []byte("key")) {
		t.Error("the same key gives another id")
	}
	for name, other := range map[string]ID{
		"another key":        KeyID(ns, c, []byte("kez")),
		"no key":             KeyID(ns, c, nil),
		"another collection": KeyID(ns, c+1, []byte("key")),
		"another namespace":  KeyID(pattern(2), c, []byte("key")),
	} {
		if other == id {
			t.Errorf("%s gives the same id", name)
		}
	}
}

func TestStreamOrder(t *testing.T) {
	drawStream := func(t *rapid.T) Stream {
		return Stream{NamespaceID{31: rapid.ByteMax(1).Draw(t, "ns")}, keys.DeviceID{0: rapid.ByteMax(1).Draw(t, "device")}, rapid.Uint64Max(2).Draw(t, "incarnation")}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawStream(t), drawStream(t), drawStream(t)
		if a.Compare(b) != -b.Compare(a) || (a.Compare(b) == 0) != (a == b) {
			t.Fatalf("%v and %v", a, b)
		}
		if a.Compare(b) <= 0 && b.Compare(c) <= 0 && a.Compare(c) > 0 {
			t.Fatalf("%v, %v, %v", a, b, c)
		}
		if a.Namespace != b.Namespace && a.Compare(b) != a.Namespace.Compare(b.Namespace) {
			t.Fatal("the namespace does not come first")
		}
		if a.Namespace == b.Namespace && a.Device != b.Device && a.Compare(b) != a.Device.Compare(b.Device) {
			t.Fatal("the device does not come second")
		}
	})
}
