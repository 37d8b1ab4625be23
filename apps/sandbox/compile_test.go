package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// childEngine compiles in a child process: this test binary.
func childEngine(t *testing.T, dir string, change ...func(*EngineConfig)) (*Engine, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg := EngineConfig{CacheDir: dir, Compiler: []string{self, compilerArg}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, c := range change {
		c(&cfg)
	}
	e, err := NewEngine(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return e, &log
}

// load compiles a module and gives it back.
func load(t *testing.T, e *Engine, module []byte) error {
	t.Helper()
	m := moduleOf(module)
	c, err := e.acquire(context.Background(), m)
	if err == nil {
		e.release(context.Background(), m, c)
	}
	return err
}

// cacheFiles lists the cache directory by kind of file.
func cacheFiles(t *testing.T, dir string) (done, code, temp int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case strings.HasPrefix(name, donePrefix):
			done++
		case strings.HasPrefix(name, tempPrefix):
			temp++
		case d.Type().IsRegular():
			code++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return done, code, temp
}

// A child compiles into the cache; the second time there is none.
func TestCompileInChild(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	module := script(nil)
	e, log := childEngine(t, dir)
	if err := load(t, e, module); err != nil {
		t.Fatal(err)
	}
	if done, code, temp := cacheFiles(t, dir); done != 1 || code != 1 || temp != 0 {
		t.Errorf("%d done, %d code, %d temporary", done, code, temp)
	}
	if err := load(t, e, newWasm().guest(0, c32(7))); err != nil {
		t.Fatal(err)
	}

	// Without any compiler to start, what is cached still loads and runs.
	again, log2 := childEngine(t, dir, func(c *EngineConfig) { c.Compiler = []string{filepath.Join(dir, "gone")} })
	r := run(t, again, module)
	if _, err := r.call(t, "x"); err != nil {
		t.Error(err)
	}
	if log.Len()+log2.Len() > 0 {
		t.Errorf("warnings: %s%s", log, log2)
	}

	// With the machine code gone it is compiled anew.
	code, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil || len(code) != 2 {
		t.Fatalf("%q, %v", code, err)
	}
	for _, c := range code {
		if err := os.Remove(c); err != nil {
			t.Fatal(err)
		}
	}
	third, _ := childEngine(t, dir)
	if err := load(t, third, module); err != nil {
		t.Fatal(err)
	}
	if _, code, _ := cacheFiles(t, dir); code != 1 {
		t.Errorf("%d code files", code)
	}
	if err := third.Prune([]Hash{moduleOf(module).Hash}); err != nil {
		t.Fatal(err)
	}
	if done, code, _ := cacheFiles(t, dir); done != 1 || code != 1 {
		t.Errorf("after Prune: %d done, %d code", done, code)
	}
	if err := os.Mkdir(filepath.Join(dir, tempPrefix+"left"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := third.Prune(nil); err != nil {
		t.Fatal(err)
	}
	if done, code, temp := cacheFiles(t, dir); done != 0 || code != 0 || temp != 0 {
		t.Errorf("after Prune: %d done, %d code, %d temporary", done, code, temp)
	}
}

// What the child finds wrong with a module is the error, and nothing is compiled
// in this process instead.
func TestCompileInvalid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	e, _ := childEngine(t, dir)
	err := load(t, e, newWasm().guest(0, "\x6a", c32(0)))
	wantCode(t, err, fault.Invalid, "load the app's module")
	if !strings.Contains(err.Error(), "invalid function") {
		t.Errorf("not wazero's words: %v", err)
	}
	if done, code, temp := cacheFiles(t, dir); done+code+temp > 0 {
		t.Errorf("left over: %d, %d, %d", done, code, temp)
	}
}

// A child that takes too long, dies or cannot be started.
func TestCompileFailures(t *testing.T) {
	module := newWasm().guest(0, c32(0))
	sh := func(script string) func(*EngineConfig) {
		return func(c *EngineConfig) { c.Compiler = []string{"/bin/sh", "-c", script} }
	}
	for name, c := range map[string]struct {
		change func(*EngineConfig)
		code   fault.Code
		text   string
	}{
		"hangs":        {func(c *EngineConfig) { sh("exec sleep 60")(c); c.CompileTime = 100 * time.Millisecond }, fault.Timeout, "longer than 100ms"},
		"dies":         {sh("kill -9 $$"), fault.TooBig, "signal: killed"},
		"out of space": {sh("echo no room >&2; exit 4"), fault.NoSpace, "no room"},
		"babbles":      {sh("head -c 100000 /dev/zero >&2; exit 1"), fault.TooBig, "exit status 1"},
		"does nothing": {sh("exit 0"), fault.Internal, "left 0 files"},
		"wrong place":  {sh("mkdir wazero-other; echo x > wazero-other/y"), fault.Internal, "another version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			e, _ := childEngine(t, dir, c.change)
			began := time.Now()
			err := load(t, e, module)
			wantCode(t, err, c.code, c.text)
			if time.Since(began) > 20*time.Second || len(err.Error()) > 2000 {
				t.Errorf("after %s, %d bytes", time.Since(began), len(err.Error()))
			}
			if _, code, temp := cacheFiles(t, dir); code+temp > 0 {
				t.Errorf("left over: %d, %d", code, temp)
			}
		})
	}
	t.Run("cannot start", func(t *testing.T) {
		e, log := childEngine(t, filepath.Join(t.TempDir(), "cache"), func(c *EngineConfig) { c.Compiler = []string{"/does/not/exist"} })
		r := run(t, e, script(nil))
		if _, err := r.call(t, "x"); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "compiling in this process") {
			t.Errorf("no warning: %s", log)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		e, _ := childEngine(t, filepath.Join(t.TempDir(), "cache"), sh("exec sleep 60"))
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := e.acquire(ctx, moduleOf(module)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestCompileMainUsage(t *testing.T) {
	var out bytes.Buffer
	if code := CompileMain(nil, strings.NewReader(""), &out); code != 2 || !strings.Contains(out.String(), "cache directory") {
		t.Errorf("%d, %q", code, &out)
	}
}

// The compiler's own limit holds: a module whose decoding takes more memory than
// it may use (a list of fifteen million functions, a byte each) ends the child, not
// this process.
func TestCompileMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // there the deadline alone ends it
	}
	const n = 15 << 20
	m := newWasm()
	m.table(1, -1)
	body := append(append([]byte{1, 0}, c32(0)...), 0x0b)
	body = append(leb(body, n), make([]byte, n)...)
	m.extra = append(leb([]byte{secElem}, uint64(len(body))), body...)
	e, _ := childEngine(t, filepath.Join(t.TempDir(), "cache"))
	wantCode(t, load(t, e, m.guest(0, c32(0))), fault.TooBig, "allocate")
}

// Tampered bytes are not run.
func TestWrongHash(t *testing.T) {
	e := newTestEngine(t)
	m := moduleOf(newWasm().guest(0, c32(0)))
	m.Read = func(context.Context) ([]byte, error) { return newWasm().guest(0, c32(1)), nil }
	_, err := e.acquire(context.Background(), m)
	wantCode(t, err, fault.Untrusted, "hash")
	m.Read = func(context.Context) ([]byte, error) { return nil, io.ErrUnexpectedEOF }
	if _, err = e.acquire(context.Background(), m); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if len(e.code) > 0 {
		t.Error("failures are kept")
	}
}

// The cache directory holds machine code: it is the owner's alone.
func TestPrivateDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "cache")
	if err := privateDir(dir); err != nil {
		t.Fatal(err)
	}
	mode := func() fs.FileMode {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if mode() != 0o700 {
		t.Errorf("mode %o", mode())
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(dir); err != nil || mode() != 0o700 {
		t.Errorf("mode %o, %v", mode(), err)
	}
	file := filepath.Join(filepath.Dir(dir), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(file); err == nil {
		t.Error("a file passed for a directory")
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	wantCode(t, privateDir(link), fault.Conflict, "not a directory")
}

// A real guest compiles within the child's limits.
func TestCompileGoGuest(t *testing.T) {
	e, log := childEngine(t, filepath.Join(t.TempDir(), "cache"))
	if err := load(t, e, goModule(t)); err != nil || log.Len() > 0 {
		t.Errorf("%v, %s", err, log)
	}
}
