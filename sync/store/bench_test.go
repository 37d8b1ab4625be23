package store_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// compare runs two sides in turn and reports the ratio of their times, how
// many times faster b is.
func compare(bench *testing.B, a, b func(*testing.B) time.Duration) {
	var ta, tb time.Duration
	for bench.Loop() {
		ta += a(bench)
		tb += b(bench)
	}
	bench.ReportMetric(float64(ta)/float64(tb), "x")
	bench.ReportMetric(0, "ns/op")
}

func must(b *testing.B, n int, unit string, f func() (time.Duration, error)) time.Duration {
	took, err := f()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/took.Seconds(), unit)
	return took
}

// BenchmarkLoad: store.DB against bare bbolt on the same load.
func BenchmarkLoad(b *testing.B) {
	const fields, perTx = 300_000, 10_000
	compare(b, func(b *testing.B) time.Duration {
		return must(b, fields, "bare/s", func() (time.Duration, error) { return storetest.BareLoad(b.TempDir(), fields, perTx) })
	}, func(b *testing.B) time.Duration {
		db := open(b)
		return must(b, fields, "store/s", func() (time.Duration, error) { return storetest.Load(db, fields, perTx) })
	})
}

// BenchmarkLoadPieces: a bulk of one-field pieces against bare bbolt.
func BenchmarkLoadPieces(b *testing.B) {
	const fields, perTx = 300_000, 10_000
	compare(b, func(b *testing.B) time.Duration {
		return must(b, fields, "bare/s", func() (time.Duration, error) { return storetest.BareLoad(b.TempDir(), fields, perTx) })
	}, func(b *testing.B) time.Duration {
		db := open(b)
		return must(b, fields, "bulk/s", func() (time.Duration, error) {
			began := time.Now()
			w := store.NewWriter(db, store.WriterConfig{})
			if err := w.SubmitBulk(storetest.LoadPieces(fields)); err != nil {
				return 0, err
			}
			for w.Step() {
			}
			return time.Since(began), nil
		})
	})
}

// benchCommits interleaves the two sides in short rounds on two open
// databases, so that what else the machine does hits both alike.
func benchCommits(b *testing.B, writers, plain, coalesced int) {
	one, other := open(b), open(b)
	var update, writer time.Duration
	rounds := 0
	for b.Loop() {
		for range 8 {
			rounds++
			for took, side := range map[*time.Duration]func() (time.Duration, error){
				&update: func() (time.Duration, error) { return storetest.PlainCommits(one, writers, plain) },
				&writer: func() (time.Duration, error) { return storetest.WriterCommits(other, writers, coalesced) },
			} {
				d, err := side()
				if err != nil {
					b.Fatal(err)
				}
				*took += d
			}
		}
	}
	u, w := float64(rounds*plain)/update.Seconds(), float64(rounds*coalesced)/writer.Seconds()
	b.ReportMetric(u, "update/s")
	b.ReportMetric(w, "writer/s")
	b.ReportMetric(w/u, "x")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCommit: Writer.Do against plain Update, by number of writers.
func BenchmarkCommit1(b *testing.B)  { benchCommits(b, 1, 100, 100) }
func BenchmarkCommit8(b *testing.B)  { benchCommits(b, 8, 100, 400) }
func BenchmarkCommit64(b *testing.B) { benchCommits(b, 64, 128, 2000) }

// BenchmarkGet: a View with one Get against the same on bare bbolt.
func BenchmarkGet(b *testing.B) {
	const fields = 100_000
	db := open(b)
	if _, err := storetest.Load(db, fields, 10_000); err != nil {
		b.Fatal(err)
	}
	keys := storetest.Keys(fields)
	var bare, ours time.Duration
	for b.Loop() {
		err := storetest.WithBare(db, func(bolt *bbolt.DB) error {
			began := time.Now()
			for _, k := range keys {
				err := bolt.View(func(tx *bbolt.Tx) error {
					if tx.Bucket([]byte("b")).Get(k) == nil {
						return errors.New("absent")
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			bare += time.Since(began)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for _, k := range keys {
			err := db.View(func(tx store.Tx) error {
				if tx.Bucket("b").Get(k) == nil {
					return errors.New("absent")
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		ours += time.Since(began)
	}
	n := float64(b.N * len(keys))
	b.ReportMetric(float64(bare.Nanoseconds())/n, "bare-ns")
	b.ReportMetric(float64(ours.Nanoseconds())/n, "store-ns")
	b.ReportMetric(float64(bare)/float64(ours), "x")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCheck: bytes per second of a check of 1M fields in the page cache.
func BenchmarkCheck(b *testing.B) {
	path := filepath.Join(b.TempDir(), "db")
	db, err := store.Open(path, options)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := storetest.Load(db, 1_000_000, 10_000); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(db.Stats().UsedBytes)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := store.Check(path); err != nil {
			b.Fatal(err)
		}
	}
}
