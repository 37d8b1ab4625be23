package link

import (
	"context"
	"io"
	"net"

	"slices"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/quic-go/quic-go"
)

// rawPair is quic-go alone: bare UDP sockets, default configuration, the same
// TLS. What the acceptor gets it throws away and then says one byte.
func rawPair(b testing.TB) func() (io.ReadWriteCloser, error) {
	b.Helper()
	udp := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		return c
	}
	k1, k2 := keys.GenerateKeyPair(), keys.GenerateKeyPair()
	s, c := &quic.Transport{Conn: udp()}, &quic.Transport{Conn: udp()}
	b.Cleanup(func() { c.Close(); s.Close() })
	ln, err := s.Listen(tlsOf(b, k1), nil)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		qc, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		for {
			str, err := qc.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, str)
				_, _ = str.Write([]byte{1})
				_ = str.Close()
			}()
		}
	}()
	qc, err := c.Dial(soon(b), s.Conn.LocalAddr(), tlsOf(b, k2), nil)
	if err != nil {
		b.Fatal(err)
	}
	return func() (io.ReadWriteCloser, error) { return qc.OpenStreamSync(context.Background()) }
}

// oursPair is the same through an Endpoint.
func oursPair(b testing.TB) func() (io.ReadWriteCloser, error) {
	b.Helper()
	x, y := start(b), start(b)
	if err := y.Handle("sink/1", AccessFull, func(_ context.Context, s *Stream) {
		_, _ = io.Copy(io.Discard, s)
		_, _ = s.Write([]byte{1})
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
	}); err != nil {
		b.Fatal(err)
	}
	p := dial(b, x, y)
	return func() (io.ReadWriteCloser, error) {
		s, err := p.OpenStream(context.Background(), "sink/1")
		return halfCloser{s}, err
	}
}

// halfCloser closes as quic-go's streams do: the write side only.
type halfCloser struct{ *Stream }

func (h halfCloser) Close() error { return h.CloseWrite() }

// push sends n bytes and waits until the acceptor has read them all.
func push(open func() (io.ReadWriteCloser, error), n int) (time.Duration, error) {
	buf := make([]byte, 64<<10)
	began := time.Now()
	s, err := open()
	if err != nil {
		return 0, err
	}
	for sent := 0; sent < n; sent += len(buf) {
		if _, err := s.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := s.Close(); err != nil {
		return 0, err
	}
	if _, err := io.ReadAll(s); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// BenchmarkThroughput compares a Stream with a raw quic-go stream on the same
// path (loopback), in turn, in one process, and reports the ratio of the medians.
func BenchmarkThroughput(b *testing.B) {
	const size = 64 << 20
	raw, ours := rawPair(b), oursPair(b)
	var times [2][]float64
	round := func() {
		for i, open := range []func() (io.ReadWriteCloser, error){raw, ours} {
			d, err := push(open, size)
			if err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], d.Seconds())
		}
	}
	round() // warm: congestion windows open
	times = [2][]float64{}
	for b.Loop() {
		round()
	}
	for i := range times {
		slices.Sort(times[i])
	}
	r, o := times[0][len(times[0])/2], times[1][len(times[1])/2]
	b.ReportMetric(size*8/r/1e6, "raw-Mbit/s")
	b.ReportMetric(size*8/o/1e6, "ours-Mbit/s")
	b.ReportMetric(r/o, "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDialToFirstByte measures a whole reconnect: handshake, admission,
// stream, one byte there and back.
func BenchmarkDialToFirstByte(b *testing.B) {
	x, y := start(b, func(c *Config) { c.Limits.Handshakes = 1 << 20 }), start(b, func(c *Config) { c.Limits.Handshakes = 1 << 20 })
	var dials, firsts []float64
	for b.Loop() {
		began := time.Now()
		p, err := x.Dial(context.Background(), y.ID(), y.at())
		if err != nil {
			b.Fatal(err)
		}
		dials = append(dials, time.Since(began).Seconds()*1000)
		s, err := p.OpenStream(context.Background(), "echo/1")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Write([]byte{1}); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		firsts = append(firsts, time.Since(began).Seconds()*1000)
		p.Disconnect(0, "")
		until(b, func() bool { return len(x.Status())+len(y.Status()) == 0 })
	}
	slices.Sort(dials)
	slices.Sort(firsts)
	b.ReportMetric(dials[len(dials)/2], "dial-ms-p50")
	b.ReportMetric(firsts[len(firsts)/2], "firstbyte-ms-p50")
	b.ReportMetric(firsts[len(firsts)*99/100], "firstbyte-ms-p99")
}

// BenchmarkStream opens a stream, says one byte, and hears one.
func BenchmarkStream(b *testing.B) {
	x, y := start(b), start(b)
	p := dial(b, x, y)
	for b.Loop() {
		if err := trySay(context.Background(), p, "x"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStatus is what status costs with many peers.
func BenchmarkStatus(b *testing.B) {
	hub := start(b)
	for range 50 {
		dial(b, start(b), hub)
	}

	for b.Loop() {
		if len(hub.Status()) == 0 {
			b.Fatal("nobody is there")
		}
	}
}
