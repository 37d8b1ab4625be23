// Package link connects devices: mutually authenticated TLS 1.3 over QUIC
// (RFC 9000, RFC 8446), where a device is its key.
//
// An Endpoint has one UDP socket per family, which listens and dials. Both
// sides show a self-signed certificate of their device's Ed25519 key; the rest
// of the certificate means nothing. Who dials says whom it expects and accepts
// nobody else; who accepts asks Config.Admit. "Connected" is the acceptor's
// word, not the handshake's: the acceptor judges the dialler after it, and its
// hello, or its refusal with the reason, is what Dial waits for.
//
// A Peer is a device and all live connections to it. Streams open on the best
// one. When a better one comes, new streams open there, the streams on the
// other are told (Stream.Moved) and it is retired: no stream is cut but by the
// grace period's end. Of duplicates of one kind the one stays that the lower
// DeviceID dialled. The device with the lower id alone decides what is retired,
// so the two never retire each other's choice.
//
// What is trusted: TLS 1.3 of crypto/tls, and a DeviceID once its key signed
// the handshake. Nothing a peer sends is trusted before that, and its text
// never (fault.Quote). Limits bound what anybody can make us hold.
//
// docs/spec/link.md describes the bytes; testdata pins them.
package link

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/credential"
)

// ALPN is the application protocol of every connection.
const ALPN = credential.ALPN

// An Access is what a device may do on a link.
type Access uint8

// The accesses. The numbers are on the wire.
const (
	AccessNone Access = 0 // refused
	AccessPair Access = 1 // a stranger while an invite is open: streams of handlers with Min AccessPair only
	AccessFull Access = 2 // a device of a user we share a group with
)

// String names the access.
func (a Access) String() string {
	switch a {
	case AccessNone:
		return "none"
	case AccessPair:
		return "pair"
	case AccessFull:
		return "full"
	}
	return "unknown"
}

// A Kind is how a connection reaches the peer. Lower is better.
type Kind uint8

// The kinds.
const (
	Direct  Kind = 1 // packets go to the peer's own address
	Relayed Kind = 2 // packets go through a relay
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case Direct:
		return "direct"
	case Relayed:
		return "relayed"
	}
	return "unknown"
}

// A Carrier is a packet conn beside the endpoint's own sockets. The endpoint
// listens on it, dials addresses inside Prefix through it, and closes it.
type Carrier struct {
	Kind   Kind
	Prefix netip.Prefix
	Conn   net.PacketConn
}

// A Handler serves one incoming stream and owns it until it returns; the
// stream is then closed. ctx ends with the stream's connection or the endpoint.
type Handler func(ctx context.Context, s *Stream)

// Config of an Endpoint. Zero values mean what each field says.
type Config struct {
	// Keys are the device's. Required.
	Keys *keys.KeyPair

	// Admit says what a device may do here, for both directions. An error, or
	// AccessNone, refuses it; the error's code and text travel to the peer. It
	// is called from several goroutines and must not block. Required.
	Admit func(keys.DeviceID) (Access, error)

	// Port is the UDP port to try first on every family; if it is taken, or
	// zero, any port free on all families is used (Endpoint.Port reports it).
	Port uint16

	// Bind has at most one address of each family; nil is 0.0.0.0 and ::.
	Bind []netip.Addr

	// Carriers carry packets beside the sockets.
	Carriers []Carrier

	// Candidates lists where a device may be reached now, for the devices that
	// Keep keeps. Nil means nowhere. It must not block.
	Candidates func(keys.DeviceID) []netip.AddrPort

	// NonQUIC gets the packets whose two top bits are 00 (STUN, probes); nil
	// drops them. It is called from the reading goroutine, must not block and
	// must not keep the slice.
	NonQUIC func(packet []byte, from netip.AddrPort)

	// Logger gets what is worth a line; nil discards.
	Logger *slog.Logger

	Limits Limits
	Timing Timing
}

