package atomicfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriteNew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "vault")
	if err := Write(name, []byte("one")); err != nil {
		t.Fatal(err)
	}
	requireFile(t, name, "one", 0o600)
	requireAlone(t, name)
}

func TestWriteKeepsMode(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o644, 0o640, 0o400, 0o755} {
		name := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(name, []byte("a longer old content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if err := Write(name, []byte("new")); err != nil {
			t.Fatal(err)
		}
		requireFile(t, name, "new", mode)
		requireAlone(t, name)
	}
}

// TestRelativeName writes a name without a folder.
func TestRelativeName(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Write("plain", []byte("x")); err != nil {
		t.Fatal(err)
	}
	requireFile(t, "plain", "x", 0o600)
}

func TestRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	// A socket of the test's own stands for everything else: were the check to
	// fail for a device of the machine, run as root this would replace it.
	t.Chdir(dir) // a socket's path is short
	l, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]string{link: "a symbolic link", dir: "a folder", "socket": "socket"} {
		if err := Write(name, []byte("new")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Write(%s) = %v, want an error that says %q", name, err, want)
		}
	}
	requireFile(t, target, "old", 0o600)
}

func TestMissingFolder(t *testing.T) {
	err := Write(filepath.Join(t.TempDir(), "none", "x"), nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write into a missing folder = %v, want fs.ErrNotExist", err)
	}
}

func TestNothingSeenBeforeCommit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	f, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the name before Commit: %v, want fs.ErrNotExist", err)
	}
	requireFile(t, f.tmp.Name(), "secret", 0o600)
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	requireFile(t, name, "secret", 0o600)
	requireAlone(t, name)
}

func TestCloseGivesUp(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	requireFile(t, name, "old", 0o600)
	requireAlone(t, name)
	if _, err := f.Write(nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Close = %v, want fs.ErrClosed", err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Close = %v, want fs.ErrClosed", err)
	}
}

// TestReadersSeeWholeFiles reads while others write.
func TestReadersSeeWholeFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	contents := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000)}
	if err := Write(name, []byte(contents[0])); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, c := range contents {
		wg.Go(func() {
			for range 20 {
				if err := Write(name, []byte(c)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		if !slices.Contains(contents, string(got)) {
			t.Errorf("a reader saw %d bytes that nobody wrote", len(got))
		}
	}
	wg.Wait()
	requireAlone(t, name)
}

// recorder is a real disk that notes each step and fails at one of them.
type recorder struct {
	realDisk
	steps []string
	fail  string
}

var errPlanted = errors.New("planted")

func (r *recorder) step(name string) error {
	r.steps = append(r.steps, name)
	if name == r.fail {
		return errPlanted
	}
	return nil
}

func (r *recorder) createTemp(dir, pattern string) (handle, error) {
	if err := r.step("create"); err != nil {
		return nil, err
	}
	h, err := r.realDisk.createTemp(dir, pattern)
	return &recorded{h, r}, err
}

func (r *recorder) rename(from, to string) error {
	if err := r.step("rename"); err != nil {
		return err
	}
	return r.realDisk.rename(from, to)
}

func (r *recorder) syncDir(dir string) error {
	return errors.Join(r.step("sync folder"), r.realDisk.syncDir(dir))
}

type recorded struct {
	handle
	r *recorder
}

func (h *recorded) Write(p []byte) (int, error) {
	if err := h.r.step("write"); err != nil {
		n, _ := h.handle.Write(p[:len(p)/2]) // a disk that fills up takes a part
		return n, err
	}
	return h.handle.Write(p)
}
func (h *recorded) Chmod(m fs.FileMode) error {
	return errors.Join(h.r.step("chmod"), h.handle.Chmod(m))
}
func (h *recorded) Sync() error  { return errors.Join(h.r.step("sync"), h.handle.Sync()) }
func (h *recorded) Close() error { return errors.Join(h.r.step("close"), h.handle.Close()) }

func (r *recorder) replace(name, data string) error {
	f, err := create(name, r)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte(data)); err != nil {
		return err
	}
	return f.Commit()
}

// TestOrder pins what makes a replacement durable: the content is synced
// before its name is, and the folder after.
func TestOrder(t *testing.T) {
	r := &recorder{}
	if err := r.replace(filepath.Join(t.TempDir(), "x"), "new"); err != nil {
		t.Fatal(err)
	}
	want := []string{"create", "write", "chmod", "sync", "close", "rename", "sync folder"}
	if diff := cmp.Diff(want, r.steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestFailureAtEachStep(t *testing.T) {
	for _, step := range []string{"create", "write", "chmod", "sync", "close", "rename", "sync folder"} {
		t.Run(step, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(name, []byte("old"), 0o640); err != nil {
				t.Fatal(err)
			}
			err := (&recorder{fail: step}).replace(name, "new")
			if !errors.Is(err, errPlanted) {
				t.Errorf("error %v, want the planted one", err)
			}
			want := "old"
			var se *SyncError
			if errors.As(err, &se) {
				want = "new"
			}
			if isSync := se != nil; isSync != (step == "sync folder") {
				t.Errorf("the error %v is a SyncError: %v", err, isSync)
			}
			requireFile(t, name, want, 0o640)
			requireAlone(t, name)
		})
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	keep := []string{"x", ".hidden", "x.tmp-1", ".x.tmp-", ".x.tmp-1a", ".tmp-12", ".x.tmp-1.bak"}
	for _, base := range append(slices.Clone(keep), ".x.tmp-12", ".a.b.tmp-0", ".x.tmp-1.tmp-2") {
		if err := os.WriteFile(filepath.Join(dir, base), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".d.tmp-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := Create(filepath.Join(dir, "y")) // a writer that dies here
	if err != nil {
		t.Fatal(err)
	}
	f.tmp.Close()
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	want := append(keep, ".d.tmp-1")
	slices.Sort(want)
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("left after Sweep (-want +got):\n%s", diff)
	}
	if err := Sweep(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sweep of a missing folder = %v, want fs.ErrNotExist", err)
	}
}

func requireFile(t *testing.T, name, content string, mode fs.FileMode) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != mode && runtime.GOOS != "windows" {
		t.Errorf("%s has mode %v, want %v", name, got, mode)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content {
		t.Errorf("%s holds %.20q, want %.20q", name, got, content)
	}
}

// requireAlone fails if anything but name is in its folder.
func requireAlone(t *testing.T, name string) {
	t.Helper()
	if got := names(t, filepath.Dir(name)); !slices.Equal(got, []string{filepath.Base(name)}) {
		t.Errorf("the folder holds %q, want only %q", got, filepath.Base(name))
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
