package store

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// What was attempted, for faults.
const (
	opOpen  = "open the database"
	opRead  = "read the database"
	opWrite = "save to the database"
	opClose = "close the database"
	opCheck = "check the database"
)

const (
	hintDoctor  = `run "peers-runtime doctor"; it says what can be saved`
	hintSpace   = "free some disk space and try again; nothing that was saved before is lost"
	hintRestart = "restart peers-runtime; if it happens again, check the disk"
	hintDisk    = `check that the disk works, then run "peers-runtime doctor"`
)

// A breakage is why the database refuses what it is asked.
type breakage struct {
	err   error
	reads bool // refuses reads too
}

// isDamage tells a panic that damaged pages cause from one that is a bug of
// the code in the transaction. It must be called in the deferred function that
// recovered p, while the stack of the panic is still there.
//
// Touching a page beyond the end of the file, or one the disk cannot read, is
// a memory fault, which debug.SetPanicOnFault turns into a panic with an
// address. A page that is not what bbolt expects fails one of its assertions
// or indexes: then the first frame that is no library's is bbolt's.
func isDamage(p any) bool {
	if f, ok := p.(interface{ Addr() uintptr }); ok && f.Addr() >= 4096 {
		return true
	}
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	panicked := false
	for {
		f, more := frames.Next()
		switch name := f.Function; {
		case name == "runtime.gopanic":
			panicked = true
		case !panicked, hasAnyPrefix(name, "runtime.", "bytes.", "sort.", "slices.", "internal/"):
		default:
			return hasAnyPrefix(name, "go.etcd.io/bbolt.", "go.etcd.io/bbolt/")
		}
		if !more {
			return false
		}
	}
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func appendFrame(b []byte, f runtime.Frame) []byte {
	b = append(b, f.Function...)
	b = append(b, ' ')
	b = append(b, f.File...)
	b = append(b, ':')
	b = strconv.AppendInt(b, int64(f.Line), 10)
	return append(b, '\n')
}

// corrupt is the fault for a damaged file.
func corrupt(op, path string, why ...error) error {
	return fault.New(fault.Corrupt, op, hintDoctor, "%s is damaged: %w", path, errors.Join(why...))
}

// A panicError is what bbolt or the memory said when it met damage.
type panicError struct{ value any }

func (p panicError) Error() string { return fmt.Sprint(p.value) }

// explain gives an error of bbolt or of the system its code and hint. bbolt
// formats some system errors into text (file resize, file sync), hence the
// look at the text.
func explain(err error, op, path string) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Op != "" {
		return err // explained already
	}
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) || strings.HasSuffix(err.Error(), ": "+t.Error()) {
				return true
			}
		}
		return false
	}
	code, hint := fault.CodeOf(err), fault.HintOf(err)
	switch {
	case is(berrors.ErrDatabaseNotOpen):
		return ErrClosed
	case is(berrors.ErrTimeout):
		code, hint = fault.Busy, "another peers-runtime uses this home: stop it, or use it instead of starting a second one"
		err = textError(path + " is in use by another process")
	case is(berrors.ErrMaxSizeReached):
		code, hint = fault.Quota, "remove data of this group, or raise its size limit"
	case is(fullDisk...):
		code, hint = fault.NoSpace, hintSpace
	case is(syscall.EROFS):
		code, hint = fault.ReadOnly, "the file system is mounted read-only: mount it for writing"
	case code == fault.Denied:
		hint = "check who owns " + path + ": peers-runtime must be able to read and write it"
	case is(berrors.ErrInvalid, berrors.ErrChecksum, berrors.ErrVersionMismatch):
		return corrupt(op, path, err)
	case code == fault.Internal && hint == "":
		hint = hintDisk
	}
	return &fault.Error{Op: op, Code: code, Hint: hint, Err: err}
}

// landed reports whether the meta page of transaction id is what a reader
// would now start from, although its commit failed.
func landed(db *bbolt.DB, id int) bool {
	tx, err := db.Begin(false)
	if err != nil {
		return false // nothing can be read, so nobody can see it
	}
	defer func() { _ = tx.Rollback() }() // a read transaction's only error is having ended
	return tx.ID() >= id
}
