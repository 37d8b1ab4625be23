package credential

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
)

func TestCertificateIsTheKeyAndNothingElse(t *testing.T) {
	k := keys.GenerateKeyPair()
	one, err := Certificate(k)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Certificate(k)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Certificate[0], two.Certificate[0]) {
		t.Error("a key has two certificates")
	}
	c, err := x509.ParseCertificate(one.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	id := k.ID()
	if !bytes.Equal(c.PublicKey.(ed25519.PublicKey), id[:]) || len(c.Subject.Names)+len(c.DNSNames)+len(c.IPAddresses) > 0 {
		t.Errorf("the certificate says %s", hex.EncodeToString(one.Certificate[0]))
	}
}

// smallOrder is a key for which R = the identity and S = 0 sign everything.
func smallOrder() ed25519.PublicKey { return append([]byte{1}, make([]byte, 31)...) }

// TestSmallOrderSignatureVerifies shows that PeerID's check is needed:
// crypto/ed25519 takes the forged signature.
func TestSmallOrderSignatureVerifies(t *testing.T) {
	if !ed25519.Verify(smallOrder(), []byte("anything"), append(smallOrder(), make([]byte, 32)...)) {
		t.Fatal("crypto/ed25519 refuses small orders by itself now: drop this test")
	}
}

// state is a finished handshake with a device.
func state(k *keys.KeyPair) tls.ConnectionState {
	id := k.ID()
	return tls.ConnectionState{Version: tls.VersionTLS13, NegotiatedProtocol: ALPN,
		PeerCertificates: []*x509.Certificate{{PublicKey: ed25519.PublicKey(id[:])}}}
}

func TestBadInput(t *testing.T) {
	k := keys.GenerateKeyPair()
	for name, c := range map[string]struct {
		adjust func(*tls.ConnectionState)
		code   fault.Code
		says   string
	}{
		"TLS 1.2":        {func(s *tls.ConnectionState) { s.Version = tls.VersionTLS12 }, fault.Version, "it does not speak"},
		"other protocol": {func(s *tls.ConnectionState) { s.NegotiatedProtocol = "h3" }, fault.Version, "it does not speak"},
		"no certificate": {func(s *tls.ConnectionState) { s.PeerCertificates = nil }, fault.Untrusted, "it shows 0 certificates, not one"},
		"two":            {func(s *tls.ConnectionState) { s.PeerCertificates = append(s.PeerCertificates, s.PeerCertificates[0]) }, fault.Untrusted, "it shows 2 certificates, not one"},
		"not Ed25519":    {func(s *tls.ConnectionState) { s.PeerCertificates[0].PublicKey = "rsa" }, fault.Untrusted, "its certificate has no Ed25519 key"},
		"short key":      {func(s *tls.ConnectionState) { s.PeerCertificates[0].PublicKey = make(ed25519.PublicKey, 31) }, fault.Untrusted, "its certificate has no Ed25519 key"},
		"small order":    {func(s *tls.ConnectionState) { s.PeerCertificates[0].PublicKey = smallOrder() }, fault.Untrusted, "its key is of small order"},
		"not canonical": {func(s *tls.ConnectionState) {
			s.PeerCertificates[0].PublicKey = append(ed25519.PublicKey{0xee}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...)
		}, fault.Untrusted, "its key is of small order"},
	} {
		t.Run(name, func(t *testing.T) {
			hint := hintNotPeers
			if c.code == fault.Version {
				hint = "update Peers on both devices"
			}
			cs := state(k)
			c.adjust(&cs)
			id, err := PeerID(cs)
			faulttest.Want(t, err, c.code, c.says, hint)
			if id != (keys.DeviceID{}) {
				t.Errorf("%v came with the error", id)
			}
		})
	}
	if id, err := PeerID(state(k)); err != nil || id != k.ID() {
		t.Errorf("an honest device: %v, %v", id, err)
	}
}

func TestWhoIsChecked(t *testing.T) {
	us, them := keys.GenerateKeyPair(), keys.GenerateKeyPair()
	c, err := New(us)
	if err != nil {
		t.Fatal(err)
	}
	var saw keys.DeviceID
	note := func(id keys.DeviceID) { saw = id }
	for name, tc := range map[string]*tls.Config{"accepting": c.Accepting(), "dialling": c.Dialling(them.ID(), note), "asking": c.Asking(note)} {
		if err := tc.VerifyConnection(state(them)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name != "accepting" && saw != them.ID() {
			t.Errorf("%s: saw %v", name, saw.Short())
		}
		if tc.MinVersion != tls.VersionTLS13 || tc.ClientAuth != tls.RequireAnyClientCert || !tc.SessionTicketsDisabled {
			t.Errorf("%s: a weaker configuration", name)
		}
	}
	if err := c.Accepting().VerifyConnection(state(us)); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("our own key is accepted: %v", err)
	}
	if err := c.Dialling(them.ID(), note).VerifyConnection(state(us)); err == nil || !strings.Contains(err.Error(), us.ID().Short()) {
		t.Errorf("another device is taken for the one dialled: %v", err)
	}
}

func TestResetKey(t *testing.T) {
	k := keys.GenerateKeyPair()
	one, err := ResetKey(k)
	if err != nil {
		t.Fatal(err)
	}
	two, err := ResetKey(k)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ResetKey(keys.GenerateKeyPair())
	if err != nil || *one != *two || *one == *other {
		t.Errorf("reset keys %x %x %x %v", *one, *two, *other, err)
	}
}
