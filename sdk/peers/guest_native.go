//go:build !wasip1

package peers

// A Host plays the host outside WASM: package peerstest has one. Call runs a
// function by its number, with its integer and byte parameters in order. It
// returns the function's result; an answer goes into out if it fits there whole.
type Host interface {
	Call(fn uint16, ints []int64, in [][]byte, out []byte) int64
}

// Deliver runs one event of an App against a Host, as the host's side calls a
// guest. size is the payload's, which the App reads from the Host. The result
// is peers_event's: negative for a refused event.
func Deliver(app App, host Host, kind EventKind, id int64, size int32) int32 {
	return dispatch(&app, sys{host}, kind, id, size)
}

// Within runs f with an Event of a Host: what the host's side does in tests as
// somebody other than the app.
func Within(host Host, f func(*Event) error) error { return f(&Event{sys: sys{host}}) }

// Registered is the App that Main declared.
func Registered() App { return registered }
