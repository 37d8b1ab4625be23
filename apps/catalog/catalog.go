// Package catalog is the set of apps installed on this device: of each app the
// bundle that runs, the one before it, those on their way, what the user granted,
// and what is known of its publisher.
//
// A bundle goes announced → fetching → waiting → active. A peer announces it
// (the node reads the group's control log and calls Announce), peers hand over
// index and chunks (Wants, AddIndex, AddChunk), a person approves (Approve), or
// the app's policy does if nothing new is asked. A person on this device may hand
// over the file instead (Install), which then waits for Approve like any other.
// From every stage a bundle may be refused, for good and with its reason, or
// declined by a person.
//
// # What is trusted
//
// Nothing that a peer says before it is checked against a hash or signature. An
// announcement is a claim until the index, whose hash it gives, confirms it. A
// bundle is accepted only if its signer is a device of its publisher in the union
// of all that this device ever saw of the publisher's identity log; when that
// union grows, everything is judged anew, and what a revoked device signed stops
// and is forgotten, its seq with it. A seq not above the highest accepted is
// refused from peers, so nobody can bring back an old bundle with known holes;
// going back is a person's decision (Reactivate).
//
// # What is kept where
//
// Chunks lie as files (Chunks); all else in the Store, under the keys
//
//	a/ publisher(32) id        an Entry (deterministic CBOR, entry.go)
//	b/ bundle hash(32)         [index, signature] as they were received
//	p/ publisher(32)           [op, …]: the union of the identity log, parents first
//
// Each change of an app is one Put of its entry, made after everything that it
// relies on is on the disk: log, then index, then chunks, then entry. A crash
// between any two leaves the stage before, and Open goes on from there. Every
// method may be repeated when its outcome is unknown.
package catalog

import (
	"io"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A Store keeps small values by key. A change is durable once its method
// returned, and of two changes the earlier is never lost with the later kept.
// Safe for concurrent use.
type Store interface {
	// Load returns the value of key, nil if there is none.
	Load(key []byte) ([]byte, error)
	// Save sets the value of key; it keeps neither slice.
	Save(key, value []byte) error
	// Delete removes key, if it is there.
	Delete(key []byte) error
	// Keys lists all keys that begin with prefix, in ascending order.
	Keys(prefix []byte) ([][]byte, error)
}

// Config is what a Catalog is made of.
type Config struct {
	Store  Store
	Chunks *Chunks

	// ABI is the version this host serves: apps for a later one are refused.
	ABI bundle.ABI

	// MaxBytes is how much all chunks may take; 0 means 2 GiB. A bundle that
	// does not fit is refused.
	MaxBytes int64

	// Changed is called after an entry changed, from the goroutine that changed
	// it and without a lock held; nil for none.
	Changed func(bundle.App)
}

const defaultMaxBytes = 2 << 30

const hintElsewhere = "ask a device that has the app"

// A Catalog is the installed set. Safe for concurrent use.
type Catalog struct {
	// Set by Open, never changed.
	cfg Config

	// collecting is held for reading while chunks are put that no entry may name
	// yet, for writing by Collect. It is taken before mu.
	collecting sync.RWMutex

	// mu guards the fields below. It is held during calls of the Store.
	mu         sync.Mutex
	entries    map[bundle.App]*Entry // never changed in place: see update
	bundles    map[keys.Hash]*bundle.Bundle
	publishers map[keys.UserID]*publisher
	missing    map[keys.Hash]map[bundle.ChunkID]int // chunks to fetch, by bundle: their sizes
	changed    []bundle.App                         // to tell once mu is free
}

// Open reads the catalog and goes on where a crash interrupted it. It verifies
// the chunks of bundles that were being fetched; those of active bundles are
// verified when they are read.
func Open(cfg Config) (*Catalog, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	c := &Catalog{
		cfg:     cfg,
		entries: map[bundle.App]*Entry{}, bundles: map[keys.Hash]*bundle.Bundle{},
		publishers: map[keys.UserID]*publisher{}, missing: map[keys.Hash]map[bundle.ChunkID]int{},
	}
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.readLocked(); err != nil {
		return nil, fault.Wrap(err, "open the list of apps", "")
	}
	for _, app := range slices.SortedFunc(maps.Keys(c.entries), bundle.App.Compare) {
		if err := c.resumeLocked(app); err != nil {
			return nil, fault.Wrap(err, "open the list of apps", "")
		}
	}
	return c, nil
}

// tell calls Changed for what changed. It is deferred before any lock is taken,
// so that it runs when all are free and Changed may call the Catalog.
func (c *Catalog) tell() {
	c.mu.Lock()
	changed := c.changed
	c.changed = nil
	c.mu.Unlock()
	if c.cfg.Changed == nil {
		return
	}
	slices.SortFunc(changed, bundle.App.Compare)
	for _, app := range slices.Compact(changed) {
		c.cfg.Changed(app)
	}
}

// Prefixes of keys.
const (
	prefixEntry     = "a/"
	prefixBundle    = "b/"
	prefixPublisher = "p/"
)

func entryKey(app bundle.App) []byte {
	return append(append([]byte(prefixEntry), app.Publisher[:]...), app.ID...)
}

func bundleKey(hash keys.Hash) []byte { return append([]byte(prefixBundle), hash[:]...) }

func publisherKey(user keys.UserID) []byte { return append([]byte(prefixPublisher), user[:]...) }

// scan yields the rest of each key under prefix and its value.
func (c *Catalog) scan(prefix string, failed *error) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		names, err := c.cfg.Store.Keys([]byte(prefix))
		for _, key := range names {
			var value []byte
			if value, err = c.cfg.Store.Load(key); err != nil {
				break
			}
			if !yield(string(key[len(prefix):]), value) {
				return
			}
		}
		*failed = err
	}
}

