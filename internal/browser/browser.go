// Package browser shows something in the browser of the person at this machine,
// by the program with which their desktop opens addresses and files.
//
// Whatever is opened stands in the process list, where other users of the machine
// can read it: it must hold no secret. What is secret goes into a file that only
// its owner can read, and the file's name is opened.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// ErrNoDesktop says that there is nothing here to show it with: no display, as on
// a server or over SSH, or no program that opens things.
var ErrNoDesktop = errors.New("there is no desktop here to open it on")

// patience is how long the opener may take. One that goes on is a browser that
// stays in the foreground, and is left alone.
const patience = 5 * time.Second

// Open opens an address or a file. An opener that fails within five seconds is an
// error; one that still runs then, or when ctx ends, stays. It outlives this
// process, and the terminal's Ctrl-C is none of its business.
func Open(ctx context.Context, target string) error {
	args := opener(runtime.GOOS, os.Getenv)
	if args == nil {
		return ErrNoDesktop
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return errors.Join(ErrNoDesktop, err)
	}
	cmd := exec.Command(path, append(args[1:], target)...)
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the opener, which may be after us
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
	case <-t.C:
	case <-ctx.Done():
	}
	return nil
}

// opener is the command of a system that opens what is added to it; nil where
// nobody would see it.
func opener(system string, getenv func(string) string) []string {
	switch system {
	case "darwin":
		return []string{"open"}
	case "windows":
		// Not "start": cmd.exe would read the target's own special characters.
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	if getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" {
		return nil
	}
	return []string{"xdg-open"}
}
