// Package linktest measures links for `make bench` and for the benchmarks of
// net/link: throughput beside bare quic-go on the same path, and the time from a
// device's start to its first byte from another.
package linktest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/credential"
	"github.com/peers-run/peers-runtime/net/discover"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/net/netmon"
	"github.com/quic-go/quic-go"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// A stream is what both sides of the comparison write to. Close ends the writing.
type stream interface {
	io.Reader
	io.Writer
	Close() error
}

// A Side is one side of the comparison: two ends of a connection over loopback.
// Close it.
type Side struct {
	open  func(ctx context.Context) (stream, error)
	close func() error
}

// Push sends n bytes on a stream of its own and gives how long it took until the
// other end had read them all.
func (s *Side) Push(ctx context.Context, n int) (time.Duration, error) {
	buf := make([]byte, 64<<10)
	began := time.Now()
	str, err := s.open(ctx)
	if err != nil {
		return 0, err
	}
	for sent := 0; sent < n; sent += len(buf) {
		if _, err := str.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := str.Close(); err != nil {
		return 0, err
	}
	_, err = io.ReadAll(str)
	return time.Since(began), err
}

// Close ends the side.
func (s *Side) Close() error { return s.close() }

// Raw is quic-go alone: bare UDP sockets, its default configuration, the same
// TLS.
func Raw(ctx context.Context) (*Side, error) {
	var closers []func() error
	side := &Side{close: func() error {
		var errs []error
		for i := range closers {
			errs = append(errs, closers[len(closers)-1-i]())
		}
		return errors.Join(errs...)
	}}
	ks := [2]*keys.KeyPair{keys.GenerateKeyPair(), keys.GenerateKeyPair()}
	var creds [2]*credential.Credential
	var trs [2]*quic.Transport
	for i := range trs {
		var err error
		if creds[i], err = credential.New(ks[i]); err != nil {
			return nil, errors.Join(err, side.Close())
		}
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
		if err != nil {
			return nil, errors.Join(err, side.Close())
		}
		trs[i] = &quic.Transport{Conn: c}
		closers = append(closers, c.Close, trs[i].Close)
	}
	ln, err := trs[0].Listen(creds[0].Accepting(), nil)
	if err != nil {
		return nil, errors.Join(err, side.Close())
	}
	var wg sync.WaitGroup
	wg.Go(func() { swallow(ctx, ln) })
	closers = append([]func() error{func() error { wg.Wait(); return nil }}, closers...)
	qc, err := trs[1].Dial(ctx, trs[0].Conn.LocalAddr(), creds[1].Dialling(ks[0].ID(), func(keys.DeviceID) {}), nil)
	if err != nil {
		return nil, errors.Join(err, side.Close())
	}
	side.open = func(ctx context.Context) (stream, error) { return qc.OpenStreamSync(ctx) }
	return side, nil
}

// swallow reads the streams of one connection to their end and then says one
// byte on each.
func swallow(ctx context.Context, ln *quic.Listener) {
	qc, err := ln.Accept(ctx)
	if err != nil {
		return
	}
	for {
		str, err := qc.AcceptStream(ctx)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, str)
		_, _ = str.Write([]byte{1})
		_ = str.Close()
	}
}

// half closes the write side only, as quic-go's streams do.
type half struct{ *link.Stream }

func (h half) Close() error { return h.CloseWrite() }

// Links is the same through two Endpoints.
func Links(ctx context.Context) (*Side, error) {
	x, y, stop, err := pair(ctx, loopback)
	if err != nil {
		return nil, err
	}
	p, err := x.Dial(ctx, y.ID(), []netip.AddrPort{netip.AddrPortFrom(loopback, y.Port())})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &Side{
		open: func(ctx context.Context) (stream, error) {
			s, err := p.OpenStream(ctx, protoSink)
			return half{s}, err
		},
		close: stop,
	}, nil
}

const protoSink = "sink/1"

// start runs an endpoint that reads what it is sent to its end and then says one
// byte.
func start(ctx context.Context, k *keys.KeyPair, bind ...netip.Addr) (*link.Endpoint, func() error, error) {
	e, err := link.New(link.Config{
		Keys: k, Bind: bind,
		Admit: func(keys.DeviceID) (link.Access, error) { return link.AccessFull, nil },
	})
	if err != nil {
		return nil, nil, err
	}
	err = e.Handle(protoSink, link.AccessFull, func(_ context.Context, s *link.Stream) {
		_, _ = io.Copy(io.Discard, s)
		_, _ = s.Write([]byte{1})
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
	})
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	stop := func() error { return errors.Join(e.Close(), <-ran) }
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return e, stop, nil
}

func pair(ctx context.Context, bind ...netip.Addr) (x, y *link.Endpoint, stop func() error, err error) {
	x, stopX, err := start(ctx, keys.GenerateKeyPair(), bind...)
	if err != nil {
		return nil, nil, nil, err
	}
	y, stopY, err := start(ctx, keys.GenerateKeyPair(), bind...)
	if err != nil {
		return nil, nil, nil, errors.Join(err, stopX())
	}
	return x, y, func() error { return errors.Join(stopX(), stopY()) }, nil
}

const settled = 500 * time.Millisecond

// A Meeting is how long two devices in one network took to meet.
type Meeting struct {
	Found     time.Duration // from mDNS finding the other to the first byte from it
	Connected time.Duration // from the second device's start to that byte
}

// Meet starts two devices that know nothing of each other but their ids, on
// every interface of this machine. The first has been there for settled when the
// second comes and finds it by mDNS.
func Meet(ctx context.Context) (m Meeting, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	kx, ky := keys.GenerateKeyPair(), keys.GenerateKeyPair()
	x, stopX, err := start(ctx, kx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, stopX()) }()
	search := func(self *link.Endpoint, other keys.DeviceID, found func(keys.DeviceID, []netip.AddrPort)) error {
		mon := netmon.New(netmon.Config{})
		d, err := discover.New(discover.Config{
			ID: self.ID(), Port: self.Port(), Monitor: mon, Found: found,
			Known: func() []keys.DeviceID { return []keys.DeviceID{other} },
		})
		if err == nil {
			wg.Go(func() { _ = mon.Run(ctx) })
			wg.Go(func() { _ = d.Run(ctx) })
		}
		return err
	}
	if err := search(x, ky.ID(), func(keys.DeviceID, []netip.AddrPort) {}); err != nil {
		return m, err
	}
	select {
	case <-time.After(settled):
	case <-ctx.Done():
	}
	began := time.Now()
	y, stopY, err := start(ctx, ky)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, stopY()) }()
	type place struct {
		at   []netip.AddrPort
		when time.Time
	}
	places := make(chan place, 64)
	err = search(y, kx.ID(), func(_ keys.DeviceID, at []netip.AddrPort) {
		select {
		case places <- place{at, time.Now()}:
		default:
		}
	})
	if err != nil {
		return m, err
	}
	select {
	case at := <-places:
		p, err := y.Dial(ctx, x.ID(), at.at)
		if err != nil {
			return m, err
		}
		s, err := p.OpenStream(ctx, protoSink)
		if err != nil {
			return m, err
		}
		defer s.Close()
		if err := s.CloseWrite(); err != nil {
			return m, err
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return m, err
		}
		return Meeting{Found: time.Since(at.when), Connected: time.Since(began)}, nil
	case <-ctx.Done():
		return m, context.Cause(ctx)
	}
}
