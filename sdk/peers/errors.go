package peers

import "errors"

// A Code is what kind of failure the host, or a handler, reports. It is an error
// itself, so that errors.Is(err, peers.CodeNotFound) tells.
type Code int32

// Error gives the code's name.
func (c Code) Error() string {
	if c > 0 && int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "unknown code"
}

// An Error is a failure of a host function or a refusal of the app's.
type Error struct {
	Code Code
	Op   string // the function; empty for a refusal
	Text string // for the developer, or for the page
}

func (e *Error) Error() string {
	s := e.Text
	if s == "" {
		s = e.Code.Error()
	}
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	return s
}

// Unwrap gives the Code.
func (e *Error) Unwrap() error { return e.Code }

// Refuse makes an error that a handler returns to refuse an event: the page gets
// code and text.
func Refuse(code Code, text string) error { return &Error{Code: code, Text: text} }

// CodeOf is the code of err: CodeInternal for an error without one, 0 for nil.
func CodeOf(err error) Code {
	var c Code
	switch {
	case err == nil:
		return 0
	case errors.As(err, &c) && c > 0:
		return c
	}
	return CodeInternal
}