func (c *Catalog) readLocked() error {
	const hint = "restore the home from a backup"
	var err error
	for user, value := range c.scan(prefixPublisher, &err) {
		if len(user) != len(keys.UserID{}) {
			return fault.New(fault.Corrupt, "", hint, "the key of an identity log is damaged")
		}
		p, err := decodePublisher(value)
		if err != nil {
			return err
		}
		if p.who.User != keys.UserID([]byte(user)) {
			return fault.New(fault.Corrupt, "", hint, "an identity log lies under another publisher's name")
		}
		c.publishers[p.who.User] = p
	}
	if err != nil {
		return err
	}
	for key, value := range c.scan(prefixEntry, &err) {
		var app bundle.App
		if len(key) < len(app.Publisher) {
			return fault.New(fault.Corrupt, "", hint, "the key of an app is damaged")
		}
		n := copy(app.Publisher[:], key)
		app.ID = bundle.AppID(key[n:])
		e, err := decodeEntry(app, value)
		if err != nil {
			return err
		}
		c.entries[app] = e
	}
	return err
}

// update changes one entry: on a copy, which takes the place of the entry once
// the Store has it.
func (c *Catalog) updateLocked(app bundle.App, change func(*Entry) error) error {
	e := &Entry{App: app}
	old := c.entries[app]
	if old != nil {
		*e = old.clone()
	}
	if err := change(e); err != nil {
		return err
	}
	after := e.encode()
	if old != nil && string(old.encode()) == string(after) {
		return nil
	}
	if err := c.cfg.Store.Save(entryKey(app), after); err != nil {
		return err
	}
	c.entries[app] = e
	c.changed = append(c.changed, app)
	return nil
}

// Apps lists all entries in order, those of removed apps left out.
func (c *Catalog) Apps() []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Entry
	for _, app := range slices.SortedFunc(maps.Keys(c.entries), bundle.App.Compare) {
		if e := c.entries[app]; e.Installed() || e.Previous != nil || len(e.Pending) > 0 {
			all = append(all, e.clone())
		}
	}
	return all
}

// Entry finds one app.
func (c *Catalog) Entry(app bundle.App) (Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.entryLocked(app)
	if err != nil {
		return Entry{}, err
	}
	return e.clone(), nil
}

func (c *Catalog) entryLocked(app bundle.App) (*Entry, error) {
	e := c.entries[app]
	if e == nil {
		return nil, fault.New(fault.NotFound, "find the app", `"peers-runtime app list" shows what is installed`, "%s is not installed here", fault.Quote(string(app.ID)))
	}
	return e, nil
}

