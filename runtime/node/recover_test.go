package node

import (
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// liarsOp is an op that breaks the rules for building one.
func liarsOp(t *testing.T, by *keys.KeyPair, kind uint64, parents []keys.Hash, fields ...[]byte) []byte {
	t.Helper()
	clear := cborx.AppendArray(nil, len(fields))
	for _, f := range fields {
		clear = cborx.AppendBytes(clear, f)
	}
	raw, _, err := oplog.Sign(by, keys.DomainIdentityOp, oplog.Draft{Kind: kind, Parents: parents, Clear: clear})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// The recovering device shows its public recovery key to whoever answers at an
// address; nothing they make of it gets a signature of the recovery key.
func TestAuthoriseRefusesLogsWithoutConsent(t *testing.T) {
	words, liar, self := keys.GenerateKeyPair(), keys.GenerateKeyPair(), keys.GenerateKeyPair()
	id, seal := words.ID(), words.SealKey()
	liarID, liarSeal, none := liar.ID(), liar.SealKey(), make([]byte, 64)
	forged := liarsOp(t, liar, identity.KindGenesis, nil, liarID[:], liarSeal[:], id[:], seal[:], none)
	unsigned := liarsOp(t, liar, identity.KindGenesis, nil, liarID[:], liarSeal[:], id[:], seal[:])
	liarsWords := keys.GenerateKeyPair()
	own, user, err := identity.NewGenesis(liar, liarsWords)
	if err != nil {
		t.Fatal(err)
	}
	handover := liarsOp(t, liarsWords, identity.KindReplaceRecovery, []keys.Hash{keys.Hash(user)}, id[:], seal[:], none)
	for name, c := range map[string]struct {
		ops  [][]byte
		want string
	}{
		"a genesis with the stolen public key": {[][]byte{forged}, "no recovery key agreed to"},
		"a genesis of the layout before":       {[][]byte{unsigned}, "no recovery key agreed to"},
		"the liar's log, handed over":          {[][]byte{own, handover}, "these words are not"},
		"the liar's log":                       {[][]byte{own}, "these words are not"},
		"an op in the place of the genesis":    {[][]byte{handover}, ""},
		"nothing":                              {nil, "no identity log"},
	} {
		op, of, err := authorise(cborx.MustMarshal(&identityLog{Ops: c.ops}), self, words)
		if err == nil || op != nil || of != (keys.UserID{}) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: signed %x for %v: %v", name, op, of, err)
		}
		if code := fault.CodeOf(err); c.want != "" && c.ops != nil && (code != fault.Untrusted || fault.HintOf(err) == "") {
			t.Errorf("%s: code %v, hint %q", name, code, fault.HintOf(err))
		}
	}
}

// With the words' consent, given in the genesis or later, recovery goes on.
func TestAuthoriseSignsForItsUser(t *testing.T) {
	words, former, first, self := keys.GenerateKeyPair(), keys.GenerateKeyPair(), keys.GenerateKeyPair(), keys.GenerateKeyPair()
	genesis, user, err := identity.NewGenesis(first, words)
	if err != nil {
		t.Fatal(err)
	}
	before, userBefore, err := identity.NewGenesis(first, former)
	if err != nil {
		t.Fatal(err)
	}
	set, err := identity.Open([][]byte{before})
	if err != nil {
		t.Fatal(err)
	}
	replaced, err := identity.Resolve(set).NewReplaceRecovery(former, words)
	if err != nil {
		t.Fatal(err)
	}
	for want, ops := range map[keys.UserID][][]byte{user: {genesis}, userBefore: {before, replaced}} {
		op, of, err := authorise(cborx.MustMarshal(&identityLog{Ops: ops}), self, words)
		if err != nil || of != want {
			t.Fatalf("for %v: %v", of, err)
		}
		state, err := resolveIdentity(cborx.MustMarshal(&identityLog{Ops: append(ops, op)}))
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := state.Device(self.ID()); !ok || d.Power != identity.PowerFull || d.Certifier != words.ID() {
			t.Errorf("the device is not certified: %+v", d)
		}
	}
}