// Limits bound what peers and strangers can make the endpoint hold. Zero
// fields take the default named.
type Limits struct {
	Links         int    // connections in all: 256
	LinksPerPeer  int    // connections of one device, retiring ones included: 8
	Strangers     int    // connections with AccessPair: 8
	HalfOpen      int    // connections not yet admitted: 128; above a quarter addresses are verified (RFC 9000 §8.1.2)
	Handshakes    int    // admitted for checking per second, all sources: 100
	Streams       int    // open at once, per connection, by the peer: 128
	ReceiveMemory uint64 // bytes by which all receive windows may grow together: 64 MiB
}

// Timing holds every duration. Zero fields take the default named.
type Timing struct {
	Handshake   time.Duration // without an answer, per address: 5 s
	Hello       time.Duration // from handshake to hello: 5 s
	Header      time.Duration // from a stream's first byte to its protocol name: 10 s
	KeepAlive   time.Duration // without any packet until a ping: 15 s
	Suspect     time.Duration // the same while packets are sent, at least 4 round trips: 2 s
	Look        time.Duration // between looks whether packets arrive: 1 s
	Idle        time.Duration // without any packet until a connection is dead: 45 s
	Probe       time.Duration // after a ping without any packet until the connection is dead: 3 s
	HandOver    time.Duration // a better connection lives before the worse is retired: 30 s
	Grace       time.Duration // streams of a retired connection may go on: 30 s
	Stagger     time.Duration // between dialling one address and the next: 200 ms, on the LAN a quarter
	BackoffMin  time.Duration // after the first failure: 0.5 s
	BackoffMax  time.Duration // at most: 60 s
	Shutdown    time.Duration // handlers may take to end: 5 s
	SteadyAfter time.Duration // a connection that lived this long resets the back-off: 30 s
}

func orElse[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// filled returns c with defaults in place of zeros, or says what is missing.
func (c Config) filled() (Config, error) {
	const op = "open the network"
	if c.Keys == nil || c.Admit == nil {
		return c, fault.New(fault.Internal, op, "", "link.Config needs Keys and Admit")
	}
	if !c.Keys.ID().Valid() {
		return c, fault.New(fault.Invalid, op, "", "the device key is not usable")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Candidates == nil {
		c.Candidates = func(keys.DeviceID) []netip.AddrPort { return nil }
	}
	if c.Bind == nil {
		c.Bind = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	seen := map[bool]bool{}
	for _, a := range c.Bind {
		if !a.IsValid() || a.Is4In6() || seen[a.Is4()] {
			return c, fault.New(fault.Invalid, op, "", "link.Config.Bind takes at most one address of each family")
		}
		seen[a.Is4()] = true
	}
	l, t := &c.Limits, &c.Timing
	orElse(&l.Links, 256)
	orElse(&l.LinksPerPeer, 8)
	orElse(&l.Strangers, 8)
	orElse(&l.HalfOpen, 128)
	orElse(&l.Handshakes, 100)
	orElse(&l.Streams, 128)
	orElse(&l.ReceiveMemory, 64<<20)
	orElse(&t.Handshake, 5*time.Second)
	orElse(&t.Hello, 5*time.Second)
	orElse(&t.Header, 10*time.Second)
	orElse(&t.KeepAlive, 15*time.Second)
	orElse(&t.Suspect, 2*time.Second)
	orElse(&t.Look, time.Second)
	orElse(&t.Idle, 45*time.Second)
	orElse(&t.Probe, 3*time.Second)
	orElse(&t.HandOver, 30*time.Second)
	orElse(&t.Grace, 30*time.Second)
	orElse(&t.Stagger, 200*time.Millisecond)
	orElse(&t.BackoffMin, 500*time.Millisecond)
	orElse(&t.BackoffMax, time.Minute)
	orElse(&t.Shutdown, 5*time.Second)
	orElse(&t.SteadyAfter, 30*time.Second)
	return c, nil
}
