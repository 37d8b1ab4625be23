package pairing

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

const (
	// Prefix begins the link of every invite.
	Prefix = "peers://pair/"

	// MaxAddresses is how many addresses an invite names.
	MaxAddresses = 8

	secretSize = 16
	checkSize  = 4
	headSize   = 1 + 2                              // version, length
	fixedSize  = headSize + 32 + secretSize + 4 + 1 // … inviter, secret, expiry, count
	maxInvite  = 320                                // bytes of this version: a QR code of 65 modules
	maxLink    = 4096                               // characters of a text that is looked at, of any version
	alphabet   = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base32
	opInvite   = "read the invite"
	hintCopy   = "copy or scan the whole link again"
	hintNew    = `run "peers-runtime pair" again on the other device for a new invite`
)

// The kinds of addresses in an invite.
const (
	addrName = 1 // length, name, port
	addrIPv4 = 4 // 4 bytes, port
	addrIPv6 = 6 // 16 bytes, port
)

// A secret is the 128 random bits of an invite, in a closure for the reason that
// keys.Secret gives.
type secret struct{ reveal func() [secretSize]byte }

func newSecret() secret {
	var b [secretSize]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return secretFrom(b)
}

func secretFrom(b [secretSize]byte) secret {
	return secret{reveal: func() [secretSize]byte { return b }}
}

func (s secret) bytes() [secretSize]byte {
	if s.reveal == nil {
		return [secretSize]byte{}
	}
	return s.reveal()
}

// An Address is where a device may be reached: an IP address or a name, and a
// port. Comparable.
type Address struct {
	host string
	port uint16
}

// ParseAddress reads "192.0.2.1:4433", "[2001:db8::1]:4433" or "home.example:4433".
// It refuses what cannot be dialled from elsewhere: no port, a zone, an
// unspecified or multicast address.
func ParseAddress(s string) (Address, error) {
	const op, hint = "read the address", `write it as "192.0.2.1:4433", "[2001:db8::1]:4433" or "home.example:4433"`
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, fault.New(fault.Invalid, op, hint, "%s is not a host and a port", fault.Quote(s))
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return Address{}, fault.New(fault.Invalid, op, hint, "%s has no port from 1 to 65535", fault.Quote(s))
	}
	a := Address{port: uint16(port)}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return Address{}, fault.New(fault.Invalid, op, hint, "%s cannot be dialled from another device", fault.Quote(s))
		}
		a.host = ip.String()
		return a, nil
	}
	a.host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !isName(a.host) {
		return Address{}, fault.New(fault.Invalid, op, hint, "%s has neither an IP address nor a host name", fault.Quote(s))
	}
	return a, nil
}

// isName reports a lower-case host name (RFC 1123 and underscores) that no
// parser takes for an IPv4 address: its last label is not a number.
func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// String gives the address as ParseAddress reads it.
func (a Address) String() string { return net.JoinHostPort(a.host, strconv.Itoa(int(a.port))) }

func (a Address) append(b []byte) []byte {
	if ip, err := netip.ParseAddr(a.host); err != nil {
		b = append(append(b, addrName, byte(len(a.host))), a.host...)
	} else if ip.Is4() {
		b = append(append(b, addrIPv4), ip.AsSlice()...)
	} else {
		b = append(append(b, addrIPv6), ip.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, a.port)
}

// decodeAddress reads one address off b. Only the form that append gives is
// accepted.
func decodeAddress(b []byte) (a Address, rest []byte, ok bool) {
	if len(b) < 2 {
		return Address{}, nil, false
	}
	n, host := 0, ""
	switch b[0] {
	case addrName:
		n = 2 + int(b[1])
	case addrIPv4:
		n = 1 + 4
	case addrIPv6:
		n = 1 + 16
	}
	if n == 0 || len(b) < n+2 {
		return Address{}, nil, false
	}
	if b[0] == addrName {
		host = string(b[2:n])
	} else if ip, ok := netip.AddrFromSlice(b[1:n]); ok {
		host = ip.String()
	}
	a, err := ParseAddress(net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[n:])))))
	if err != nil || !slices.Equal(a.append(nil), b[:n+2]) {
		return Address{}, nil, false
	}
	return a, b[n+2:], true
}

// An Invite lets one device join: who invites, where to find it, until when, and
// a secret. Printing it does not show the secret; only Link and QR do.
type Invite struct {
	Inviter   keys.DeviceID
	Addresses []Address
	Expires   time.Time // in whole seconds

	secret secret
}

// Link gives the invite as a link. Whoever sees it can use it.
func (v Invite) Link() string { return Prefix + encode32(v.bytes()) }

// QR gives the link in the letters that a QR code holds most densely (its
// alphanumeric mode); ParseInvite reads it all the same.
func (v Invite) QR() string { return strings.ToUpper(v.Link()) }

// IsZero reports the zero Invite.
func (v Invite) IsZero() bool { return v.secret.reveal == nil }

// String names the invite without its secret.
func (v Invite) String() string {
	return "invite of " + v.Inviter.Short() + " until " + v.Expires.UTC().Format(time.RFC3339)
}

