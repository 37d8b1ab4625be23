package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/sync/store"
)

// Measurements for benchmarks. They return times of one side; the caller runs
// the sides of a comparison in turn in one process and trusts only the ratio.

// The field of the bare load: what "bare" means in the project's targets.
const (
	fieldKey   = 18
	fieldValue = 44
)

// fieldAt is field i of a load: a sequential key and a value that does not
// compress.
func fieldAt(i int) (key, value []byte) {
	b := make([]byte, fieldKey+fieldValue)
	binary.BigEndian.PutUint64(b[2:], uint64(i/10))
	binary.BigEndian.PutUint64(b[fieldKey-8:], uint64(i%10))
	x := uint64(i)*0x9E3779B97F4A7C15 + 1
	for o := fieldKey; o+8 <= len(b); o += 8 {
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		binary.LittleEndian.PutUint64(b[o:], x)
	}
	return b[:fieldKey], b[fieldKey:]
}

// BareLoad puts fields into a new bbolt file under dir, one Put per field with
// an 18-byte sequential key, perTx fields in a transaction, pages filled to
// 0.9, every commit synced; it returns how long the puts and commits took. The
// file is removed.
func BareLoad(dir string, fields, perTx int) (took time.Duration, err error) {
	began := time.Now()
	err = bareFile(dir, fields, perTx, func(*bbolt.DB) error {
		took = time.Since(began)
		return nil
	})
	return took, err
}

// bareFile loads fields into a new bbolt file under dir, calls fn and removes
// the file.
func bareFile(dir string, fields, perTx int, fn func(*bbolt.DB) error) (err error) {
	path := filepath.Join(dir, "bare")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), os.Remove(path)) }()
	for i := 0; i < fields; {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			b.FillPercent = 0.9
			for n := 0; n < perTx && i < fields; n, i = n+1, i+1 {
				if err := b.Put(fieldAt(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return fn(db)
}

// Load puts the same fields into db through store.DB.
func Load(db store.DB, fields, perTx int) (time.Duration, error) {
	began := time.Now()
	for i := 0; i < fields; {
		err := db.Update(func(tx store.Tx) error {
			b := tx.Bucket("b")
			b.SetFill(0.9)
			for n := 0; n < perTx && i < fields; n, i = n+1, i+1 {
				if err := b.Put(fieldAt(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// LoadPieces is the same load as a store.Bulk: one field a piece.
type LoadPieces int

func (n LoadPieces) Pieces() int { return int(n) }

func (n LoadPieces) ApplyPiece(tx store.Tx, i int) error {
	b := tx.Bucket("b")
	b.SetFill(0.9)
	return b.Put(fieldAt(i))
}

func (n LoadPieces) AfterPieces(int, error) {}

// Commits lets writers goroutines make changes commits of one field each,
// together, and returns how long that took. do makes one durable: db.Update
// for the plain side, Writer.Do for the other.
func Commits(writers, commits int, do func(context.Context, store.Job) error) (time.Duration, error) {
	var wg sync.WaitGroup
	errs := make([]error, writers)
	began := time.Now()
	for w := range writers {
		wg.Go(func() {
			for i := w; i < commits && errs[w] == nil; i += writers {
				errs[w] = do(context.Background(), store.JobFunc(func(tx store.Tx) error { return tx.Bucket("c").Put(fieldAt(i)) }))
			}
		})
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// PlainCommits is Commits with one Update for each.
func PlainCommits(db store.DB, writers, commits int) (time.Duration, error) {
	return Commits(writers, commits, func(_ context.Context, j store.Job) error { return db.Update(j.Apply) })
}

// WriterCommits is Commits through a Writer.
func WriterCommits(db store.DB, writers, commits int) (took time.Duration, err error) {
	w := store.NewWriter(db, store.WriterConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { err = w.Run(ctx) })
	took, cerr := Commits(writers, commits, w.Do)
	cancel()
	wg.Wait()
	return took, errors.Join(err, cerr)
}

// BareOverwrite loads fields as BareLoad does and then puts updates of them at
// random, perTx in a transaction; it returns how long the updates took.
func BareOverwrite(dir string, fields, updates, perTx int) (took time.Duration, err error) {
	err = bareFile(dir, fields, 10_000, func(db *bbolt.DB) error {
		began := time.Now()
		x := uint64(88172645463325252)
		for i := 0; i < updates; {
			err := db.Update(func(tx *bbolt.Tx) error {
				b := tx.Bucket([]byte("b"))
				for n := 0; n < perTx && i < updates; n, i = n+1, i+1 {
					x ^= x << 13
					x ^= x >> 7
					x ^= x << 17
					key, _ := fieldAt(int(x % uint64(fields)))
					_, value := fieldAt(int(x >> 1))
					if err := b.Put(key, value); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		took = time.Since(began)
		return nil
	})
	return took, err
}

// BareSize loads fields as BareLoad does and returns how many bytes of the file
// are in use.
func BareSize(dir string, fields, perTx int) (bytes int64, err error) {
	err = bareFile(dir, fields, perTx, func(db *bbolt.DB) error {
		return db.View(func(tx *bbolt.Tx) error {
			st := tx.DB().Stats()
			bytes = tx.Size() - int64(st.FreePageN+st.PendingPageN)*int64(tx.DB().Info().PageSize)
			return nil
		})
	})
	return bytes, err
}

// Keys are the keys of a load in an order that jumps about.
func Keys(fields int) [][]byte {
	keys := make([][]byte, fields)
	for i := range keys {
		keys[i], _ = fieldAt(i * 7919 % fields)
	}
	return keys
}

// WithBare runs f on the bbolt database under db, for the bare side of a
// comparison.
func WithBare(db *store.Bolt, f func(*bbolt.DB) error) error { return f(*private[*bbolt.DB](db, "db")) }
