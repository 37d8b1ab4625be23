package socket

import (
	"fmt"
	"os"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// wantBuffer is how many bytes of packets may wait for us, as quic-go wants it:
// packets that come while the process has no turn are lost beyond.
const wantBuffer = 7 << 20

// hush keeps quic-go from writing its own warning about small buffers to the
// standard logger, of which this variable is the switch; Advice says it instead.
func hush() error { return os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") }

// Advice is nil, or says what the person who runs the machine should change, with
// a hint. Everything works without.
func (c *Conn) Advice() error {
	if have := c.buffer; have > 0 && have < wantBuffer {
		return fault.New(fault.Quota, "receive fast", bufferHint,
			"this machine lets a program buffer %d KiB of packets, of %d KiB wanted: links to fast networks are slower", have>>10, wantBuffer>>10)
	}
	return nil
}

// bufferHint is for Linux; buffer is not known elsewhere.
var bufferHint = fmt.Sprintf("sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d", wantBuffer, wantBuffer)
