package sandbox

import (
	"io/fs"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// The compiler needs about 11 bytes of memory for each byte of a module, and
// 16 MiB take seconds.
const (
	compileData = 640 << 20 // bytes of writable private memory
	compileCPU  = 60        // seconds
)

// limitSelf bounds what this process may use, for good.
func limitSelf() error {
	for _, l := range []struct {
		what  int
		limit uint64
	}{
		{unix.RLIMIT_DATA, compileData},
		{unix.RLIMIT_CPU, compileCPU},
		{unix.RLIMIT_CORE, 0},
	} {
		// Never above what this process was given itself.
		var old unix.Rlimit
		if err := unix.Getrlimit(l.what, &old); err != nil {
			return fault.Wrap(err, "limit the app compiler", "")
		}
		n := min(l.limit, old.Max)
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fault.Wrap(err, "limit the app compiler", "")
		}
	}
	return nil
}

func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int64(st.Uid) == int64(syscall.Geteuid())
}
