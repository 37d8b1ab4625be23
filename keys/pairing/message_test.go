package pairing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
)

// fixedMessages has one message of each kind.
func fixedMessages(t testing.TB) []Message {
	t.Helper()
	h, j := keyPair(t, 1), keyPair(t, 2)
	s := newSession(keys.SecretFrom(pattern(0x10)), fixedInvite(t).secret, h.ID(), j.ID())
	nI, nJ, user := nonce(pattern(0x20)), nonce(pattern(0x40)), keys.UserID(pattern(0x60))
	return []Message{
		hello{version: Version, mac: s.mac(roleJoin)},
		accept{mac: s.mac(roleInvite), commit: nI.commit()},
		nonceJ{nJ},
		nonceI{nI},
		confirm{user},
		consent{seal: j.SealKey(), sig: j.Sign(keys.DomainConsent, consentText(user, h.ID()))},
		resume{mac: s.mac(roleReinvite), user: user},
		begin{70_000},
		chunk{offset: 32768, data: []byte("data")},
		done{},
		abort{reasonRefused},
		recovery{version: Version, key: h.ID(), sig: h.Sign(keys.DomainRecover, recoverText(keys.SecretFrom(pattern(1)), h.ID(), j.ID()))},
		certify{[]byte("op")},
		hello{version: Version, resume: true, mac: s.mac(roleRejoin)},
	}
}

func TestGoldenMessages(t *testing.T) {
	var lines []string
	seen := map[kind]bool{}
	for _, m := range fixedMessages(t) {
		seen[m.kind()] = true
		frame := AppendFrame(nil, m)
		lines = append(lines, hexLine(fmt.Sprintf("%T", m)[len("pairing."):], frame))
		r := bytes.NewReader(frame)
		got, err := ReadFrame(r)
		if err != nil || !reflect.DeepEqual(got, m) || r.Len() != 0 {
			t.Errorf("%T reads back as %+v, %v", m, got, err)
		}
	}
	golden.Lines(t, "messages", lines...)
	for k := range 256 {
		if _, _, ok := bodySize(kind(k)); ok != seen[kind(k)] {
			t.Errorf("kind %d: known %v, golden %v", k, ok, seen[kind(k)])
		}
	}
}

// Every derivation, from the inputs to what is compared.
func TestGoldenSession(t *testing.T) {
	s := newSession(keys.SecretFrom(pattern(0x10)), fixedInvite(t).secret, keyPair(t, 1).ID(), keyPair(t, 2).ID())
	k := s.k.Reveal()
	nI, nJ := nonce(pattern(0x20)), nonce(pattern(0x40))
	commit := nI.commit()
	lines := []string{hexLine("k", k[:]), hexLine("commit", commit[:]), "digits " + s.digits(nI, nJ).String(), "label " + ExporterLabel}
	for _, role := range []string{roleJoin, roleInvite, roleRejoin, roleReinvite} {
		m := s.mac(role)
		lines = append(lines, hexLine(role, m[:]))
	}
	golden.Lines(t, "session", lines...)
}

func TestDigits(t *testing.T) {
	for d, want := range map[Digits]string{0: "000 000", 7: "000 007", 1_234: "001 234", 999_999: "999 999", 120_003: "120 003"} {
		if d.String() != want {
			t.Errorf("%d reads %q", uint32(d), d)
		}
	}
	s := newSession(keys.SecretFrom(pattern(1)), newSecret(), keyPair(t, 1).ID(), keyPair(t, 2).ID())
	a, b := nonce(pattern(1)), nonce(pattern(2))
	if s.digits(a, b) == s.digits(b, a) {
		t.Error("the nonces change places and the digits stay")
	}
	// 100,000 draws into 100 bins of 1,000: chi-squared with 99 degrees of
	// freedom exceeds 180 once in a million tries, and the draws are fixed.
	s.k = keys.SecretFrom(pattern(9))
	var bins [100]float64
	const draws = 100_000
	for i := range uint64(draws) {
		binary.BigEndian.PutUint64(a[:], i)
		d := s.digits(a, b)
		if d >= 1_000_000 {
			t.Fatalf("digits %d", uint32(d))
		}
		bins[d/10_000]++
	}
	var chi float64
	for _, n := range bins {
		chi += (n - draws/100) * (n - draws/100) / (draws / 100)
	}
	if chi > 180 || chi < 40 {
		t.Errorf("chi-squared is %.1f", chi)
	}
	// The remainder is of the whole 128 bits, against another implementation.
	for i := range byte(50) {
		a[0] = i
		k := s.k.Reveal()
		m := hmacSum(k[:], infoDigits+"\x00"+string(a[:])+string(b[:])+"\x01")
		want := new(big.Int).Mod(new(big.Int).SetBytes(m[:16]), big.NewInt(1_000_000)).Int64()
		if got := s.digits(a, b); int64(got) != want {
			t.Errorf("digits %d, want %d", got, want)
		}
	}
}

// k and the keyed hashes by RFC 5869 and RFC 2104 written out.
func TestSessionByHand(t *testing.T) {
	x, inv := pattern(0x10), fixedInvite(t)
	i, j := keyPair(t, 1).ID(), keyPair(t, 2).ID()
	s := newSession(keys.SecretFrom(x), inv.secret, i, j)
	salt := inv.secret.bytes()
	prk := hmacSum(salt[:], string(x[:]))
	k := hmacSum(prk[:], "peers/pair/1 key\x01")
	if got := s.k.Reveal(); got != k {
		t.Errorf("k is %x, want %x", got, k)
	}
	if got, want := s.mac(roleJoin), hmacSum(k[:], "peers/pair/1 join\x00"+string(i[:])+string(j[:])); got != want {
		t.Errorf("the hash is %x, want %x", got, want)
	}
}