// Active is the bundle that runs, with its manifest. NotFound: none does;
// Untrusted: it was stopped; Corrupt: its chunks are damaged and are being fetched.
func (c *Catalog) Active(app bundle.App) (*bundle.Bundle, error) {
	const op = "start the app"
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.entryLocked(app)
	switch {
	case err != nil:
		return nil, err
	case e.Stopped != nil && e.Active == nil:
		return nil, e.Stopped.Problem.err(op)
	case e.Active == nil:
		return nil, fault.New(fault.NotFound, op, "approve it first", "%s is not active", fault.Quote(string(app.ID)))
	}
	b, err := c.withManifestLocked(e.Active.Hash)
	return b, fault.Wrap(err, op, "")
}

// Bundle is a bundle that waits, is active or is the previous one, with its
// manifest: for showing what it asks for.
func (c *Catalog) Bundle(hash keys.Hash) (*bundle.Bundle, error) {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.withManifestLocked(hash)
}

// withManifestLocked finds a bundle and sees to it that its manifest is read.
func (c *Catalog) withManifestLocked(hash keys.Hash) (*bundle.Bundle, error) {
	b, err := c.loadBundleLocked(hash)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, fault.New(fault.NotFound, "find the bundle", hintElsewhere, "no bundle %s is known", hash.Short())
	}
	if b.Manifest != nil {
		return b, nil
	}
	text, err := c.readChunkLocked(hash, b.Index.Manifest().ID)
	if err != nil {
		return nil, err
	}
	if err := b.AddManifest(text); err != nil {
		return nil, err
	}
	return b, nil
}

// readChunkLocked reads a chunk and, if that fails, has it fetched again.
func (c *Catalog) readChunkLocked(hash keys.Hash, id bundle.ChunkID) ([]byte, error) {
	data, err := c.cfg.Chunks.Read(id)
	if code := fault.CodeOf(err); code == fault.NotFound || code == fault.Corrupt {
		c.lostLocked(hash, id)
	}
	return data, err
}

// lostLocked notes that a chunk of a known bundle must be fetched.
func (c *Catalog) lostLocked(hash keys.Hash, id bundle.ChunkID) {
	b := c.bundles[hash]
	if b == nil {
		return
	}
	for _, chunk := range b.Index.Missing(func(other bundle.ChunkID) bool { return other != id }) {
		if c.missing[hash] == nil {
			c.missing[hash] = map[bundle.ChunkID]int{}
		}
		c.missing[hash][id] = chunk.Size
		c.changed = append(c.changed, b.App())
	}
}

// File opens a file of a bundle from Active or Bundle. Its bytes are checked as
// they are read; a damaged chunk is an error and fetched again.
func (c *Catalog) File(b *bundle.Bundle, path string) (*bundle.FileReader, error) {
	f := b.Index.File(path)
	if f == nil {
		return nil, fault.New(fault.NotFound, "open a file of the app", "the app refers to a file that its bundle lacks", "there is no %s", fault.Quote(path))
	}
	return bundle.NewFileReader(f, func(id bundle.ChunkID) ([]byte, error) { return c.chunk(b.Hash, id) }), nil
}

func (c *Catalog) chunk(hash keys.Hash, id bundle.ChunkID) ([]byte, error) {
	data, err := c.cfg.Chunks.Read(id)
	if code := fault.CodeOf(err); code == fault.NotFound || code == fault.Corrupt {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lostLocked(hash, id)
	}
	return data, err
}

// Export writes the active bundle as the file it came from, byte for byte
// as signed. The errors are those of Active, of w and of chunks that are damaged;
// then part of the file may be written.
func (c *Catalog) Export(w io.Writer, app bundle.App) error {
	b, err := c.Active(app)
	if err != nil {
		return err
	}
	return bundle.Assemble(w, b, func(id bundle.ChunkID) ([]byte, error) { return c.chunk(b.Hash, id) })
}

// storedBundle is the value under b/.
type storedBundle struct {
	_          struct{} `cbor:",toarray"`
	Index, Sig []byte
}

