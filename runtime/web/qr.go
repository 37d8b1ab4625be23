package web

import (
	"fmt"
	"strings"

	"rsc.io/qr"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A QRRequest asks for a text as a QR code.
type QRRequest struct {
	Text string `json:"text"`
}

// A QRCode is one as an SVG path: dark modules, one unit each, in a square of
// Size units without a margin.
type QRCode struct {
	Size int    `json:"size"`
	Path string `json:"path"`
}

// maxQR is how many bytes a QR code may hold: more is not read by a phone.
const maxQR = 1024

// Draw makes the QR code of a text.
func Draw(q QRRequest) (QRCode, error) {
	const op = "draw the QR code"
	if len(q.Text) > maxQR {
		return QRCode{}, fault.New(fault.TooBig, op, "", "%d bytes, of at most %d", len(q.Text), maxQR)
	}
	c, err := qr.Encode(q.Text, qr.M)
	if err != nil {
		return QRCode{}, fault.New(fault.Invalid, op, "", "%w", err)
	}
	var b strings.Builder
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			from := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from, y, x-from, x-from)
			}
		}
	}
	return QRCode{Size: c.Size, Path: b.String()}, nil
}
