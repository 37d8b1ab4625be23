package link

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/credential"
	"github.com/quic-go/quic-go"
)

// A rogue speaks QUIC with a TLS configuration of its own making.
type rogue struct {
	tr *quic.Transport
	at netip.AddrPort
}

func newRogue(t testing.TB) *rogue {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{tr: &quic.Transport{Conn: c}, at: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	t.Cleanup(func() { r.tr.Close(); c.Close() })
	return r
}

// tlsOf is an honest configuration of a device that trusts everybody.
func tlsOf(t testing.TB, k *keys.KeyPair) *tls.Config {
	t.Helper()
	c, err := credential.New(k)
	if err != nil {
		t.Fatal(err)
	}
	tc := c.Accepting()
	tc.VerifyConnection = nil
	return tc
}

// knock dials n as an honest client would and returns what n says in the end.
func (r *rogue) knock(t testing.TB, n *node, tc *tls.Config) (*quic.Conn, error) {
	t.Helper()
	qc, err := r.tr.Dial(soon(t), net.UDPAddrFromAddrPort(n.at()[0]), tc, &quic.Config{MaxIncomingUniStreams: 1})
	if err != nil {
		return nil, err
	}
	_, _, err = awaitHello(soon(t), qc)
	return qc, err
}

// forged is a certificate of one key, signed by whatever signer does.
func forged(t testing.TB, pub ed25519.PublicKey, signer crypto.Signer) tls.Certificate {
	t.Helper()
	own := keys.GenerateKeyPair().PrivateKey()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, pub, own)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signer}
}

// identityPoint signs anything for the key 0100…00: with that key, R = the
// identity and S = 0 is a valid signature of every message.
type identityPoint struct{}

func smallOrderKey() ed25519.PublicKey { return append([]byte{1}, make([]byte, 31)...) }

func (identityPoint) Public() crypto.PublicKey { return smallOrderKey() }
func (identityPoint) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return append(append([]byte{1}, make([]byte, 31)...), make([]byte, 32)...), nil
}

func TestBadClients(t *testing.T) {
	n := start(t)
	honest := keys.GenerateKeyPair()
	other := keys.GenerateKeyPair()
	for name, c := range map[string]struct {
		adjust func(*tls.Config)
		said   string
	}{
		"key of another device": {func(tc *tls.Config) {
			id := other.ID()
			tc.Certificates = []tls.Certificate{forged(t, id[:], honest.PrivateKey())}
		}, "invalid signature"},
		"key of small order": {func(tc *tls.Config) {
			tc.Certificates = []tls.Certificate{forged(t, smallOrderKey(), identityPoint{})}
		}, "bad certificate"},
		"our own key": {func(tc *tls.Config) {
			tc.Certificates = tlsOf(t, n.cfg.Keys).Certificates
		}, "bad certificate"},
		"no certificate": {func(tc *tls.Config) { tc.Certificates = nil }, "certificate required"},
		"two certificates": {func(tc *tls.Config) {
			c := &tc.Certificates[0]
			c.Certificate = [][]byte{c.Certificate[0], c.Certificate[0]}
		}, "bad certificate"},
		"other protocol": {func(tc *tls.Config) { tc.NextProtos = []string{"h3"} }, "no application protocol"},
		"no protocol":    {func(tc *tls.Config) { tc.NextProtos = nil }, "no application protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			tc := tlsOf(t, honest)
			tc.Certificates = append([]tls.Certificate(nil), tc.Certificates...)
			c.adjust(tc)
			_, err := newRogue(t).knock(t, n, tc)
			te, ok := errors.AsType[*quic.TransportError](err)
			if !ok || !te.Remote || !te.ErrorCode.IsCryptoError() {
				t.Fatalf("the rogue was told %v", err)
			}
			if got := te.ErrorCode.String() + te.Error(); c.said != "invalid signature" && !strings.Contains(got, c.said) {
				t.Errorf("the rogue was told %q, want %q", got, c.said)
			}
			if st := n.Status(); len(st) > 0 {
				t.Errorf("it left something behind: %+v", st)
			}
		})
	}
	// The same rogue with honest papers gets in: the refusals above are earned.
	if _, err := newRogue(t).knock(t, n, tlsOf(t, honest)); err != nil {
		t.Errorf("an honest client is refused: %v", err)
	}
}

// answering runs a rogue acceptor with a behaviour after the handshake.
func (r *rogue) answering(t testing.TB, tc *tls.Config, behave func(*quic.Conn)) {
	t.Helper()
	ln, err := r.tr.Listen(tc, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		for {
			qc, err := ln.Accept(ctx)
			if err != nil {
				return
			}
			behave(qc)
		}
	}()
	t.Cleanup(func() { cancel(); <-done; ln.Close() })
}

func sayRaw(b []byte) func(*quic.Conn) {
	return func(qc *quic.Conn) {
		s, err := qc.OpenUniStream()
		if err != nil {
			return
		}
		_, _ = s.Write(b)
	}
}

