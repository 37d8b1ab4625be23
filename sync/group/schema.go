package group

import (
	"context"
	"slices"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A spaceSchema is what an app declared about a namespace. Published ones are
// never changed; the indexers are the writer's alone.
type spaceSchema struct {
	schema   *schema.Schema
	indexers map[record.CollectionID]*schema.Indexer
	builds   []indexBuild
}

// An indexBuild is an index that does not hold all records yet: those up to
// After it does. Writes keep it up to date from the moment it is declared.
type indexBuild struct {
	_          struct{} `cbor:",toarray"`
	Collection record.CollectionID
	Index      uint8
	After      []byte // state key; empty at the start
}

type schemaRow struct {
	_          struct{} `cbor:",toarray"`
	KeyVersion uint
	Schema     []byte
	Builds     []indexBuild
}

func newSpaceSchema(s *schema.Schema, builds []indexBuild) *spaceSchema {
	ss := &spaceSchema{schema: s, indexers: map[record.CollectionID]*schema.Indexer{}, builds: builds}
	for i := range s.Collections {
		c := &s.Collections[i]
		if len(c.Indexes) > 0 {
			ss.indexers[c.ID] = schema.NewIndexer(c)
		}
	}
	return ss
}

// loadSchema reads a namespace's schema. One whose keys another version of the
// program made is as if it had never been declared: its owner declares it again,
// and the indexes are built anew.
func (g *Group) loadSchema(tx store.Tx, sp *space) error {
	b := tx.Bucket(keyspace.BucketSchema).Get(keyspace.Numbered("", uint32(sp.num)))
	if b == nil {
		return nil
	}
	var row schemaRow
	if err := keyspace.DecodeRow(b, &row); err != nil {
		return err
	}
	if row.KeyVersion != schema.KeyVersion {
		return nil
	}
	s, err := schema.Decode(row.Schema)
	if err != nil {
		return err
	}
	sp.schema = newSpaceSchema(s, row.Builds)
	if len(row.Builds) == 0 {
		return nil
	}
	// The process that began to build them ended before they were complete.
	return g.writer.SubmitBulk(&buildIndexes{g: g, ns: sp.row.Namespace})
}

func (x *txn) putSchema(sp *space, s *spaceSchema) error {
	sp.schema = s
	enc, err := s.schema.Encode()
	if err != nil {
		return err
	}
	row := schemaRow{KeyVersion: schema.KeyVersion, Schema: enc, Builds: s.builds}
	return x.tx.Bucket(keyspace.BucketSchema).Put(keyspace.Numbered("", uint32(sp.num)), cborx.MustMarshal(&row))
}

// declareJob gives a namespace a schema.
type declareJob struct {
	g      *Group
	ns     record.NamespaceID
	schema *schema.Schema
	builds bool
}

func (j *declareJob) Apply(store.Tx) error {
	x := j.g.txn
	sp := x.space(j.ns)
	old := &schema.Schema{}
	var builds []indexBuild
	if sp.schema != nil {
		old, builds = sp.schema.schema, sp.schema.builds
	} else if err := x.tx.DeleteBucket(sp.num.Index()); err != nil { // of an older key version
		return x.fail(err)
	}
	merged, err := schema.Merge(old, j.schema)
	if err != nil {
		return err
	}
	build, drop := schema.DiffIndexes(old, merged)
	j.builds = len(build) > 0
	if sp.schema != nil && len(build)+len(drop) == 0 && sameSchema(old, merged) {
		return nil
	}
	for _, ref := range drop {
		builds = slices.DeleteFunc(builds, func(b indexBuild) bool { return b.Collection == ref.Collection && b.Index == ref.Index })
		lo, hi := ref.Range()
		if err := deleteRange(x.tx.Bucket(sp.num.Index()), lo, hi); err != nil {
			return x.fail(err)
		}
	}
	builds = slices.Clone(builds)
	for _, ref := range build {
		builds = append(builds, indexBuild{Collection: ref.Collection, Index: ref.Index, After: []byte{}})
	}
	return x.fail(x.putSchema(sp, newSpaceSchema(merged, builds)))
}

func (j *declareJob) After(err error) {
	if err == nil && j.builds {
		if err := j.g.writer.SubmitBulk(&buildIndexes{g: j.g, ns: j.ns}); err != nil {
			j.g.log.Debug("the writer stopped before an index was built", "error", err)
		}
	}
}

func sameSchema(a, b *schema.Schema) bool {
	ea, errA := a.Encode()
	eb, errB := b.Encode()
	return errA == nil && errB == nil && string(ea) == string(eb)
}

func deleteRange(b store.Bucket, lo, hi []byte) error {
	c := b.Cursor()
	for k, _ := c.Seek(lo); k != nil && string(k) < string(hi); k, _ = c.Next() {
		if err := b.Delete(slices.Clone(k)); err != nil {
			return err
		}
	}
	return nil
}

// Declare gives a namespace the schema of its app, joined with what was declared
// before: schemas only grow. New indexes are built in the background, and serve
// queries when they are complete.
func (g *Group) Declare(ctx context.Context, ns record.NamespaceID, s *schema.Schema) error {
	if err := s.Validate(); err != nil {
		return err
	}
	return g.writer.Do(ctx, &declareJob{g: g, ns: ns, schema: s})
}

// buildIndexes is bulk work: it fills the indexes that are not complete, some
// records a piece. How far it is lies in the schema's row.
type buildIndexes struct {
	g  *Group
	ns record.NamespaceID
}

const (
	buildPieces  = 256
	buildRecords = 200 // a piece of some milliseconds
)

func (j *buildIndexes) Pieces() int { return buildPieces }

func (j *buildIndexes) ApplyPiece(store.Tx, int) error {
	x := j.g.txn
	sp := x.space(j.ns)
	if sp.schema == nil || len(sp.schema.builds) == 0 {
		return nil
	}
	return x.fail(x.buildPiece(sp))
}

func (j *buildIndexes) AfterPieces(n int, err error) {
	if err != nil {
		j.g.log.Error("an index cannot be built", "namespace", j.ns.Short(), "error", err)
		return
	}
	sp := j.g.namespace(j.ns)
	if n == buildPieces && sp != nil && sp.schema != nil && len(sp.schema.builds) > 0 {
		if err := j.g.writer.SubmitBulk(j); err != nil {
			j.g.log.Debug("the writer stopped before an index was built", "error", err)
		}
	}
}

// buildPiece adds the keys of the next records to the first incomplete index.
// Records that this transaction has changed are written with all their keys
// anyway, and reading them as they were does no harm: a key that no longer holds
// is removed when the change is flushed.
func (x *txn) buildPiece(sp *space) error {
	b := sp.schema.builds[0]
	coll, ok := sp.schema.schema.Collection(b.Collection)
	if !ok {
		return x.putSchema(sp, newSpaceSchema(sp.schema.schema, sp.schema.builds[1:]))
	}
	if err := x.flushRecords(); err != nil {
		return err
	}
	lo, hi := keyspace.StateCollection(b.Collection)
	if len(b.After) > 0 {
		lo = append(slices.Clone(b.After), 0)
	}
	indexer := schema.NewIndexer(coll, b.Index)
	var entries schema.Entries
	var st record.State
	n := 0
	c := x.tx.Bucket(sp.num.State()).Cursor()
	for k, v := c.Seek(lo); k != nil && string(k) < string(hi) && n < buildRecords; k, v = c.Next() {
		if err := record.DecodeState(v, len(x.devices()), &st); err != nil {
			return err
		}
		if st.Visible(x.devices()) {
			indexer.Append(&entries, record.ID(k[2:]), &st)
		}
		b.After = slices.Clone(k)
		n++
	}
	entries.Sort()
	bucket := x.tx.Bucket(sp.num.Index())
	for k := range entries.All() {
		if err := bucket.Put(x.arena.Copy(k), nil); err != nil {
			return err
		}
	}
	builds := slices.Clone(sp.schema.builds)
	if builds[0] = b; n < buildRecords {
		builds = builds[1:]
	}
	next := *sp.schema
	next.builds = builds
	return x.putSchema(sp, &next)
}

// noteKeys remembers the index keys of a visible record as it is in the
// database.
func (x *txn) noteKeys(sp *space, r *dirtyRecord) {
	if sp.schema == nil {
		return
	}
	if indexer := sp.schema.indexers[r.collection]; indexer != nil {
		from := x.oldKeys.Len()
		indexer.Append(&x.oldKeys, r.id, &r.state)
		r.oldKeys = x.oldKeys.Slice(from, x.oldKeys.Len())
	}
}

// indexDiff are the keys that a transaction adds to and removes from a
// namespace's indexes.
type indexDiff struct{ removed, added schema.Entries }

// diffKeys notes how a changed record changes the indexes.
func (x *txn) diffKeys(sp *space, r *dirtyRecord, visible bool) {
	if sp.schema == nil {
		return
	}
	indexer := sp.schema.indexers[r.collection]
	if indexer == nil {
		return
	}
	x.newKeys.Reset()
	if visible {
		indexer.Append(&x.newKeys, r.id, &r.state)
	}
	d := x.diffs[sp.num]
	if d == nil {
		d = new(indexDiff)
		x.diffs[sp.num] = d
	}
	schema.Diff(r.oldKeys, x.newKeys, &d.removed, &d.added)
}

// flushIndexes writes the noted keys in order.
func (x *txn) flushIndexes() error {
	for num, d := range x.diffs {
		d.removed.Sort()
		d.added.Sort()
		b := x.tx.Bucket(num.Index())
		for k := range d.removed.All() {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		for k := range d.added.All() {
			if err := b.Put(k, nil); err != nil {
				return err
			}
		}
	}
	clear(x.diffs)
	return nil
}
