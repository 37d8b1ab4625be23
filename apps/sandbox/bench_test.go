package sandbox

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// calls is how many host calls one event of the benchmark guest makes.
const benchCalls = 1000

// benchGuest calls f benchCalls times with constant arguments on each CALL.
func benchGuest(m *wasmModule, args ...string) []byte {
	// Local 3 counts down.
	code := []string{c64(benchCalls), set(3), "\x03\x40"}
	code = append(code, args...)
	code = append(code, drop, get(3), c64(1), "\x7d", "\x22\x03", "\x50\x45", brIf(0), "\x0b") // i64.sub, tee, eqz eqz
	return onCall(m, code...)
}

// boltStore is a bbolt read of one record a transaction, as a Source.
type boltStore struct {
	*hostabitest.Memory
	db *bbolt.DB
}

type boltSource struct {
	schema.Source
	b *bbolt.Bucket
}

func (s boltStore) View(_ context.Context, read func(schema.Source) error) error {
	return s.db.View(func(tx *bbolt.Tx) error { return read(&boltSource{b: tx.Bucket([]byte("r"))}) })
}

func (s *boltSource) Load(c record.CollectionID, id record.ID, into *record.State) (bool, error) {
	key := append([]byte{byte(c >> 8), byte(c)}, id[:]...)
	v := s.b.Get(key)
	if v == nil {
		*into = record.State{Cells: into.Cells[:0]}
		return false, nil
	}
	return true, record.DecodeState(v, 1, into)
}

func benchBolt(b *testing.B) (*bbolt.DB, []byte) {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	st := record.State{Insert: record.Stamp{Time: 1}, Cells: []record.StoredCell{
		{Field: 1, Stamp: record.Stamp{Time: 1}, Value: record.Text("a title of some length, say forty chars")},
		{Field: 2, Stamp: record.Stamp{Time: 1}, Value: record.Bool(true)},
		{Field: 3, Stamp: record.Stamp{Time: 1}, Value: record.Int(1234567)},
	}}
	key := append([]byte{0, byte(notes)}, make([]byte, 16)...)
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucket([]byte("r"))
		if err != nil {
			return err
		}
		for i := range 100_000 {
			k := append([]byte(nil), key...)
			k[2], k[3], k[4] = byte(i>>16), byte(i>>8), byte(i)
			if err := bucket.Put(k, st.Append(nil)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return db, key
}

// BenchmarkCall is app.call: a guest's db get, hot, all the way through hostabi to
// bbolt, against a bare wazero host call that does the same bbolt get and copies
// the value, both under the same cancellation. One op is one get.
func BenchmarkCall(b *testing.B) {
	db, key := benchBolt(b)
	b.Run("peers", func(b *testing.B) {
		e := newTestEngine(b)
		w := hostabitest.NewWorld(testSchema(), hostabitest.NewRunningClock())
		app := hostabi.New(hostabi.Config{Info: hostabi.Info{App: "bench"}, Schema: testSchema(),
			Store: boltStore{w.Store, db}, Clock: w.Clock, Random: w.App.Random(), Log: w.Log})
		app.SetGrants(hostabi.Grant(hostabi.Capabilities()...))
		w.App = app
		m := newWasm()
		get := m.host(hostabi.FnDBGet)
		r := runWorld(b, e, w, benchGuest(m, c32(int64(notes)), c32(0x100), c32(0x200), c32(512), call(get)))
		benchLoop(b, func() error { _, err := r.actor.Call(context.Background(), 1, nil); return err })
	})
	b.Run("bare", func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
		defer rt.Close(ctx)
		_, err := rt.NewHostModuleBuilder("peers:db/v1").NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(
			func(_ context.Context, mod api.Module, stack []uint64) {
				_ = db.View(func(tx *bbolt.Tx) error {
					v := tx.Bucket([]byte("r")).Get(key)
					mod.Memory().Write(uint32(stack[2]), v)
					stack[0] = uint64(len(v))
					return nil
				})
			}), []api.ValueType{api.ValueTypeI32, api.ValueTypeI32, api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).
			Export("get").Instantiate(ctx)
		if err != nil {
			b.Fatal(err)
		}
		m := newWasm()
		get := m.host(hostabi.FnDBGet)
		mod, err := rt.Instantiate(ctx, benchGuest(m, c32(int64(notes)), c32(0x100), c32(0x200), c32(512), call(get)))
		if err != nil {
			b.Fatal(err)
		}
		entry := mod.ExportedFunction("peers_event")
		stack := make([]uint64, 3)
		benchLoop(b, func() error {
			stack[0] = uint64(hostabi.EventCall)
			return entry.CallWithStack(ctx, stack)
		})
	})
}

// benchLoop reports the time of one host call, not of one event.
func benchLoop(b *testing.B, event func() error) {
	if err := event(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += benchCalls {
		if err := event(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvent is one CALL: mailbox, watchdog, transaction, reply.
func BenchmarkEvent(b *testing.B) {
	m := newWasm()
	reply := m.host(hostabi.FnCoreReply)
	r := run(b, newTestEngine(b), onCall(m, c32(0), c32(64), call(reply), drop))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.actor.Call(context.Background(), 1, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is app.start: from nothing in memory to the end of INIT, machine
// code from the disk cache.
func BenchmarkStart(b *testing.B) {
	for name, module := range map[string][]byte{"go": goModule(b), "wasm": script(nil)} {
		b.Run(name, func(b *testing.B) {
			e := newTestEngine(b)
			warm := run(b, e, module)
			if _, err := warm.call(b, "info"); err != nil {
				b.Fatal(err)
			}
			warm.stop(b)
			b.ResetTimer()
			for range b.N {
				w := hostabitest.NewWorld(testSchema(), hostabitest.NewRunningClock())
				b.StopTimer()
				a, err := NewActor(Config{Engine: e, App: w.App, Name: "bench", Module: moduleOf(module), StartTime: time.Minute})
				if err != nil {
					b.Fatal(err)
				}
				if a.guest, err = w.App.NewGuest(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := a.start(context.Background()); err != nil || a.in == nil {
					b.Fatal(err)
				}
				b.StopTimer()
				a.dropCurrent()
				b.StartTimer()
			}
		})
	}
}
