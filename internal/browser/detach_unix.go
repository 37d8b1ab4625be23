//go:build unix

package browser

import (
	"os/exec"
	"syscall"
)

// detach gives the opener a session of its own.
func detach(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
