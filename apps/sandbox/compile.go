package sandbox

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// The cache directory:
//
//	wazero-<version>-<arch>-<os>/<key>   machine code, wazero's own layout
//	done-<sha256 of the module>.<n>      text: the path of its machine code; n is inspectVersion
//	compile-<random>/                    where a child compiles; moved over when it succeeded
//
// A child never writes into the live cache, so what a killed one leaves is never
// loaded.
const (
	donePrefix = "done-"
	tempPrefix = "compile-"
)

// Exit codes of the compiler's process.
const (
	exitInvalid = 3 // the module is not valid; standard error says why
	exitFailed  = 4 // the cache could not be written
)

// inspectVersion counts changes to what inspect makes of a module: code compiled
// from another outcome is not looked for.
const inspectVersion = 1

func doneName(h Hash) string {
	return fmt.Sprintf("%s%s.%d", donePrefix, hex.EncodeToString(h[:]), inspectVersion)
}

// maxComplaint bounds what is kept of a compiler's standard error.
const maxComplaint = 4 << 10

// privateDir makes dir for its owner alone. What lies there runs as machine code
// in this process: whoever could write it would be this process.
func privateDir(dir string) error {
	const op, hint = "open the cache of compiled apps", "remove that directory or name another"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(err, op, "")
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fault.Wrap(err, op, "")
	}
	if !info.IsDir() {
		return fault.New(fault.Conflict, op, hint, "%s is not a directory", fault.Quote(dir))
	}
	if !ownedByUs(info) {
		return fault.New(fault.Denied, op, hint, "%s belongs to another user", fault.Quote(dir))
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fault.Wrap(err, op, hint)
		}
	}
	return nil
}