// saveBundleLocked keeps a verified index.
func (c *Catalog) saveBundleLocked(b *bundle.Bundle) error {
	index, sig := b.Raw()
	if err := c.cfg.Store.Save(bundleKey(b.Hash), cborx.MustMarshal(storedBundle{Index: index, Sig: sig})); err != nil {
		return err
	}
	c.bundles[b.Hash] = b
	return nil
}

// loadBundleLocked opens a kept index anew, under what is known of its publisher
// now. It returns nil and no error if there is none, or none that opens: then it
// is to be fetched like one never seen.
func (c *Catalog) loadBundleLocked(hash keys.Hash) (*bundle.Bundle, error) {
	if b := c.bundles[hash]; b != nil {
		return b, nil
	}
	value, err := c.cfg.Store.Load(bundleKey(hash))
	if err != nil || value == nil {
		return nil, err
	}
	var s storedBundle
	if cborx.Unmarshal(value, &s) != nil || bundle.Hash(s.Index) != hash {
		return nil, nil
	}
	b, err := bundle.Open(s.Index, s.Sig, c.resolveKnownLocked)
	if err != nil {
		return nil, nil
	}
	c.bundles[hash] = b
	return b, nil
}

// Index returns what a peer needs to begin fetching a bundle: index and
// signature as they were received.
func (c *Catalog) Index(hash keys.Hash) (index, sig []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bundles[hash]
	if b == nil {
		return nil, nil, fault.New(fault.NotFound, "find the bundle", hintElsewhere, "no bundle %s is known", hash.Short())
	}
	index, sig = b.Raw()
	return index, sig, nil
}

// Chunk returns a chunk of a bundle, for a peer. Only chunks of that bundle are
// given, so whoever may have the bundle cannot ask for those of others.
func (c *Catalog) Chunk(hash keys.Hash, id bundle.ChunkID) ([]byte, error) {
	c.mu.Lock()
	b := c.bundles[hash]
	c.mu.Unlock()
	if b == nil || !b.Index.Lists(id) {
		return nil, fault.New(fault.NotFound, "find the chunk", hintElsewhere, "no chunk %s of bundle %s is known", id.String()[:8], hash.Short())
	}
	return c.chunk(hash, id)
}

// Collect removes chunks and indexes that no app needs any more and returns how
// many bytes of chunks that freed. It may be called at any time.
func (c *Catalog) Collect() (freed int64, err error) {
	c.collecting.Lock()
	defer c.collecting.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	needed, chunks := map[keys.Hash]bool{}, map[bundle.ChunkID]bool{}
	for _, e := range c.entries {
		for _, hash := range e.needed() {
			needed[hash] = true
			b, err := c.loadBundleLocked(hash)
			if err != nil {
				return 0, fault.Wrap(err, "remove old apps", "")
			}
			if b == nil {
				continue
			}
			for _, chunk := range b.Index.Chunks() {
				chunks[chunk.ID] = true
			}
		}
	}
	var failed error
	for rest := range c.scan(prefixBundle, &failed) {
		if len(rest) == len(keys.Hash{}) && needed[keys.Hash([]byte(rest))] {
			continue
		}
		if err := c.cfg.Store.Delete([]byte(prefixBundle + rest)); err != nil {
			return 0, fault.Wrap(err, "remove old apps", "")
		}
	}
	if failed != nil {
		return 0, fault.Wrap(failed, "remove old apps", "")
	}
	maps.DeleteFunc(c.bundles, func(h keys.Hash, _ *bundle.Bundle) bool { return !needed[h] })
	maps.DeleteFunc(c.missing, func(h keys.Hash, _ map[bundle.ChunkID]int) bool { return !needed[h] })
	freed, err = c.cfg.Chunks.Collect(func(id bundle.ChunkID) bool { return chunks[id] })
	return freed, err
}

// needed lists the bundles whose index and chunks the entry relies on.
func (e *Entry) needed() []keys.Hash {
	var all []keys.Hash
	for _, i := range []*Installed{e.Active, e.Previous} {
		if i != nil {
			all = append(all, i.Hash)
		}
	}
	for _, p := range e.Pending {
		if p.Stage.verified() {
			all = append(all, p.Hash)
		}
	}
	return all
}
