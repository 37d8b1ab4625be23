package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps a console's interrupt from reaching the command too.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
