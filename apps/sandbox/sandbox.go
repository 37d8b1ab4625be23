// Package sandbox runs apps' WASM modules: one Actor per app and group, each with
// at most one instance, in one wazero runtime (the Engine).
//
// # What is trusted
//
// A module is not. Before wazero sees it, inspect checks its size, imports,
// exports, memory and tables; wazero validates the rest. It is compiled in a
// child process that can be killed and has memory and time limits, one at a
// time; the child fills the disk cache, which holds machine code and so is
// readable and writable by its owner alone.
//
// # How a guest is held
//
//   - Memory: an address range of its own, reserved at its limit; growing past it
//     fails, and it is unmapped when the instance goes.
//   - Tables: capped before compilation.
//   - Time: each event runs under a watchdog; wazero checks at loop heads and
//     calls whether it fired. A loop in the guest would otherwise stop the whole
//     process, since Go's collector cannot interrupt machine code that is not Go's.
//   - Stack: wazero's own limit.
//   - Everything else goes through hostabi, whose functions are bounded.
//
// A trap, an exit or a time-out discards the instance and rolls its event back.
// The next start waits 1 s, then twice as long each time up to 5 min; five
// crashes within ten minutes suspend the app until a person resumes it.
//
// # Concurrency
//
// An instance belongs to its Actor's Run. Engine and the Actor's other methods
// are safe for concurrent use. Nothing here starts a goroutine that outlives Run
// or Close.
package sandbox

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// Memory limits of an instance in bytes.
const (
	DefaultMemory = 32 << 20
	MaxMemory     = 256 << 20
)

// EngineConfig is what an Engine is made of.
type EngineConfig struct {
	// CacheDir holds compiled code and is made with mode 0700. Required.
	CacheDir string

	// Compiler is the command that runs CompileMain, to which the arguments are
	// appended: this executable and its hidden subcommand. Empty: modules are
	// compiled in this process, where nothing can stop it.
	Compiler []string

	// CompileTime bounds a compilation; 0 means a minute.
	CompileTime time.Duration

	// Log takes what concerns the host. nil discards.
	Log *slog.Logger
}

// An Engine compiles modules and holds what instances share: the wazero runtime,
// the host's functions and the compiled code, by hash. It is safe for concurrent
// use.
type Engine struct {
	// Set by NewEngine, never changed.
	cfg   EngineConfig
	log   *slog.Logger
	rt    wazero.Runtime
	cache wazero.CompilationCache
	host  map[string]signature

	// compiling has room for one: compilations take turns.
	compiling chan struct{}

	mu   sync.Mutex // guards code; never held while compiling
	code map[Hash]*code
}

// A Hash is the SHA-256 of a module.
type Hash [sha256.Size]byte

// A Module is a guest's code: its hash, and how to read it when it is needed.
type Module struct {
	Hash Hash
	Read func(ctx context.Context) ([]byte, error)
}

// code is a compiled module and who uses it.
type code struct {
	ready chan struct{} // closed when the fields below are set
	err   error
	mod   wazero.CompiledModule
	shape *shape

	refs int // guarded by Engine.mu
}

// Compiled says whether guests run as machine code here. Where wazero has no
// compiler they are interpreted, 60 to 90 times slower.
func Compiled() bool {
	switch runtime.GOARCH {
	case "amd64", "arm64":
	default:
		return false
	}
	switch runtime.GOOS {
	case "linux", "darwin", "freebsd", "netbsd", "dragonfly", "windows":
		return true
	}
	return false
}

// runtimeConfig is the same in the compiler's process: it is part of the cache's
// key. Debug information is left off: it would be one more decoder of hostile
// input, and names of functions come from elsewhere.
func runtimeConfig(cache wazero.CompilationCache) wazero.RuntimeConfig {
	return wazero.NewRuntimeConfig().
		WithCompilationCache(cache).
		WithCoreFeatures(api.CoreFeaturesV2).
		WithCloseOnContextDone(true).
		WithMemoryLimitPages(MaxMemory / pageSize).
		WithDebugInfoEnabled(false)
}

// NewEngine makes an Engine over a cache directory. Close it.
func NewEngine(ctx context.Context, cfg EngineConfig) (*Engine, error) {
	if cfg.CompileTime == 0 {
		cfg.CompileTime = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := privateDir(cfg.CacheDir); err != nil {
		return nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(cfg.CacheDir)
	if err != nil {
		return nil, fault.Wrap(err, "open the cache of compiled apps", "")
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log, cache: cache, host: hostSignatures(),
		rt:        wazero.NewRuntimeWithConfig(ctx, runtimeConfig(cache)),
		compiling: make(chan struct{}, 1),
		code:      map[Hash]*code{},
	}
	if err := link(ctx, e.rt); err != nil {
		return nil, fault.Wrap(fmt.Errorf("link the host's functions: %w", err), "start the sandbox", "")
	}
	return e, nil
}

// Close frees everything. No Actor may run any more.
func (e *Engine) Close(ctx context.Context) error {
	err := e.rt.Close(ctx)
	if err2 := e.cache.Close(ctx); err == nil {
		err = err2
	}
	return err
}

// acquire gives a module's compiled code, compiling it if nobody else has. Pair
// it with release.
func (e *Engine) acquire(ctx context.Context, m Module) (*code, error) {
	e.mu.Lock()
	c, there := e.code[m.Hash]
	if !there {
		c = &code{ready: make(chan struct{})}
		e.code[m.Hash] = c
	}
	c.refs++
	e.mu.Unlock()
	if !there {
		c.mod, c.shape, c.err = e.load(ctx, m)
		if c.err != nil {
			// Whoever comes later tries again; those who wait share the failure.
			e.mu.Lock()
			delete(e.code, m.Hash)
			e.mu.Unlock()
		}
		close(c.ready)
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		e.release(ctx, m, c)
		return nil, ctx.Err()
	}
	if c.err != nil {
		return nil, c.err
	}
	return c, nil
}

// release gives code back; the last one frees it.
func (e *Engine) release(ctx context.Context, m Module, c *code) {
	e.mu.Lock()
	c.refs--
	last := c.refs == 0
	if last && e.code[m.Hash] == c {
		delete(e.code, m.Hash)
	}
	e.mu.Unlock()
	if last && c.mod != nil {
		if err := c.mod.Close(ctx); err != nil {
			e.log.Warn("cannot free an app's code", "err", err)
		}
	}
}

// load reads, checks and compiles a module.
func (e *Engine) load(ctx context.Context, m Module) (wazero.CompiledModule, *shape, error) {
	raw, err := m.Read(ctx)
	if err != nil {
		return nil, nil, fault.Wrap(err, "read the app's module", "")
	}
	if sha256.Sum256(raw) != m.Hash {
		return nil, nil, fault.New(fault.Untrusted, "load the app's module", "install the app again", "its hash is not the expected one")
	}
	s, err := inspect(raw, e.host)
	if err != nil {
		return nil, nil, err
	}
	select {
	case e.compiling <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	defer func() { <-e.compiling }()
	if err := e.fill(ctx, m.Hash, s.rewritten); err != nil {
		return nil, nil, err
	}
	mod, err := e.rt.CompileModule(ctx, s.rewritten)
	if err != nil {
		return nil, nil, invalidModule(err)
	}
	s.rewritten = nil
	return mod, s, nil
}

func invalidModule(err error) error {
	return fault.New(fault.Invalid, "load the app's module", "ask the app's publisher for another build", "%w", err)
}
