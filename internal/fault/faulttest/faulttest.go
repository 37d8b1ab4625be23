// Package faulttest checks the errors that bad input gets: tests of every
// decoder say of each case what a person is told.
package faulttest

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// longest is how many bytes a message may have, whatever the input was.
const longest = 1000

// Want checks that err has the code, a piece of message in its text and a piece
// of hint in its hint; an empty hint wants none. Whatever the input was, the
// text is bounded and has no character that a terminal obeys.
func Want(t testing.TB, err error, code fault.Code, message, hint string) {
	t.Helper()
	if err == nil {
		t.Errorf("it was accepted; want %s: %q", code, message)
		return
	}
	if message == "" {
		t.Error("the test says nothing of the message")
	}
	got := fault.HintOf(err)
	if fault.CodeOf(err) != code || !strings.Contains(err.Error(), message) || !strings.Contains(got, hint) || hint == "" && got != "" {
		t.Errorf("got  %s: %v\n hint: %s\nwant %s: %s\n hint: %s", fault.CodeOf(err), err, got, code, message, hint)
	}
	plain(t, err)
}

// WantIs is Want for what never reaches a person itself: an error of a package's
// own, which its callers tell apart by errors.Is.
func WantIs(t testing.TB, err, target error, message string) {
	t.Helper()
	if err == nil {
		t.Errorf("it was accepted; want %q", message)
		return
	}
	if !errors.Is(err, target) || !strings.Contains(err.Error(), message) || message == "" {
		t.Errorf("got %q, want one that is %q and says %q", err, target, message)
	}
	plain(t, err)
}

func plain(t testing.TB, err error) {
	t.Helper()
	s := err.Error()
	if len(s) > longest {
		t.Errorf("the message has %d bytes: what came from outside is not capped", len(s))
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }); i >= 0 {
		t.Errorf("the message carries its input raw: %q", s[i:min(i+20, len(s))])
	}
}
