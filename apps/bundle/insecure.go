package bundle

import (
	"sync"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

// The seeds of the development publisher. They are published: anybody can sign as
// it, so its signature says nothing about who made an app. It exists so that the
// examples, tests and an app on a developer's desk go through the same code as
// every other bundle.
const (
	insecureDevice   = "peers development publisher: INSECURE device key, known to all"
	insecureRecovery = "peers development publisher: INSECURE recovery key, known to all"
)

// InsecureSigner is the development publisher: one device, whose key everybody
// has. The result is the same on every call and every machine.
func InsecureSigner() Signer {
	device, recovery := insecurePair(insecureDevice), insecurePair(insecureRecovery)
	genesis, _, err := identity.NewGenesis(device, recovery)
	if err != nil {
		panic(err) // constants: cannot fail after the first test run
	}
	return Signer{Key: device, Log: [][]byte{genesis}, Resolve: ResolveLog}
}

func insecurePair(seed string) *keys.KeyPair {
	sign, open := NewChunkID([]byte(seed+" (sign)")), NewChunkID([]byte(seed+" (open)"))
	pair, err := keys.NewKeyPair(keys.SecretFrom(sign), keys.SecretFrom(open))
	if err != nil {
		panic(err) // both secrets are given
	}
	return pair
}

// insecureUser is resolved once: every list of apps asks for it.
var insecureUser = sync.OnceValue(func() keys.UserID {
	who, err := ResolveLog(InsecureSigner().Log)
	if err != nil {
		panic(err) // constants: cannot fail after the first test run
	}
	return who.User
})

// InsecurePublisher is the UserID of the development publisher.
func InsecurePublisher() keys.UserID { return insecureUser() }

// Insecure reports whether the app is the development publisher's. Whoever shows
// the app to a person says so: anybody could have made it.
func (a App) Insecure() bool { return a.Publisher == InsecurePublisher() }