// A frame cut anywhere is no message, and the reader says whether it ended
// between frames.
func TestTruncatedFrames(t *testing.T) {
	for _, m := range fixedMessages(t) {
		frame := AppendFrame(nil, m)
		for n := range frame {
			got, err := ReadFrame(bytes.NewReader(frame[:n]))
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if got != nil || !errors.Is(err, want) {
				t.Errorf("%T cut to %d bytes: %v, %v", m, n, got, err)
			}
		}
	}
}

// endless gives a head and then zeros for ever, and counts them.
type endless struct {
	head []byte
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.head)
	e.head = e.head[n:]
	if n == 0 {
		n = len(b)
		clear(b)
	}
	e.read += n
	return n, nil
}

// Lengths that a kind does not have are refused before the body is read.
func TestOversizedFrames(t *testing.T) {
	for k := range 256 {
		least, most, ok := bodySize(kind(k))
		for _, n := range []uint32{0, 1, uint32(least) - 1, uint32(most) + 1, 1 << 16, 1 << 24, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
			if ok && n >= uint32(least) && n <= uint32(most) {
				continue
			}
			r := &endless{head: binary.BigEndian.AppendUint32([]byte{byte(k)}, n)}
			m, err := ReadFrame(r)
			if m != nil || fault.CodeOf(err) != fault.Protocol || fault.HintOf(err) == "" || r.read != frameHead {
				t.Errorf("kind %d with %d bytes: %v, %v after %d bytes", k, n, m, err, r.read)
			}
		}
		if ok && most > MaxOp && kind(k) != kindChunk || most > chunkSize+4 {
			t.Errorf("kind %d may have %d bytes", k, most)
		}
	}
}

// First messages of later versions are read as far as their number, so that they
// can be answered; of this one they are exact.
func TestFirstMessages(t *testing.T) {
	frame := func(k kind, b ...byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(b))), b...)
	}
	for _, n := range []int{1, 34, 100, firstSize} {
		b := make([]byte, n)
		b[0] = 7
		if m, err := ReadFrame(bytes.NewReader(frame(kindHello, b...))); err != nil || m != Message(hello{version: 7}) {
			t.Errorf("hello of version 7, %d bytes: %v, %v", n, m, err)
		}
		if m, err := ReadFrame(bytes.NewReader(frame(kindRecover, b...))); err != nil || m != Message(recovery{version: 7}) {
			t.Errorf("recover of version 7, %d bytes: %v, %v", n, m, err)
		}
		b[0] = Version
		if n == 34 {
			b[1] = 2 // no such mode
		}
		for _, k := range []kind{kindHello, kindRecover} {
			if m, err := ReadFrame(bytes.NewReader(frame(k, b...))); fault.CodeOf(err) != fault.Protocol {
				t.Errorf("kind %d of %d bytes: %v, %v", k, n, m, err)
			}
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, m := range fixedMessages(f) {
		f.Add(AppendFrame(nil, m))
	}
	f.Add([]byte{9, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		m, err := ReadFrame(r)
		if err != nil {
			if m != nil {
				t.Fatal("a message came with the error")
			}
			return
		}
		used := b[:len(b)-r.Len()]
		switch m := m.(type) {
		case hello:
			if m.version != Version {
				return
			}
		case recovery:
			if m.version != Version {
				return
			}
		}
		if !bytes.Equal(AppendFrame(nil, m), used) {
			t.Fatalf("%x and %x are one message", used, AppendFrame(nil, m))
		}
	})
}

// Whatever frames come, a machine answers, and never certifies, delivers or
// shows digits to who does not know the secret.
func FuzzMachines(f *testing.F) {
	var all []byte
	for _, m := range fixedMessages(f) {
		all = AppendFrame(all, m)
		f.Add(AppendFrame(nil, m))
	}
	f.Add(all)
	i, j := keyPair(f, 1), keyPair(f, 2)
	f.Fuzz(func(t *testing.T, b []byte) {
		x := keys.NewSecret()
		book := NewInvites(i.ID(), keys.UserID{1})
		inv, err := book.New(noon, nil)
		if err != nil {
			t.Fatal(err)
		}
		joiner, err := NewJoiner(JoinerConfig{Keys: j, Peer: i.ID(), Exporter: x, Invite: inv})
		if err != nil {
			t.Fatal(err)
		}
		recoverer, err := NewRecoverer(RecovererConfig{Keys: j, Recovery: i, Peer: i.ID(), Exporter: x})
		if err != nil {
			t.Fatal(err)
		}
		rescuer := NewRescuer(noon, RescuerConfig{Self: i.ID(), Peer: j.ID(), Exporter: x, Recovery: i.ID(), Log: []byte{1}})
		for _, m := range []machine{book.Accept(noon, j.ID(), x), joiner, rescuer, recoverer} {
			m.Step(noon, Start{})
			over := false
			for r := bytes.NewReader(b); ; {
				msg, err := ReadFrame(r)
				var e Event = Received{msg}
				if err != nil {
					e = Lost{err}
				}
				for _, out := range append(m.Step(noon, e), m.Step(noon, Confirm{})...) {
					switch out.(type) {
					case Certify, Admit, ShowDigits, Keep:
						t.Fatalf("%T of %x", out, b)
					case Deliver:
						t.Fatalf("delivered by %x", b)
					case Failed, Finished:
						over = true
					}
				}
				if err != nil {
					break
				}
			}
			if !over {
				t.Fatalf("%T goes on after its connection is lost", m)
			}
		}
	})
}
