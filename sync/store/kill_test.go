package store_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peers-run/peers-runtime/sync/store"
)

// killEnv makes the test binary the process that is killed.
const killEnv = "STORE_TEST_KILL"

func TestMain(m *testing.M) {
	if path := os.Getenv(killEnv); path != "" {
		if err := victim(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// victim writes for ever, with several writers and a bulk, and says on stdout
// what is durable: "writer n". Every transaction also counts itself in two
// buckets, which must never differ.
func victim(path string) error {
	db, err := store.Open(path, options)
	if err != nil {
		return err
	}
	w := store.NewWriter(db, store.WriterConfig{Finish: func(tx store.Tx) error {
		for _, name := range []string{"count", "count again"} {
			b := tx.Bucket(name)
			n := uint64(1)
			if v := b.Get([]byte("n")); v != nil {
				n += binary.BigEndian.Uint64(v)
			}
			if err := b.Put([]byte("n"), binary.BigEndian.AppendUint64(nil, n)); err != nil {
				return err
			}
		}
		return nil
	}})
	var out sync.Mutex
	for g := range 4 {
		go func() {
			for n := 0; ; n++ {
				err := w.Do(context.Background(), store.JobFunc(func(tx store.Tx) error {
					b := tx.Bucket(fmt.Sprint("w", g))
					if err := b.Put([]byte("last"), strconv.AppendInt(nil, int64(n), 10)); err != nil {
						return err
					}
					return b.Put(fmt.Appendf(nil, "%d", n%50), make([]byte, n*97%5000))
				}))
				out.Lock()
				fmt.Println(g, n, err)
				out.Unlock()
			}
		}()
	}
	return w.Run(context.Background())
}

// TestKill9 kills a writing process at random moments and looks whether all it
// said is there.
func TestKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	rng := rand.New(rand.NewPCG(1, 2))
	total := 0
	for round := range 12 {
		said := kill(t, path, 10+rng.IntN(60))
		for _, n := range said {
			total += n + 1
		}
		if err := store.Check(path); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		db, err := store.Open(path, options)
		if err != nil {
			t.Fatal(err)
		}
		got, err := dump(db)
		if err != nil {
			t.Fatal(err)
		}
		for g, n := range said {
			last, err := strconv.Atoi(got[fmt.Sprintf("w%d/last", g)])
			if err != nil || last != n && last != n+1 {
				t.Errorf("round %d: writer %d was told of %d, the file has %d, %v", round, g, n, last, err)
			}
		}
		if got["count/n"] != got["count again/n"] {
			t.Errorf("round %d: half a transaction: %x and %x", round, got["count/n"], got["count again/n"])
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total < 100 {
		t.Errorf("only %d commits were acknowledged: the test says nothing", total)
	}
}

// kill starts a victim, kills it after lines answers, and returns the last
// answer to each of its writers.
func kill(t *testing.T, path string, lines int) map[int]int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	said := map[int]int{}
	in := bufio.NewScanner(out)
	for n := 1; in.Scan(); n++ {
		var g, i int
		var verdict string
		if _, err := fmt.Sscan(in.Text(), &g, &i, &verdict); err != nil || verdict != "<nil>" {
			t.Errorf("the victim said %q", in.Text())
		}
		said[g] = i
		if n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if len(said) == 0 {
		t.Fatal("the victim said nothing")
	}
	return said
}