// bytes gives
//
//	1 version, 2 length of all, 32 inviter, 16 secret, 4 expiry in Unix seconds,
//	1 number of addresses, the addresses, 4 check bytes
func (v Invite) bytes() []byte {
	s := v.secret.bytes()
	b := append(make([]byte, 0, maxInvite), Version, 0, 0)
	b = append(append(b, v.Inviter[:]...), s[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(v.Expires.Unix()))
	b = append(b, byte(len(v.Addresses)))
	for _, a := range v.Addresses {
		b = a.append(b)
	}
	binary.BigEndian.PutUint16(b[1:], uint16(len(b)+checkSize))
	sum := keys.Sum(keys.DomainInvite, b)
	return append(b, sum[:checkSize]...)
}

// ParseInvite reads a link, forgiving case and white space. It does not look at
// the time: the inviter's clock decides that, and Expired is for a message
// beforehand.
func ParseInvite(link string) (Invite, error) {
	if len(link) > maxLink {
		return Invite{}, fault.New(fault.TooBig, opInvite, hintCopy, "it is %d characters long", len(link))
	}
	text := strings.Join(strings.Fields(link), "")
	if len(text) < len(Prefix) || !strings.EqualFold(text[:len(Prefix)], Prefix) {
		return Invite{}, fault.New(fault.Invalid, opInvite, hintCopy, "%s does not begin with %s", fault.Quote(link), Prefix)
	}
	raw, ok := decode32(text[len(Prefix):])
	if !ok {
		return Invite{}, fault.New(fault.Invalid, opInvite, hintCopy, "it has characters that no invite has")
	}
	v, err := decodeInvite(raw)
	if err == nil && encode32(raw) != strings.ToUpper(text[len(Prefix):]) { // bits that no byte takes
		return Invite{}, fault.New(fault.Invalid, opInvite, hintCopy, "it is mistyped: it does not end where it should")
	}
	return v, err
}

// decodeInvite reads what bytes gives. All versions share the head and the check
// bytes, so that a cut or mistyped link is told from a later version's.
func decodeInvite(b []byte) (Invite, error) {
	mistyped := func() error {
		return fault.New(fault.Invalid, opInvite, hintCopy, "it is mistyped: its check characters do not fit")
	}
	cut := func() error { return fault.New(fault.Invalid, opInvite, hintCopy, "it is cut off") }
	if len(b) < headSize {
		return Invite{}, cut()
	}
	switch n := int(binary.BigEndian.Uint16(b[1:])); {
	case n < headSize+checkSize || n > maxLink:
		return Invite{}, mistyped()
	case len(b) < n:
		return Invite{}, cut()
	case len(b) > n:
		return Invite{}, mistyped()
	}
	end := len(b) - checkSize
	if sum := keys.Sum(keys.DomainInvite, b[:end]); string(sum[:checkSize]) != string(b[end:]) {
		return Invite{}, mistyped()
	}
	if b[0] != Version {
		return Invite{}, fault.New(fault.Version, opInvite, "install the newest peers-runtime on both devices",
			"it has version %d, this program reads version %d", b[0], Version)
	}
	v, ok := decodeFields(b[headSize:end])
	if !ok || len(b) > maxInvite {
		return Invite{}, fault.New(fault.Invalid, opInvite, hintNew, "it breaks the format of its version")
	}
	return v, nil
}

func decodeFields(b []byte) (v Invite, ok bool) {
	if len(b) < fixedSize-headSize {
		return Invite{}, false
	}
	v.Inviter = keys.DeviceID(b[:32])
	v.secret = secretFrom([secretSize]byte(b[32:]))
	v.Expires = time.Unix(int64(binary.BigEndian.Uint32(b[32+secretSize:])), 0)
	count := b[fixedSize-headSize-1]
	b = b[fixedSize-headSize:]
	if !v.Inviter.Valid() || count > MaxAddresses {
		return Invite{}, false
	}
	for range count {
		var a Address
		if a, b, ok = decodeAddress(b); !ok {
			return Invite{}, false
		}
		v.Addresses = append(v.Addresses, a)
	}
	return v, len(b) == 0
}

// Expired says, by this device's clock, that the invite's time is over.
func (v Invite) Expired(now time.Time) error {
	if now.Before(v.Expires) {
		return nil
	}
	return fault.New(fault.Expired, opPair, hintNew+"; if it is new, set this device's clock",
		"the invite ended at %s", v.Expires.UTC().Format(time.RFC3339))
}

// encode32 gives b in Crockford's base32, the last character filled up with zero
// bits.
func encode32(b []byte) string {
	var out strings.Builder
	var have, acc uint
	for _, c := range b {
		acc, have = acc<<8|uint(c), have+8
		for ; have >= 5; have -= 5 {
			out.WriteByte(alphabet[acc>>(have-5)&31])
		}
	}
	if have > 0 {
		out.WriteByte(alphabet[acc<<(5-have)&31])
	}
	return out.String()
}

// decode32 undoes encode32 for text of any length: of a text that was cut it
// gives the whole bytes that are left, so that the head can still be read.
func decode32(s string) (b []byte, ok bool) {
	var have, acc uint
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		v := strings.IndexByte(alphabet, c)
		if v < 0 {
			return nil, false
		}
		if acc, have = acc<<5|uint(v), have+5; have >= 8 {
			b, have = append(b, byte(acc>>(have-8))), have-8
		}
	}
	return b, true
}
