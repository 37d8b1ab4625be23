package faulttest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
)

// A counter is a test that counts what it is told.
type counter struct {
	testing.TB
	n int
}

func (c *counter) Helper()               {}
func (c *counter) Error(...any)          { c.n++ }
func (c *counter) Errorf(string, ...any) { c.n++ }

func TestWant(t *testing.T) {
	good := fault.New(fault.Invalid, "read it", "write it anew", "it is bad")
	bare := fault.New(fault.Invalid, "read it", "", "it is bad")
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		f    func(t testing.TB)
		want int
	}{
		"all fits":         {func(t testing.TB) { faulttest.Want(t, good, fault.Invalid, "it is bad", "anew") }, 0},
		"no hint, as told": {func(t testing.TB) { faulttest.Want(t, bare, fault.Invalid, "it is bad", "") }, 0},
		"accepted":         {func(t testing.TB) { faulttest.Want(t, nil, fault.Invalid, "it is bad", "anew") }, 1},
		"another code":     {func(t testing.TB) { faulttest.Want(t, good, fault.Denied, "it is bad", "anew") }, 1},
		"another message":  {func(t testing.TB) { faulttest.Want(t, good, fault.Invalid, "it is good", "anew") }, 1},
		"no message":       {func(t testing.TB) { faulttest.Want(t, good, fault.Invalid, "", "anew") }, 1},
		"another hint":     {func(t testing.TB) { faulttest.Want(t, good, fault.Invalid, "it is bad", "again") }, 1},
		"a hint too many":  {func(t testing.TB) { faulttest.Want(t, good, fault.Invalid, "it is bad", "") }, 1},
		"raw":              {func(t testing.TB) { faulttest.Want(t, fault.New(1, "", "", "a\x1b[2J"), 1, "a", "") }, 1},
		"endless": {func(t testing.TB) {
			faulttest.Want(t, fault.New(1, "", "", "%s", strings.Repeat("a", 1001)), 1, "a", "")
		}, 1},
		"is":           {func(t testing.TB) { faulttest.WantIs(t, fmt.Errorf("%w: so", mine), mine, "so") }, 0},
		"is not":       {func(t testing.TB) { faulttest.WantIs(t, errors.New("mine: so"), mine, "so") }, 1},
		"is otherwise": {func(t testing.TB) { faulttest.WantIs(t, mine, mine, "so") }, 1},
		"is accepted":  {func(t testing.TB) { faulttest.WantIs(t, nil, mine, "so") }, 1},
	} {
		c2 := &counter{}
		if c.f(c2); c2.n != c.want {
			t.Errorf("%s: told %d times, want %d", name, c2.n, c.want)
		}
	}
}
