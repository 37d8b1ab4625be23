package sandbox

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// differSchema is what testdata/differ works on.
func differSchema() *schema.Schema {
	var fields []schema.Field
	for i, k := range []record.Kind{
		record.KindText, record.KindBool, record.KindInt, record.KindTime, record.KindFloat, record.KindBytes, record.KindRef, record.KindCompound,
	} {
		fields = append(fields, schema.Field{ID: record.FieldID(i + 1), Name: fmt.Sprintf("f%d", i+1), Kind: k})
	}
	index := func(id uint8, kind schema.IndexKind, fields ...record.FieldID) schema.Index {
		return schema.Index{ID: id, Name: fmt.Sprintf("i%d", id), Kind: kind, Fields: fields}
	}
	return &schema.Schema{Collections: []schema.Collection{{ID: notes, Name: "notes", Fields: fields, Indexes: []schema.Index{
		index(1, schema.Ordered, 1, 3), index(2, schema.Words, 1), index(3, schema.Ordered, 4), index(4, schema.Ordered, 5),
		index(5, schema.Ordered, 3, 1), index(6, schema.Ordered, 7),
	}}}}
}

func buildDiffer(t *testing.T, out string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", out}, args...), ".")...)
	cmd.Dir = filepath.Join("testdata", "differ")
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if len(args) > 0 {
		cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatal((&buildError{string(text), err}).Error())
	}
}

// The SDK's test host answers an app as the runtime does: the same random walks
// see the same on both.
func TestTestHostIsLikeTheRuntime(t *testing.T) {
	const hosts, walks = 12, 40
	dir := t.TempDir()
	native, wasm := filepath.Join(dir, "differ"), filepath.Join(dir, "differ.wasm")
	buildDiffer(t, native)
	buildDiffer(t, wasm, "-ldflags=-s -w", "-buildmode=c-shared")
	out, err := exec.Command(native, strconv.Itoa(hosts), strconv.Itoa(walks)).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != hosts*walks {
		t.Fatalf("%d lines", len(lines))
	}
	module, err := os.ReadFile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	e := newTestEngine(t)
	failed := 0
	for h := range hosts {
		r := runWorld(t, e, hostabitest.NewWorld(differSchema(), hostabitest.NewClock()), module)
		for i := range walks {
			n := h*walks + i
			got, err := r.call(t, string(binary.LittleEndian.AppendUint64(nil, uint64(n))))
			if err != nil {
				got = "refused: " + err.Error()
			}
			want, err := strconv.Unquote(lines[n])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(got, "\n"), strings.Split(want, "\n")); d != "" {
				if failed++; failed > 5 {
					t.Fatal("and more")
				}
				t.Errorf("host %d, walk %d (-runtime +test host)\n%s", h, i, d)
				break // what follows differs by what was done
			}
		}
		r.stop(t)
	}
}
