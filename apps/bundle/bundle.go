// Package bundle reads and writes apps as they travel: the file app.peersapp, and
// the same app as an index and its chunks fetched one by one from peers.
//
// A bundle is a set of files, an index that lists them with the SHA-256 of each
// 1 MiB chunk, and a signature of the index by one of the publisher's devices.
// The index carries the publisher's identity log as far as the publisher knew
// it, so a stranger can check the signature with nothing but the bundle. The
// bundle's hash is the hash of the index; the archive round it, its compression
// and the signature are outside, so the same app signed by another device of
// its publisher is still the same bundle.
//
// Nothing is trusted before the signature is checked, and nothing after it but
// what a hash covers: every chunk is compared with the index before it is
// handed on, every size with the index before a byte is inflated, and the limits
// below hold whoever signed. What the manifest (app.toml) says is the app's
// claim; who the publisher is and what a capability means is said by the host.
//
// docs/spec/bundle.md describes the bytes; testdata pins them.
package bundle

import (
	"encoding/hex"
	"errors"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// Limits of a bundle. They hold for reading and writing alike.
const (
	ChunkSize   = 1 << 20         // bytes of every chunk but a file's last
	MaxTotal    = 64 << 20        // bytes of all files
	MaxFile     = 32 << 20        // bytes of one file
	MaxWasm     = 16 << 20        // bytes of app.wasm: what a device can compile in reasonable time
	MaxIcon     = 256 << 10       // bytes of icon.png
	MaxManifest = 64 << 10        // bytes of app.toml
	MaxFiles    = 4096            // files
	MaxPath     = 160             // bytes of a file's path
	MaxIndex    = 1 << 20         // bytes of the encoded index
	MaxLog      = 256 << 10       // bytes of the identity log in the index
	MaxOps      = 1024            // ops of the identity log in the index
	MaxSeq      = 1<<53 - 1       // highest seq: what a page's number holds exactly
	maxSig      = 1 + 34 + 2 + 64 // bytes of the encoded signature
)

// Files with a meaning of their own. Everything else lies under UIDir.
const (
	ManifestPath = "app.toml"
	WasmPath     = "app.wasm"
	IconPath     = "icon.png"
	UIDir        = "ui/"
)

// An AppID is the name a publisher gives an app: 2 to 32 of a-z, 0-9 and "-",
// neither first nor last a "-". It means something only beside its publisher.
type AppID string

// An App is what an app is known by: who publishes it and what they call it.
// Never a hash of code, so that an update is the same app with the same data.
type App struct {
	Publisher keys.UserID
	ID        AppID
}

// Compare orders apps by publisher and id.
func (a App) Compare(o App) int {
	if c := a.Publisher.Compare(o.Publisher); c != 0 {
		return c
	}
	switch {
	case a.ID < o.ID:
		return -1
	case a.ID > o.ID:
		return 1
	}
	return 0
}

// String gives "id@publisher", with 8 hex digits of the publisher, for logs.
func (a App) String() string { return string(a.ID) + "@" + hex.EncodeToString(a.Publisher[:4]) }

// Valid reports whether id keeps the rule for app ids. The id of the host's own
// namespace, "peers", is nobody's.
func (id AppID) Valid() bool {
	if len(id) < 2 || len(id) > 32 || id[0] == '-' || id[len(id)-1] == '-' || id == "peers" {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// A Publisher is what an identity log says of the user who signs bundles.
type Publisher struct {
	User keys.UserID

	// Devices holds every device the log ever certified; true for those that
	// may sign bundles now, false for revoked ones and those without the power.
	Devices map[keys.DeviceID]bool
}

// A Resolver reads the ops of one user's identity log, in any order. It refuses
// ops that are malformed, not signed as they must be, or of several users.
// Bundle.Open hands it the log from the index; a caller that has seen more of
// that user's log resolves both together.
type Resolver func(ops [][]byte) (Publisher, error)

// A Bundle is an index whose signature was checked, and, once its manifest was,
// the manifest. It is not modified after that, and safe for concurrent use.
type Bundle struct {
	Index    *Index
	Hash     keys.Hash     // names the bundle
	Signer   keys.DeviceID // the publisher's device that signed it
	Manifest *Manifest     // nil until AddManifest accepted app.toml

	rawIndex, rawSig []byte
}

// App is the app that this bundle is a state of.
func (b *Bundle) App() App { return App{b.Index.Publisher, b.Index.App} }

// Raw returns the encoded index and signature as they were read, for storing
// and for handing to a peer. The caller does not modify them.
func (b *Bundle) Raw() (index, sig []byte) { return b.rawIndex, b.rawSig }

// Hash is the hash of an encoded index: the name of the bundle.
func Hash(index []byte) keys.Hash { return keys.Sum(keys.DomainBundle, index) }

// Sign signs the bundle of that hash and returns the encoded signature: the
// array [DeviceID, signature].
func Sign(hash keys.Hash, by *keys.KeyPair) []byte {
	id, sig := by.ID(), by.Sign(keys.DomainBundle, hash[:])
	b := cborx.AppendBytes(cborx.AppendArray(nil, 2), id[:])
	return cborx.AppendBytes(b, sig[:])
}

// DecodeSig reads what Sign wrote. It checks the form only.
func DecodeSig(b []byte) (keys.DeviceID, keys.Signature, error) {
	signer, sig, err := decodeSig(b)
	return signer, sig, wrapRead(err)
}

func decodeSig(b []byte) (signer keys.DeviceID, sig keys.Signature, err error) {
	r := cborx.NewReader(b)
	if n := r.Array(); r.Err() == nil && n != 2 {
		r.Fail(cborx.ErrType)
	}
	id, raw := r.Bytes(), r.Bytes()
	if r.Err() == nil && (len(id) != len(signer) || len(raw) != len(sig)) {
		r.Fail(cborx.ErrType)
	}
	if err := r.Done(); err != nil {
		return signer, sig, invalid("its signature is malformed: %w", err)
	}
	return keys.DeviceID(id), keys.Signature(raw), nil
}

// ErrSignature says that a signature is not that of the device it names. The
// hash of a bundle does not cover the signature, so this says nothing of the
// bundle itself: whoever handed it over may have spoiled it.
var ErrSignature = errors.New("its signature is not that")

// Open checks an index and its signature: the form, that the identity log in it
// is the publisher's, and that the signer is a device of theirs that may sign.
// It keeps both slices.
func Open(index, sig []byte, resolve Resolver) (*Bundle, error) {
	b, err := open(index, sig, resolve)
	return b, wrapRead(err)
}

func open(index, sig []byte, resolve Resolver) (*Bundle, error) {
	x, err := decodeIndex(index)
	if err != nil {
		return nil, err
	}
	signer, s, err := decodeSig(sig)
	if err != nil {
		return nil, err
	}
	hash := Hash(index)
	if !keys.Verify(signer, keys.DomainBundle, hash[:], s) {
		return nil, untrusted("%w of %s: the bundle was changed after it was signed", ErrSignature, signer.Short())
	}
	who, err := resolve(x.Log)
	if err != nil {
		return nil, untrusted("its publisher's identity log does not check: %w", err)
	}
	if who.User != x.Publisher {
		return nil, untrusted("it names a publisher whose identity log it does not carry")
	}
	switch ok, certified := who.Devices[signer]; {
	case !certified:
		return nil, untrusted("the device %s that signed it is not one of its publisher's", signer.Short())
	case !ok:
		return nil, fault.New(fault.Untrusted, "", "do not install it; ask the publisher for a bundle signed by another device",
			"the device %s that signed it was revoked by its publisher, or never had the right to sign", signer.Short())
	}
	return &Bundle{Index: x, Hash: hash, Signer: signer, rawIndex: index, rawSig: sig}, nil
}

// AddManifest reads app.toml, whose bytes the caller has checked against the
// index, and holds it against the index: same id and seq, and exactly the parts
// that it names.
func (b *Bundle) AddManifest(text []byte) error { return wrapRead(b.addManifest(text)) }

func (b *Bundle) addManifest(text []byte) error {
	m, err := ParseManifest(text)
	if err != nil {
		return err
	}
	x := b.Index
	if m.ID != x.App || m.Seq != x.Seq {
		return invalid("its manifest is that of %s, seq %d, its index says %s, seq %d", m.ID, m.Seq, x.App, x.Seq)
	}
	if err := m.checkParts(func(path string) bool { return x.File(path) != nil }, x.hasUI()); err != nil {
		return err
	}
	b.Manifest = m
	return nil
}

// checkParts holds a manifest against the files that are there.
func (m *Manifest) checkParts(has func(path string) bool, anyUI bool) error {
	const hint = "name each part of the app in app.toml, and no other"
	switch {
	case m.Wasm != nil && !has(WasmPath):
		return fault.New(fault.Invalid, "", hint, "its manifest names a WASM module, and %s is missing", WasmPath)
	case m.Wasm == nil && has(WasmPath):
		return fault.New(fault.Invalid, "", hint, "it holds %s, which its manifest does not name", WasmPath)
	case m.UI != nil && !has(UIDir+m.UI.Index):
		return fault.New(fault.Invalid, "", hint, "its manifest names the page %s, which is missing", fault.Quote(UIDir+m.UI.Index))
	case m.UI == nil && anyUI:
		return fault.New(fault.Invalid, "", hint, "it holds pages, which its manifest does not name")
	}
	return nil
}

const (
	opRead    = "read the bundle"
	hintAgain = "get the bundle again; if it stays so, its publisher must pack it anew"
)

// wrapRead says what was attempted; the faults below leave it to their caller.
func wrapRead(err error) error { return fault.Wrap(err, opRead, "") }

func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "", hintAgain, format, args...)
}

func tooBig(format string, args ...any) error {
	return fault.New(fault.TooBig, "", "leave out what the app does not need, or load it later as data", format, args...)
}

func untrusted(format string, args ...any) error {
	return fault.New(fault.Untrusted, "", "do not install it; get the bundle from its publisher", format, args...)
}
