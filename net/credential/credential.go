// Package credential makes TLS 1.3 prove device keys: the self-signed
// certificate of a device, and the configurations that check a peer's.
//
// A DeviceID is the Ed25519 key of the one certificate shown, and TLS proves
// that its holder signed the handshake. Nothing else in a certificate is looked
// at, so there is nothing else to get wrong.
package credential

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/quic-go/quic-go"
)

// ALPN is the application protocol of every connection.
const ALPN = "peers/1"

// Certificate makes the device's certificate: an X.509 wrapping that TLS
// insists on. It is the same for ever for one key and holds nothing else, and
// it is always valid, because clocks of new devices are wrong.
func Certificate(k *keys.KeyPair) (tls.Certificate, error) {
	priv := k.PrivateKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5: no end
	}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		return tls.Certificate{}, fault.Wrap(err, "make the device's certificate", "")
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, nil
}

const hintNotPeers = "look whether the address is right: what answers there is no device of Peers"

// PeerID is whom the handshake proved: the key of the one certificate shown.
// TLS has checked that its holder signed this handshake; the certificate's own
// signature, names and dates are ignored. fault.Version: the other end does not
// speak our protocol; fault.Untrusted: it shows no certificate of a device.
func PeerID(cs tls.ConnectionState) (keys.DeviceID, error) {
	const op = "identify the peer"
	if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != ALPN {
		return keys.DeviceID{}, fault.New(fault.Version, op, "update Peers on both devices", "it does not speak %s", ALPN)
	}
	if len(cs.PeerCertificates) != 1 {
		return keys.DeviceID{}, fault.New(fault.Untrusted, op, hintNotPeers, "it shows %d certificates, not one", len(cs.PeerCertificates))
	}
	pub, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(pub) != len(keys.DeviceID{}) {
		return keys.DeviceID{}, fault.New(fault.Untrusted, op, hintNotPeers, "its certificate has no Ed25519 key")
	}
	id := keys.DeviceID(pub)
	if !id.Valid() {
		return keys.DeviceID{}, fault.New(fault.Untrusted, op, hintNotPeers, "its key is of small order: anybody could use it")
	}
	return id, nil
}

// A Credential makes TLS configurations for both directions.
type Credential struct {
	id   keys.DeviceID
	base *tls.Config
}

// New makes the Credential of a device.
func New(k *keys.KeyPair) (*Credential, error) {
	cert, err := Certificate(k)
	if err != nil {
		return nil, err
	}
	return &Credential{id: k.ID(), base: &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{ALPN},
		ClientAuth:   tls.RequireAnyClientCert,
		// No chain to verify: VerifyConnection pins the key instead.
		InsecureSkipVerify: true,
		// A resumed session would outlive a revocation.
		SessionTicketsDisabled: true,
	}}, nil
}

// Accepting is the listener's configuration: anybody with a usable key, until
// Admit has judged; but not ourselves.
func (c *Credential) Accepting() *tls.Config {
	t := c.base.Clone()
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := PeerID(cs)
		if err == nil && id == c.id {
			err = fault.New(fault.Conflict, "accept the connection", "", "it is this device's own key")
		}
		return err
	}
	return t
}

// Dialling is the configuration to reach want and nobody else. saw tells who
// answered.
func (c *Credential) Dialling(want keys.DeviceID, saw func(keys.DeviceID)) *tls.Config {
	t := c.base.Clone()
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := PeerID(cs)
		if err != nil {
			return err
		}
		saw(id)
		if id != want {
			return fmt.Errorf("device %s answers there, not %s", id.Short(), want.Short())
		}
		return nil
	}
	return t
}

// Asking is the configuration to learn who answers.
func (c *Credential) Asking(saw func(keys.DeviceID)) *tls.Config {
	t := c.base.Clone()
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := PeerID(cs)
		if err == nil {
			saw(id)
		}
		return err
	}
	return t
}

// ResetKey is the same after a restart, so that peers notice at once that
// their connections are gone (RFC 9000 §10.3).
func ResetKey(k *keys.KeyPair) (*quic.StatelessResetKey, error) {
	sign, _ := k.Secrets()
	seed := sign.Reveal()
	out, err := hkdf.Key(sha256.New, seed[:], nil, "peers/stateless-reset/1", 32)
	if err != nil {
		return nil, fault.Wrap(err, "derive the reset key", "")
	}
	return (*quic.StatelessResetKey)(out), nil
}
