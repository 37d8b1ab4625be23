package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// An instance is one running module: its memory, its stack, and the context
// under which all its code runs. It belongs to its Actor's goroutine.
type instance struct {
	guest   *hostabi.Guest
	clock   hostabi.Clock
	random  io.Reader
	stderr  *lineBuffer
	environ []string

	code   *code
	memory *region
	module api.Module
	entry  api.Function // calls are cheap only if this is kept
	stack  [3]uint64

	// ctx is the one context of everything the instance runs; stop ends it, and
	// with it, for good, the instance. One that is stopped is never used again.
	ctx  context.Context
	stop context.CancelCauseFunc
}

var (
	errTime     = errors.New("it took too long")
	errShutdown = errors.New("the runtime is stopping")
)

// startInstance instantiates a module and runs its _initialize, within limit.
// The instance owns code from here on, also when this fails.
func (a *Actor) startInstance(parent context.Context, c *code, limit time.Duration) (in *instance, err error) {
	in = &instance{
		guest: a.guest, clock: a.app.Clock(), random: a.app.Random(), stderr: &lineBuffer{app: a.app},
		environ: environFor(a.cfg.Memory), code: c,
	}
	defer func() {
		if err != nil {
			a.drop(in)
		}
	}()
	if int64(c.shape.minPages)*pageSize > int64(a.cfg.Memory) {
		return in, fault.New(fault.TooBig, "start the app", "let it have more memory", "it wants %d MiB of memory at once, of at most %d",
			c.shape.minPages/16, a.cfg.Memory>>20)
	}
	if in.memory, err = newRegion(a.cfg.Memory); err != nil {
		return in, err
	}
	// Not derived from parent: wazero stops an instance whose context is done, and
	// who stops this one, and why, is for stop to say.
	ctx, stop := context.WithCancelCause(context.WithoutCancel(parent))
	in.stop = stop
	in.ctx = context.WithValue(ctx, instanceKey{}, in)
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	err = in.watch(parent, limit, func() error {
		in.module, err = a.engine.rt.InstantiateModule(experimental.WithMemoryAllocator(in.ctx, in.memory), c.mod, cfg)
		if err != nil {
			return err
		}
		in.entry = in.module.ExportedFunction("peers_event")
		if c.shape.reactor {
			_, err = in.module.ExportedFunction("_initialize").Call(in.ctx)
		}
		return err
	})
	return in, err
}

// event runs one event of the guest and returns its result. An error means that
// the instance trapped, exited or was stopped: it must be dropped.
func (in *instance) event(parent context.Context, limit time.Duration, e hostabi.Event) (result int32, err error) {
	in.stack = [3]uint64{uint64(uint32(e.Kind)), uint64(e.ID), uint64(uint32(len(e.Payload)))}
	err = in.watch(parent, limit, func() error { return in.entry.CallWithStack(in.ctx, in.stack[:]) })
	in.stderr.flush()
	return int32(uint32(in.stack[0])), err
}

// watch runs code of the guest and stops the instance if it takes longer than
// limit, or parent ends. It returns why, if so.
func (in *instance) watch(parent context.Context, limit time.Duration, run func() error) error {
	timer := time.AfterFunc(limit, func() { in.stop(fmt.Errorf("%w: more than %s", errTime, limit)) })
	defer timer.Stop()
	defer context.AfterFunc(parent, func() { in.stop(errShutdown) })()
	err := recovered(run)
	if cause := context.Cause(in.ctx); cause != nil {
		// It may have ended by itself at the last moment; it is stopped all the same.
		return cause
	}
	return err
}

// recovered turns a panic of run into an error: wazero turns those of a call into
// errors itself, but hostile modules reach more of it than calls.
func recovered(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fault.New(fault.Internal, "run the app", "report this", "the sandbox panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return run()
}

// close frees the instance. No code of it runs.
func (in *instance) close() error {
	var err error
	if in.module != nil {
		err = in.module.Close(context.Background())
	}
	if in.stop != nil {
		in.stop(nil)
	}
	if in.memory != nil {
		in.memory.release()
	}
	return err
}

// reason tells a crash in one line for people; the rest, if any, is the stack.
func reason(err error) (text, stack string) {
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		return fmt.Sprintf("it exited with code %d", exit.ExitCode()), ""
	}
	if errors.Is(err, errTime) || errors.Is(err, errShutdown) {
		return err.Error(), ""
	}
	return splitTrap(err.Error())
}
