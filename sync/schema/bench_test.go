package schema

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/sync/record"
)

// bolt is a Source over a bbolt file as the group engine lays it out: records
// in one bucket, index keys in another.
type bolt struct{ state, index *bbolt.Bucket }

func (b *bolt) Scan(lo, hi []byte, descending bool, yield func(key []byte) bool) {
	c := b.index.Cursor()
	if !descending {
		for k, _ := c.Seek(lo); k != nil && bytes.Compare(k, hi) < 0 && yield(k); k, _ = c.Next() {
		}
		return
	}
	k, _ := c.Seek(hi)
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	for ; k != nil && bytes.Compare(k, lo) >= 0 && yield(k); k, _ = c.Prev() {
	}
}

func (b *bolt) Load(c record.CollectionID, id record.ID, into *record.State) (bool, error) {
	var room [18]byte
	key := append(append(room[:0], byte(c>>8), byte(c)), id[:]...)
	v := b.state.Get(key)
	return v != nil, record.DecodeState(v, 1, into)
}

// loadCities fills a database with all cities and gives the time spent on index
// keys alone.
func loadCities(b *testing.B, states []*record.State) (db *bbolt.DB, entries int, keys time.Duration) {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "cities.db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, InitialMmapSize: 1 << 28})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	x := NewIndexer(&citySchema().Collections[0])
	var e Entries
	const chunk = 5000
	for n := 0; n < len(states); n += chunk {
		err := db.Update(func(tx *bbolt.Tx) error {
			state, err := tx.CreateBucketIfNotExists([]byte("state"))
			if err != nil {
				return err
			}
			index, err := tx.CreateBucketIfNotExists([]byte("index"))
			if err != nil {
				return err
			}
			start := time.Now()
			e.Reset()
			for i, s := range states[n:min(n+chunk, len(states))] {
				x.Append(&e, testID(n+i), s)
			}
			e.Sort()
			keys += time.Since(start)
			entries += e.Len()
			for key := range e.All() {
				if err := index.Put(key, nil); err != nil {
					return err
				}
			}
			for i, s := range states[n:min(n+chunk, len(states))] {
				id := testID(n + i)
				if err := state.Put(append([]byte{0, byte(cityCollection)}, id[:]...), s.Append(nil)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return db, entries, keys
}

// BenchmarkCities asks a database of all 171,075 cities what the atlas asks. It
// needs the folder that PEERS_DATA_DIR names, and takes the committed extract
// without it.
func BenchmarkCities(b *testing.B) {
	path := filepath.Join(os.Getenv("PEERS_DATA_DIR"), "cities.csv")
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join("testdata", "cities.csv")
	}
	states := readCities(b, path)
	start := time.Now()
	db, entries, keys := loadCities(b, states)
	b.Logf("%d records, %d entries: keys %v (%.0f ns a record), all %v", len(states), entries, keys, float64(keys)/float64(len(states)), time.Since(start))
	for _, c := range []struct {
		name string
		q    Query
	}{
		{"prefix san", Query{Index: 1, Prefix: "san"}},
		{"prefix s", Query{Index: 1, Prefix: "s"}},
		{"prefix sao paulo", Query{Index: 1, Prefix: "são paulo"}},
		{"country and order", Query{Index: 2, Equal: []record.Value{record.Text("US")}}},
		{"backwards", Query{Index: 1, Prefix: "s", Descending: true}},
		{"words s", Query{Index: 3, Words: "s"}},
		{"words sa", Query{Index: 3, Words: "sa"}},
		{"words sao pau", Query{Index: 3, Words: "sao pau"}},
		{"words san a", Query{Index: 3, Words: "san a"}},
		{"words de la", Query{Index: 3, Words: "de la"}},
		{"words de z", Query{Index: 3, Words: "de z"}},
		{"words santa maria de la", Query{Index: 3, Words: "santa maria de la"}},
		{"words nothing", Query{Index: 3, Words: "qqqq de la"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.q.Collection, c.q.Limit = cityCollection, 50
			var times []time.Duration
			rows := 0
			for b.Loop() {
				start := time.Now()
				err := db.View(func(tx *bbolt.Tx) error {
					p, err := c.q.Plan(citySchema())
					if err != nil {
						return err
					}
					page, err := p.Run(&bolt{tx.Bucket([]byte("state")), tx.Bucket([]byte("index"))})
					rows = len(page.Rows)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(rows), "rows")
		})
	}
	b.Run("count prefix s", func(b *testing.B) {
		q := Query{Collection: cityCollection, Index: 1, Prefix: "s"}
		n := 0
		for b.Loop() {
			err := db.View(func(tx *bbolt.Tx) error {
				p, err := q.Plan(citySchema())
				if err != nil {
					return err
				}
				n, _, err = p.Count(&bolt{tx.Bucket([]byte("state")), tx.Bucket([]byte("index"))}, 0)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(n), "records")
	})
}