func TestBadAcceptors(t *testing.T) {
	n := start(t, func(c *Config) { c.Timing.Hello = 300 * time.Millisecond; c.Timing.Handshake = 500 * time.Millisecond })
	k, other := keys.GenerateKeyPair(), keys.GenerateKeyPair()
	for name, c := range map[string]struct {
		tls    *tls.Config
		behave func(*quic.Conn)
		stage  Stage
		code   fault.Code
		text   string
	}{
		"another device":    {tlsOf(t, other), sayRaw(appendFrame(nil, helloFrame(AccessFull, [startLen]byte{}))), StageIdentity, fault.Untrusted, "another device (" + other.ID().Short()},
		"other protocol":    {func() *tls.Config { c := tlsOf(t, k); c.NextProtos = []string{"h3"}; return c }(), nil, StageIdentity, fault.Version, "peers/1"},
		"silent":            {tlsOf(t, k), func(*quic.Conn) {}, StageAdmission, fault.Timeout, ""},
		"stutters":          {tlsOf(t, k), sayRaw([]byte{1, 0}), StageAdmission, fault.Timeout, ""},
		"talks nonsense":    {tlsOf(t, k), sayRaw([]byte("GET / HTTP/1.0\r\n")), StageAdmission, 0, "malformed"},
		"says a bomb":       {tlsOf(t, k), sayRaw([]byte{1, 0xff, 0xff}), StageAdmission, 0, "malformed"},
		"grants nothing":    {tlsOf(t, k), sayRaw(appendFrame(nil, helloFrame(AccessNone, [startLen]byte{}))), StageAdmission, 0, "grants nothing"},
		"refuses":           {tlsOf(t, k), func(qc *quic.Conn) { refuseQUIC(qc, fault.New(fault.Denied, "", "", "go\naway")) }, StageAdmission, fault.Denied, `"go\naway"`},
		"refuses weirdly":   {tlsOf(t, k), func(qc *quic.Conn) { _ = qc.CloseWithError(1<<40, strings.Repeat("x", 800)) }, StageAdmission, fault.Protocol, "xxx"},
		"refuses by number": {tlsOf(t, k), func(qc *quic.Conn) { _ = qc.CloseWithError(0, "") }, StageAdmission, fault.Closed, "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRogue(t)
			r.answering(t, c.tls, func(qc *quic.Conn) {
				if c.behave != nil {
					c.behave(qc)
				}
			})
			_, err := n.Dial(soon(t), k.ID(), []netip.AddrPort{r.at})
			var de *DialError
			if !errors.As(err, &de) || len(de.Attempts) != 1 {
				t.Fatalf("got %v", err)
			}
			a := de.Attempts[0]
			if a.Stage != c.stage || c.code != 0 && fault.CodeOf(a.Err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("stage %s, code %v: %v", a.Stage, fault.CodeOf(a.Err), err)
			}
			if len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the peer's text is not tamed: %q", err.Error())
			}
			if fault.HintOf(err) == "" && c.stage != StageAdmission {
				t.Errorf("no hint: %v", err)
			}
		})
	}
}

func TestWrongIDDialled(t *testing.T) {
	a, b := start(t), start(t)
	_, err := a.Dial(soon(t), keys.GenerateKeyPair().ID(), b.at())
	wantCode(t, err, fault.Untrusted)
	if !strings.Contains(err.Error(), b.ID().Short()) {
		t.Errorf("the error does not say who answers: %v", err)
	}
	if len(b.Status()) != 0 {
		t.Errorf("the device dialled by mistake keeps %+v", b.Status())
	}
	_, err = a.Dial(soon(t), a.ID(), a.at())
	wantCode(t, err, fault.Invalid)
	_, err = a.Dial(soon(t), keys.DeviceID(smallOrderKey()), b.at())
	wantCode(t, err, fault.Invalid)
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code fault.Code
		says string
	}{
		"revoked":         {fault.New(fault.Denied, "", "", "this device was revoked"), fault.Denied, "this device was revoked"},
		"unknown":         {nil, fault.Denied, "not known here"},
		"not our error":   {errors.New("the list is being rebuilt"), fault.Internal, "the list is being rebuilt"},
		"a novel":         {fault.New(fault.Busy, "", "", "%s", strings.Repeat("später ", 100)), fault.Busy, "später"},
		"control letters": {fault.New(fault.Denied, "", "", "\x1b[31mred\r\n"), fault.Denied, `\x1b[31mred`},
	} {
		t.Run("by the acceptor: "+name, func(t *testing.T) {
			a, b := start(t), start(t)
			b.world.rule(a.ID(), AccessNone, c.err)
			_, err := a.Dial(soon(t), b.ID(), b.at())
			wantCode(t, err, c.code)
			if !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("the reason did not arrive: %v", err)
			}
			if why := a.Peer(b.ID()).Status().Why(); len(a.Status()) > 0 && !strings.Contains(why, c.says) {
				t.Errorf("why: %s", why)
			}
			if err := trySay(soon(t), b.Peer(a.ID()), "x"); fault.CodeOf(err) != fault.Offline {
				t.Errorf("the acceptor thinks it is connected: %v", err)
			}
		})
	}
	t.Run("by the dialler", func(t *testing.T) {
		a, b := start(t), start(t)
		a.world.rule(b.ID(), AccessNone, fault.New(fault.Denied, "", "", "this device was revoked"))
		_, err := a.Dial(soon(t), b.ID(), b.at())
		wantCode(t, err, fault.Denied)
		if n := b.carriers[0].sock.Swallowed(); n != 0 {
			t.Errorf("%d packets lost", n)
		}
		// Nor does it accept the other.
		_, err = b.Dial(soon(t), a.ID(), a.at())
		wantCode(t, err, fault.Denied)
	})
}

