package control

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// pattern gives 32 recognisable bytes: seed, seed+1, …
func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

func pair(seed byte) *keys.KeyPair {
	kp, err := keys.NewKeyPair(keys.SecretFrom(pattern(seed)), keys.SecretFrom(pattern(seed+0x80)))
	if err != nil {
		panic(err)
	}
	return kp
}

// goldenBodies has one body of each kind, in order of kind.
func goldenBodies() []any {
	cuts := []Cut{
		{Stream: record.Stream{Namespace: pattern(1), Device: pair(10).ID(), Incarnation: 5}},
		{Stream: record.Stream{Namespace: pattern(1), Device: pair(10).ID(), Incarnation: 1 << 40}, Seq: 300, Hash: pattern(2)},
	}
	first := epoch{Commitment: pattern(3), Seals: []sealed{{Recipient: pattern(4), Key: bytes.Repeat([]byte{0x55}, keySize)}}}
	later := first
	later.Wraps = []wrap{{Epoch: pattern(5), Wrapped: bytes.Repeat([]byte{0x66}, wrapSize)}}
	return []any{
		create{Owner: pattern(6), Epoch: first},
		addUser{User: pattern(7), Role: RoleWriter},
		setRole{User: pattern(7), Role: RoleReader, Cuts: cuts},
		removeUser{User: pattern(7), Cuts: cuts[1:]},
		appInstalled{Epoch: pattern(8), Namespace: pattern(9)},
		appRemoved{Namespace: pattern(9)},
		later,
		sealOp{Epoch: pattern(8), sealed: first.Seals[0]},
		closeOp{Type: CloseDevice, Subject: pair(10).ID(), Cuts: cuts},
		frontier{Namespace: pattern(9), Cuts: cuts},
	}
}

func goldenInstall() install {
	return install{Publisher: pattern(11), App: "tasks", Seq: 1000, Index: pattern(12), Collections: []record.CollectionID{4, 1<<2 | 1, 300 << 2}}
}

func TestGoldenOps(t *testing.T) {
	names := []string{"create", "add-user", "set-role", "remove-user", "app-installed", "app-removed", "epoch", "seal", "close", "frontier"}
	var got string
	for i, body := range goldenBodies() {
		kind, _ := encodeClear(body)
		if int(kind) != i+1 {
			t.Errorf("%s has number %d", names[i], kind)
		}
		var parents []keys.Hash
		if kind != KindCreate {
			parents = []keys.Hash{pattern(13), pattern(14)}
		}
		var seal func([]byte) ([]byte, error)
		if sealedPart(kind) {
			seal = func(context []byte) ([]byte, error) {
				nonce := bytes.Repeat([]byte{0x77}, 24)
				return newAEAD(pattern(15)).Seal(nonce, nonce, appendInstall(nil, goldenInstall()), context), nil
			}
		}
		raw, hash, err := signOp(pair(1), body, parents, seal)
		must(t, err)
		got += fmt.Sprintf("%s %x\n%s-hash %v\n", names[i], raw, names[i], hash)
		o, err := oplog.Decode(keys.DomainControlOp, raw)
		must(t, err)
		if d := cmp.Diff(body, decodeBody(o), cmp.AllowUnexported(sealOp{})); d != "" {
			t.Errorf("%s decodes as another op:\n%s", names[i], d)
		}
	}
	golden.Text(t, "ops", got)
}

// epochKeySealed is pattern(20) sealed to pair(1) as an epoch's key. HPKE draws a
// key of its own each time, so what is pinned is that these bytes open.
const epochKeySealed = "48525958b0b3a3c63f0e6a398ea0fc6c91514bd7f14618bee5b3d75c6a06bf334adb69452acc36cd90592d5c88ef59e4dfcbc5b12218c4e38527f570696ff7406bec15055fb3657d40c790dfe79c0685"

func TestGoldenKeys(t *testing.T) {
	key := pattern(20)
	secret := keys.SecretFrom(key)
	ns := namespace(secret, pattern(11), "tasks")
	prior, id := pattern(21), pattern(22)
	nonce := bytes.Repeat([]byte{0x77}, 24)
	got := fmt.Sprintf("commitment %v\nnamespace %v\nbatch %x\ncontrol %x\nwrap %x\nwrapped %x\ninstall %x\n",
		commitment(key[:]), ns, derive(secret, purposeBatch, ns[:]), derive(secret, purposeControl, nil), derive(secret, purposeWrap, nil),
		newAEAD(derive(secret, purposeWrap, nil)).Seal(nonce, nonce, prior[:], id[:]), appendInstall(nil, goldenInstall()))
	golden.Text(t, "keys", got)
	ciphertext, err := hex.DecodeString(epochKeySealed)
	must(t, err)
	plain, err := pair(1).Open([]byte(purposeEpochKey), ciphertext)
	if err != nil || !bytes.Equal(plain, key[:]) {
		t.Errorf("%x %v", plain, err)
	}
}

func FuzzBody(f *testing.F) {
	for _, body := range goldenBodies() {
		kind, clear := encodeClear(body)
		f.Add(kind, clear)
	}
	f.Fuzz(func(t *testing.T, kind uint64, clear []byte) {
		o := &oplog.Op{Version: 1, Kind: kind, Clear: clear}
		if kind != KindCreate {
			o.Parents = []keys.Hash{{1}}
		}
		if sealedPart(kind) {
			o.Sealed = []byte{1}
		}
		body := decodeBody(o)
		switch body.(type) {
		case unknown, malformed:
			return
		}
		// One meaning, one encoding.
		if k, again := encodeClear(body); k != kind || !bytes.Equal(again, clear) {
			t.Fatalf("%d %x decodes as %d %x", kind, clear, k, again)
		}
	})
}

func FuzzInstall(f *testing.F) {
	f.Add(appendInstall(nil, goldenInstall()))
	f.Add(appendInstall(nil, install{}))
	wide := goldenInstall()
	wide.Collections = nil
	b := appendInstall(nil, wide)
	f.Add(cborx.AppendUint(append(b[:len(b)-1], 0x81), 1<<16+4)) // a collection beyond 16 bits
	f.Fuzz(func(t *testing.T, b []byte) {
		in, reason := decodeInstall(b)
		if reason == "" && !bytes.Equal(appendInstall(nil, in), b) {
			t.Fatalf("%x decodes as %+v", b, in)
		}
	})
}
