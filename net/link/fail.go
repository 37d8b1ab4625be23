package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/quic-go/quic-go"
)

// A cause puts our words to an error of QUIC's and keeps it in the chain, but
// not in the text: QUIC's texts quote the peer.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

func because(code fault.Code, op, hint, text string, err error) error {
	return &fault.Error{Op: op, Code: code, Hint: hint, Err: &cause{text, err}}
}

// explain turns an error of a connection or stream into one for people: a code,
// and words that say who ended it and why. EOF and deadlines pass as they are.
func explain(err error, op string) error {
	switch {
	case err == nil, err == io.EOF, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if se, ok := errors.AsType[*quic.StreamError](err); ok {
		return explainStream(se, op)
	}
	if ae, ok := errors.AsType[*quic.ApplicationError](err); ok {
		who, code := "the peer", codeOf(uint64(ae.ErrorCode))
		if !ae.Remote {
			who = "this device"
		}
		text := who + " closed the connection"
		if ae.ErrorMessage != "" {
			text += ": " + fault.Quote(ae.ErrorMessage)
		}
		return because(code, op, "", text, err)
	}
	var (
		idle *quic.IdleTimeoutError
		hand *quic.HandshakeTimeoutError
		rst  *quic.StatelessResetError
		te   *quic.TransportError
		vn   *quic.VersionNegotiationError
	)
	switch {
	case errors.As(err, &hand):
		return because(fault.Timeout, op, "", "no answer", err)
	case errors.As(err, &idle):
		return because(fault.Timeout, op, "", "nothing was heard from the peer any more", err)
	case errors.As(err, &rst):
		return because(fault.Closed, op, "", "the peer restarted", err)
	case errors.As(err, &vn):
		return because(fault.Version, op, "update Peers on both devices", "it speaks another version of QUIC", err)
	case errors.As(err, &te):
		return explainTransport(te, op, err)
	case errors.Is(err, net.ErrClosed), errors.Is(err, quic.ErrStreamClosed):
		return because(fault.Closed, op, "", "closed", err)
	}
	return fault.Wrap(err, op, "")
}

func explainStream(se *quic.StreamError, op string) error {
	code := codeOf(uint64(se.ErrorCode))
	text := "the peer gave up the stream (" + code.String() + ")"
	hint := ""
	switch {
	case !se.Remote:
		text = "the stream was given up here (" + code.String() + ")"
	case code == fault.NoSys:
		text, hint = "the peer does not serve this protocol", "update Peers on both devices"
	case code == fault.Denied:
		text = "the peer does not grant this"
	}
	return because(code, op, hint, text, se)
}

// TLS alerts as QUIC carries them (RFC 9001 §4.8): 0x100 plus the alert.
const (
	cryptoErrors    = 0x100
	alertNoProtocol = cryptoErrors + 120 // no_application_protocol
	alertBadCert    = cryptoErrors + 42  // what VerifyConnection's error becomes
)

func explainTransport(te *quic.TransportError, op string, err error) error {
	switch {
	case te.ErrorCode == quic.ConnectionRefused:
		return because(fault.Busy, op, "try again in a minute", "the device is too busy for new connections", err)
	case te.ErrorCode == alertNoProtocol:
		return because(fault.Version, op, "update Peers on both devices", "what answers there does not speak "+ALPN, err)
	case te.ErrorCode == alertBadCert && te.Remote:
		return because(fault.Untrusted, op, "", "the peer does not accept this device's key", err)
	case te.ErrorCode.IsCryptoError():
		return because(fault.Untrusted, op, "", "the TLS handshake failed: "+fault.Quote(te.Error()), err)
	}
	return because(fault.Protocol, op, "", fmt.Sprintf("QUIC error 0x%x", uint64(te.ErrorCode)), err)
}

// codeOf reads a code that a peer sent; one that we do not know is Protocol.
func codeOf(n uint64) fault.Code {
	switch known := fault.Codes(); {
	case n == 0:
		return fault.Closed
	case n <= uint64(known[len(known)-1]):
		return fault.Code(n)
	}
	return fault.Protocol
}
