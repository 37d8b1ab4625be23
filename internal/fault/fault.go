// Package fault is the error of Peers: what was attempted, a frozen code, the
// cause, and for a person a hint.
//
// A person reads
//
//	peers-runtime: cannot pair: code expired
//	hint: run "peers-runtime pair" again
//
// and a program branches on the Code. Codes cross the wire (negated, they are
// the error results of the host ABI), so a number is never reused and never
// changes its meaning; docs/spec/errors.md lists them and testdata pins them.
//
// Text that came from a peer, an app or a file is untrusted: it goes through
// Quote, which escapes and caps it, before it enters a message.
package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

// A Code says what kind of failure happened. Zero is not a code.
type Code uint16

// The codes. Append only.
const (
	Internal  Code = 1  // a bug of ours, or an error with no better code
	NotFound  Code = 2  // what was named does not exist
	BadRange  Code = 3  // a pointer and length lie outside the guest's memory
	Invalid   Code = 4  // the input breaks a rule of its format
	Denied    Code = 5  // no capability, role or consent for it
	Quota     Code = 6  // a storage quota is used up
	Rate      Code = 7  // too many in too short a time
	TooBig    Code = 8  // a size limit is exceeded
	Conflict  Code = 9  // it contradicts what is there
	Busy      Code = 10 // somebody else holds it, try later
	Offline   Code = 11 // no peer to ask
	Timeout   Code = 12 // it took too long
	NoSys     Code = 13 // this version does not know the function or event
	BadHandle Code = 14 // a handle that is not open
	ReadOnly  Code = 15 // it cannot be written to
	Expired   Code = 16 // its time is over
	Corrupt   Code = 17 // stored bytes are damaged
	Version   Code = 18 // written by a version this one does not understand
	NoSpace   Code = 19 // the disk is full
	Exists    Code = 20 // it is there already
	Untrusted Code = 21 // a signature, key or hash does not check
	Closed    Code = 22 // it was shut down
	Protocol  Code = 23 // the peer broke the protocol
)

var names = [...]string{
	Internal: "internal", NotFound: "not-found", BadRange: "bad-range", Invalid: "invalid",
	Denied: "denied", Quota: "quota", Rate: "rate", TooBig: "too-big", Conflict: "conflict",
	Busy: "busy", Offline: "offline", Timeout: "timeout", NoSys: "no-sys", BadHandle: "bad-handle",
	ReadOnly: "read-only", Expired: "expired", Corrupt: "corrupt", Version: "version",
	NoSpace: "no-space", Exists: "exists", Untrusted: "untrusted", Closed: "closed", Protocol: "protocol",
}

// String gives the code's name as used in JSON output and logs.
func (c Code) String() string {
	if int(c) < len(names) && names[c] != "" {
		return names[c]
	}
	return "code-" + strconv.Itoa(int(c))
}

// Codes returns every code in order, for tables that must cover all of them.
func Codes() []Code {
	var cs []Code
	for c := Internal; int(c) < len(names); c++ {
		cs = append(cs, c)
	}
	return cs
}

// An Error is a failure with its context. Op completes the sentence
// "cannot …" ("pair", "open the group database"). Hint is a full sentence or
// command for a person, or empty.
type Error struct {
	Op   string
	Code Code
	Hint string
	Err  error
}

func (e *Error) Error() string {
	cause := e.Code.String()
	if e.Err != nil {
		cause = e.Err.Error()
	}
	if e.Op == "" {
		return cause
	}
	return "cannot " + e.Op + ": " + cause
}

func (e *Error) Unwrap() error { return e.Err }

// New makes an error with a formatted cause.
func New(code Code, op, hint, format string, args ...any) *Error {
	return &Error{Op: op, Code: code, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// Wrap says what was attempted when err happened. The code is err's own (see
// CodeOf), and so is the hint when hint is empty. Wrap(nil) is nil.
func Wrap(err error, op, hint string) error {
	if err == nil {
		return nil
	}
	if hint == "" {
		hint = HintOf(err)
	}
	return &Error{Op: op, Code: CodeOf(err), Hint: hint, Err: err}
}

// CodeOf finds the code of err: of the outermost Error in its chain, else the
// code that a well-known system or context error stands for, else Internal.
// CodeOf(nil) is zero.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return NoSpace
	case errors.Is(err, syscall.EROFS):
		return ReadOnly
	case errors.Is(err, fs.ErrPermission):
		return Denied
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrExist):
		return Exists
	case errors.Is(err, fs.ErrClosed):
		return Closed
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// HintOf returns the first hint in err's chain, or "".
func HintOf(err error) string {
	for {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
}

// Cap cuts text to at most n bytes of valid UTF-8, between two runes: what goes to
// a peer in a field of limited size, who refuses half a rune. Bytes that are no
// UTF-8 become "?".
func Cap(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// maxQuoted is how many runes of untrusted text a message shows.
const maxQuoted = 80

// Quote makes untrusted text safe to show: Go-quoted, so that control
// characters and line breaks cannot forge output, and capped.
func Quote(s string) string {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxQuoted {
		n := 0
		for i := range s {
			if n == maxQuoted {
				return strconv.Quote(s[:i]) + "…"
			}
			n++
		}
	}
	return strconv.Quote(s)
}
