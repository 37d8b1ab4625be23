package control

import (
	"testing"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// bigLog is a group with 10,000 control ops by a hundred devices: epochs, installs,
// removals, seals and closes.
func bigLog(b *testing.B, n int) *Log {
	b.Helper()
	recovery, first := pair(1), pair(2)
	genesis, user, err := identity.NewGenesis(first, recovery)
	must(b, err)
	set := identity.NewSet(user)
	_, err = set.Add(genesis)
	must(b, err)
	raw, group, err := Create(first, identity.Resolve(set))
	must(b, err)
	l := NewLog(group)
	_, err = l.AddControl(raw)
	must(b, err)
	_, err = l.AddIdentity(genesis)
	must(b, err)
	devices := []*keys.KeyPair{first}
	for range 100 {
		kp := keys.GenerateKeyPair()
		id, _ := l.Identity(user)
		raw, err := id.NewCertify(first, identity.Subject{Device: identity.PublicOf(kp), Power: identity.PowerFull, Consent: identity.Consent(kp, user, first.ID())})
		must(b, err)
		_, err = l.AddIdentity(raw)
		must(b, err)
		devices = append(devices, kp)
	}
	add := func(by *keys.KeyPair, body any) {
		var seal func([]byte) ([]byte, error)
		if kind, _ := encodeClear(body); sealedPart(kind) {
			seal = func([]byte) ([]byte, error) { return make([]byte, 100), nil }
		}
		raw, _, err := signOp(by, body, l.control.Parents(), seal)
		must(b, err)
		_, err = l.AddControl(raw)
		must(b, err)
	}
	last := keys.Hash(group)
	for i := range n - 1 {
		by := devices[i%len(devices)]
		switch {
		case i%10 == 9:
			add(by, epoch{Commitment: keys.Hash{byte(i), byte(i >> 8)}, Seals: []sealed{{Recipient: by.ID(), Key: make([]byte, keySize)}}})
			last = l.control.Heads()[0]
		case i%10 == 8 && i%50 != 48:
			add(by, appRemoved{Namespace: record.NamespaceID{byte(i % 40)}})
		case i%10 == 8:
			add(first, closeOp{Type: CloseStream, Subject: by.ID(), Cuts: []Cut{{Stream: record.Stream{Device: by.ID(), Incarnation: uint64(i)}}}})
		case i%2 == 0:
			add(by, appInstalled{Epoch: last, Namespace: record.NamespaceID{byte(i % 50)}})
		default:
			add(by, sealOp{Epoch: last, sealed: sealed{Recipient: by.ID(), Key: make([]byte, keySize)}})
		}
	}
	return l
}

func BenchmarkResolve10000(b *testing.B) {
	l := bigLog(b, 10000)
	l.Resolve()
	b.ResetTimer()
	for b.Loop() {
		l.state = nil
		for _, u := range l.users {
			u.state = nil
		}
		l.Resolve().EpochForWriting()
	}
	b.ReportMetric(float64(l.control.Len()), "ops")
}

// BenchmarkResolveOneMore is what a further op costs, after 10,000 and more.
func BenchmarkResolveOneMore(b *testing.B) {
	l := bigLog(b, 10000)
	by, _ := pair(2), l.Resolve()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		raw, _, err := signOp(by, epoch{Commitment: keys.Hash{byte(i), byte(i >> 8), 7}}, l.control.Parents(), nil)
		must(b, err)
		_, err = l.AddControl(raw)
		must(b, err)
		b.StartTimer()
		l.Resolve()
	}
}

// BenchmarkHostileCloses is a device that signs 5,000 closes of one stream.
func BenchmarkHostileCloses(b *testing.B) {
	l := bigLog(b, 100)
	by := pair(2)
	s := record.Stream{Device: by.ID()}
	for i := range 5000 {
		raw, _, err := signOp(by, closeOp{Type: CloseStream, Subject: by.ID(), Cuts: []Cut{{Stream: s, Seq: uint64(i + 1), Hash: keys.Hash{1}}}}, l.control.Parents(), nil)
		must(b, err)
		_, err = l.AddControl(raw)
		must(b, err)
	}
	b.ResetTimer()
	for b.Loop() {
		l.state = nil
		if seq, _, _ := l.Resolve().Cut(s, keys.Hash(l.group)); seq != 5000 {
			b.Fatal(seq)
		}
	}
}

// BenchmarkKeyring10000 opens a group that has rotated 10,000 times, as a newcomer
// and as one who has the keys so far.
func BenchmarkKeyring10000(b *testing.B) {
	l := bigLog(b, 2)
	by := pair(2)
	k := l.Resolve().Keyring(by)
	key, id := k.keys[keys.Hash(l.group)], keys.Hash(l.group)
	for range 10000 {
		next := keys.NewSecret()
		e, err := newEpoch(next, []identity.Public{identity.PublicOf(by)})
		must(b, err)
		secret := key.Reveal()
		e.Wraps = []wrap{{Epoch: id, Wrapped: sealWith(derive(next, purposeWrap, nil), secret[:], id[:])}}
		raw, hash, err := signOp(by, e, l.control.Parents(), nil)
		must(b, err)
		_, err = l.AddControl(raw)
		must(b, err)
		key, id = next, hash
	}
	s := l.Resolve()
	b.Run("newcomer", func(b *testing.B) {
		for b.Loop() {
			if k := s.Keyring(by); len(k.keys) < 10000 {
				b.Fatal(len(k.keys))
			}
		}
	})
	k = s.Keyring(by)
	b.Run("further", func(b *testing.B) {
		for b.Loop() {
			newKeyring(s, by, k)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	l := bigLog(b, 100)
	s := l.Resolve()
	stream := record.Stream{Device: pair(2).ID()}
	for b.Loop() {
		if s.Judge(stream, keys.Hash(l.group)).Standing != Valid {
			b.Fatal("not valid")
		}
		s.Cut(stream, keys.Hash(l.group))
	}
}

// BenchmarkEpoch1000 rotates for 1,000 recipients.
func BenchmarkEpoch1000(b *testing.B) {
	var to []identity.Public
	for range 1000 {
		to = append(to, identity.PublicOf(keys.GenerateKeyPair()))
	}
	for b.Loop() {
		e, err := newEpoch(keys.NewSecret(), to)
		must(b, err)
		raw, _, err := signOp(pair(1), e, nil, nil)
		must(b, err)
		b.ReportMetric(float64(len(raw)), "bytes")
		if _, err := oplog.Decode(keys.DomainControlOp, raw); err != nil {
			b.Fatal(err)
		}
	}
}
