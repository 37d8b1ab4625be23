// Package catalogtest holds what tests of the catalog and its users share: a
// Store in memory, and the suite that every Store must pass.
package catalogtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/peers-run/peers-runtime/apps/catalog"
)

// Memory is a Store in memory. The zero Memory is empty; safe for concurrent use.
type Memory struct {
	// Set before use, never changed. Fail is called before each change ("save",
	// "delete"), where its error stops the change, and after it ("saved",
	// "deleted"), where the caller sees an error and the change is there. Nil for
	// none.
	Fail func(what string, key []byte) error

	// mu guards the field below.
	mu     sync.Mutex
	values map[string][]byte
}

var _ catalog.Store = (*Memory)(nil)

func (m *Memory) fails(what string, key []byte) error {
	if m.Fail == nil {
		return nil
	}
	return m.Fail(what, key)
}

// Load returns the value of key, nil if there is none.
func (m *Memory) Load(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.values[string(key)]), nil
}

// Save sets the value of key.
func (m *Memory) Save(key, value []byte) error {
	if err := m.fails("save", key); err != nil {
		return err
	}
	m.mu.Lock()
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	m.values[string(key)] = append([]byte{}, value...)
	m.mu.Unlock()
	return m.fails("saved", key)
}

// Delete removes key.
func (m *Memory) Delete(key []byte) error {
	if err := m.fails("delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.values, string(key))
	m.mu.Unlock()
	return m.fails("deleted", key)
}

// Keys lists the keys that begin with prefix.
func (m *Memory) Keys(prefix []byte) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names [][]byte
	for name := range m.values {
		if strings.HasPrefix(name, string(prefix)) {
			names = append(names, []byte(name))
		}
	}
	slices.SortFunc(names, bytes.Compare)
	return names, nil
}

// Store runs the suite. open returns the same store, empty at first, anew each
// time it is called; the one before is not used any more.
func Store(t *testing.T, open func() catalog.Store) {
	t.Helper()
	want := map[string]string{}
	check := func(s catalog.Store) {
		t.Helper()
		for _, prefix := range []string{"", "a/", "b/", "a/\xff", "c"} {
			got, err := s.Keys([]byte(prefix))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for name := range want {
				if strings.HasPrefix(name, prefix) {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", names) {
				t.Errorf("Keys(%q) = %q, want %q", prefix, got, names)
			}
		}
		for name, value := range want {
			got, err := s.Load([]byte(name))
			if err != nil || got == nil || string(got) != value {
				t.Errorf("Load(%q) = %q, %v; want %q", name, got, err, value)
			}
		}
		if got, err := s.Load([]byte("a/absent")); got != nil || err != nil {
			t.Errorf("Load of a key that is not there = %q, %v", got, err)
		}
	}
	s := open()
	check(s)
	key, value := []byte("a/\xff\x00x"), []byte("one")
	for name, v := range map[string]string{"a/1": "x", "b/1": strings.Repeat("v", 1<<20), "a/\xff": "y", "a": "z"} {
		if err := s.Save([]byte(name), []byte(v)); err != nil {
			t.Fatal(err)
		}
		want[name] = v
	}
	if err := s.Save(key, value); err != nil {
		t.Fatal(err)
	}
	want[string(key)] = "one"
	copy(value, "xxx") // a Store keeps neither slice
	check(s)
	check(open())
	s = open()
	for range 2 { // twice: deleting what is not there is no error
		if err := s.Delete([]byte("a/1")); err != nil {
			t.Fatal(err)
		}
	}
	delete(want, "a/1")
	if err := s.Save(key, []byte("two")); err != nil {
		t.Fatal(err)
	}
	want[string(key)] = "two"
	check(s)
	check(open())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if err := s.Save(fmt.Appendf(nil, "b/%d-%d", i, j), []byte("v")); err != nil {
					t.Error(err)
				}
			}
		})
		for j := range 20 {
			want[fmt.Sprintf("b/%d-%d", i, j)] = "v"
		}
	}
	wg.Wait()
	check(open())
}