// fill sees that the disk cache holds a module's machine code, compiling it in a
// child process if it does not. hash is that of the module as it came, module
// what inspect made of it. One at a time: the caller holds e.compiling.
func (e *Engine) fill(ctx context.Context, hash Hash, module []byte) error {
	if len(e.cfg.Compiler) == 0 {
		return nil
	}
	done := filepath.Join(e.cfg.CacheDir, doneName(hash))
	if name, err := os.ReadFile(done); err == nil && e.cached(string(name)) {
		return nil
	}
	temp, err := os.MkdirTemp(e.cfg.CacheDir, tempPrefix)
	if err != nil {
		return fault.Wrap(err, "compile the app", "")
	}
	defer func() { _ = os.RemoveAll(temp) }() // a leftover is swept by Prune
	started, err := e.compile(ctx, temp, module)
	if err != nil && !started {
		// Nothing is wrong with the module: the executable may have been replaced
		// by an update. Compile here, where it cannot be stopped, rather than not
		// at all.
		e.log.Warn("cannot start the app compiler, compiling in this process", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	name, err := e.adopt(temp)
	if err != nil {
		return fault.Wrap(err, "keep the compiled app", "")
	}
	return fault.Wrap(atomicfile.Write(done, []byte(name)), "keep the compiled app", "")
}

// cached reports whether a name that adopt gave is still there.
func (e *Engine) cached(name string) bool {
	if !filepath.IsLocal(name) {
		return false
	}
	info, err := os.Lstat(filepath.Join(e.cfg.CacheDir, name))
	return err == nil && info.Mode().IsRegular()
}

// adopt moves what the child compiled into the live cache and returns its name.
func (e *Engine) adopt(temp string) (string, error) {
	found, err := filepath.Glob(filepath.Join(temp, "wazero-*", "*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("the compiler left %d files", len(found))
	}
	name, err := filepath.Rel(temp, found[0])
	if err != nil {
		return "", err
	}
	to := filepath.Join(e.cfg.CacheDir, name)
	if _, err := os.Stat(filepath.Dir(to)); err != nil {
		return "", errors.New("the compiler is of another version than this program: restart it")
	}
	return name, os.Rename(found[0], to)
}

// compile runs the child. started is false if there was no child to run.
func (e *Engine) compile(parent context.Context, dir string, module []byte) (started bool, err error) {
	ctx, cancel := context.WithTimeout(parent, e.cfg.CompileTime)
	defer cancel()
	args := append(append([]string(nil), e.cfg.Compiler[1:]...), dir)
	cmd := exec.CommandContext(ctx, e.cfg.Compiler[0], args...)
	// Nothing of this process's environment: it may hold secrets, and the child
	// reads hostile input.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=50"}
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(module)
	complaint := &capped{limit: maxComplaint}
	cmd.Stderr = complaint
	cmd.WaitDelay = 5 * time.Second
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	err = cmd.Wait()
	exit, isExit := errors.AsType[*exec.ExitError](err)
	text := strings.TrimSpace(complaint.String())
	switch {
	case err == nil:
		return true, nil
	case parent.Err() != nil:
		return true, parent.Err()
	case ctx.Err() != nil:
		return true, fault.New(fault.Timeout, "compile the app", "ask the app's publisher for a smaller build",
			"it took longer than %s", e.cfg.CompileTime)
	case isExit && exit.ExitCode() == exitInvalid:
		return true, invalidModule(errors.New(fault.Quote(text)))
	case isExit && exit.ExitCode() == exitFailed:
		return true, fault.New(fault.NoSpace, "compile the app", "see that the disk has room", "%s", fault.Quote(text))
	}
	return true, fault.New(fault.TooBig, "compile the app", "ask the app's publisher for a smaller build",
		"the compiler ended with %w: %s", err, fault.Quote(text))
}

// capped is a writer that keeps the first limit bytes.
type capped struct {
	bytes.Buffer
	limit int
}

func (c *capped) Write(b []byte) (int, error) {
	c.Buffer.Write(b[:min(len(b), c.limit-c.Len())])
	return len(b), nil
}

// CompileMain is the compiler's process: it reads a module from in, compiles it
// into the cache directory args[0], and returns the exit code. It limits its own
// memory and time first. The command that an Engine is given as its Compiler
// calls it with the arguments that follow that command, standard input and
// standard error.
func CompileMain(args []string, in io.Reader, complain io.Writer) int {
	code, err := compileMain(args, in)
	if err != nil {
		fmt.Fprintln(complain, err)
	}
	return code
}

func compileMain(args []string, in io.Reader) (int, error) {
	if len(args) != 1 {
		return 2, errors.New("want one argument: the cache directory")
	}
	if err := limitSelf(); err != nil {
		return exitFailed, err
	}
	module, err := io.ReadAll(io.LimitReader(in, MaxModule+1<<20))
	if err != nil {
		return exitFailed, err
	}
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(args[0])
	if err != nil {
		return exitFailed, err
	}
	defer func() { _ = cache.Close(ctx) }() // the process ends anyway
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(cache))
	if _, err := rt.CompileModule(ctx, module); err != nil {
		if _, isPath := errors.AsType[*fs.PathError](err); isPath {
			return exitFailed, err
		}
		return exitInvalid, err
	}
	return 0, nil
}

// Prune removes the compiled code of modules that are not in keep, and what
// interrupted compilations left. Call it while no Actor starts.
func (e *Engine) Prune(keep []Hash) error {
	const op = "clean the cache of compiled apps"
	wanted := map[string]bool{}
	for _, h := range keep {
		wanted[doneName(h)] = true
	}
	entries, err := os.ReadDir(e.cfg.CacheDir)
	if err != nil {
		return fault.Wrap(err, op, "")
	}
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(e.cfg.CacheDir, entry.Name())
		switch {
		case strings.HasPrefix(entry.Name(), tempPrefix):
			errs = append(errs, os.RemoveAll(path))
		case strings.HasPrefix(entry.Name(), donePrefix) && !wanted[entry.Name()]:
			if name, err := os.ReadFile(path); err == nil && e.cached(string(name)) {
				errs = append(errs, os.Remove(filepath.Join(e.cfg.CacheDir, string(name))))
			}
			errs = append(errs, os.Remove(path))
		}
	}
	return fault.Wrap(errors.Join(errs...), op, "")
}