func TestPairOnly(t *testing.T) {
	a, b := start(t), start(t)
	b.world.rule(a.ID(), AccessPair, nil)
	if err := b.Handle("pair/1", AccessPair, echo); err != nil {
		t.Fatal(err)
	}
	p := dial(t, a, b)
	wantCode(t, trySay(soon(t), p, "secrets, please"), fault.Denied)
	s, err := p.OpenStream(soon(t), "pair/1")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write([]byte("hi"))
	_ = s.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "hi" {
		t.Fatalf("pairing: %q %v", got, err)
	}
	if st := p.Status(); st.Granted != AccessPair || st.Access != AccessFull {
		t.Errorf("granted %v, access %v", st.Granted, st.Access)
	}

	// Paired: the same connection may do more now, and the other hears of it.
	w := a.Watch()
	defer w.Close()
	b.world.rule(a.ID(), AccessFull, nil)
	b.Recheck()
	for p.Status().Granted != AccessFull {
		if _, err := w.Next(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	say(t, p, "now it works")
	if n := len(p.Status().Conns); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestStrangersAreBounded: strangers who do nothing give way to the next, those
// who are pairing do not.
func TestStrangersAreBounded(t *testing.T) {
	b := start(t, func(c *Config) { c.Limits.Strangers = 2 })
	b.world.other = AccessPair
	busy := make(chan struct{})
	defer close(busy)
	if err := b.Handle("pair/1", AccessPair, func(ctx context.Context, s *Stream) {
		_, _ = s.Write([]byte{1})
		select {
		case <-busy:
		case <-ctx.Done():
		}
	}); err != nil {
		t.Fatal(err)
	}
	connected := func() (n int) {
		for _, s := range b.Status() {
			if s.Connected() {
				n++
			}
		}
		return n
	}
	var idle []*node
	for range 5 {
		a := start(t)
		dial(t, a, b)
		until(t, func() bool { return b.Peer(a.ID()).Status().Connected() })
		if idle = append(idle, a); connected() > 2 {
			t.Errorf("%d strangers are connected", connected())
		}
	}
	if b.Peer(idle[0].ID()).Status().Connected() {
		t.Error("the first stranger is still there")
	}
	for range 2 {
		p := dial(t, start(t), b)
		s, err := p.OpenStream(soon(t), "pair/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := start(t).Dial(soon(t), b.ID(), b.at())
	wantCode(t, err, fault.Busy)
	if connected() != 2 {
		t.Errorf("%d strangers are connected", connected())
	}
}

func TestRevokedWhileConnected(t *testing.T) {
	a, b := start(t), start(t)
	p := dial(t, a, b)
	s, err := p.OpenStream(soon(t), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write([]byte("x"))
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	b.world.rule(a.ID(), AccessNone, fault.New(fault.Denied, "", "", "this device was revoked"))
	b.Recheck()
	_, err = s.Read(make([]byte, 1))
	wantCode(t, err, fault.Denied)
	if !strings.Contains(err.Error(), "this device was revoked") {
		t.Errorf("the reason did not arrive: %v", err)
	}
	until(t, func() bool { return !p.Status().Connected() && len(b.Status()) == 0 })
	_, err = a.Dial(soon(t), b.ID(), b.at())
	wantCode(t, err, fault.Denied)
}

// TestRightsShrink: what was opened under full access must not outlive it.
func TestRightsShrink(t *testing.T) {
	a, b := start(t), start(t)
	p := dial(t, a, b)
	s, err := p.OpenStream(soon(t), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	b.world.rule(a.ID(), AccessPair, nil)
	b.Recheck()
	_, err = s.Read(make([]byte, 1))
	wantCode(t, err, fault.Denied)
}

// TestRecheckDuringHandshake: whoever is judged by the old policy and registered
// under the new one is judged again.
func TestRecheckDuringHandshake(t *testing.T) {
	a := start(t)
	judged, carryOn := make(chan struct{}), make(chan struct{})
	first := true
	b := start(t, func(c *Config) {
		inner := c.Admit
		c.Admit = func(id keys.DeviceID) (Access, error) {
			access, err := inner(id)
			if first {
				first = false
				close(judged)
				<-carryOn
			}
			return access, err
		}
	})
	go func() {
		<-judged
		b.world.rule(a.ID(), AccessNone, fault.New(fault.Denied, "", "", "this device was revoked"))
		b.Recheck()
		close(carryOn)
	}()
	_, err := a.Dial(soon(t), b.ID(), b.at())
	wantCode(t, err, fault.Denied)
}
