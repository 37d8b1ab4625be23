package storetest

import (
	"errors"
	"os"
	"syscall"
)

// BreakSync makes bbolt's next sync of one kind fail, and all after it, until
// mend is called: the file's descriptor is replaced by one that cannot be
// synced right after each write that such a sync must follow, and put back
// before the next write. So it also shows that the sync is made at all: were
// it left out, the Update would succeed. Linux only.
func (r *Recorder) BreakSync(s Sync) (mend func() error, err error) {
	pipe := [2]int{}
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	fd := int(r.file.Fd())
	kept, err := syscall.Dup(fd)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("dup", err), syscall.Close(pipe[0]), syscall.Close(pipe[1]))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.around = func(meta bool, write func() (int, error)) (int, error) {
		if err := syscall.Dup3(kept, fd, syscall.O_CLOEXEC); err != nil {
			return 0, os.NewSyscallError("dup3", err)
		}
		n, err := write()
		if err == nil && meta == (s == MetaSync) {
			err = os.NewSyscallError("dup3", syscall.Dup3(pipe[0], fd, syscall.O_CLOEXEC))
		}
		return n, err
	}
	return func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.around = nil
		return errors.Join(syscall.Dup3(kept, fd, syscall.O_CLOEXEC), syscall.Close(kept), syscall.Close(pipe[0]), syscall.Close(pipe[1]))
	}, nil
}
