package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// A device is a home and, while it runs, the runtime's process on it.
type device struct {
	s     *show
	name  string
	home  string
	place int // which network namespace
	args  []string
	proc  *exec.Cmd
	gone  chan struct{}
}

// device makes a home and starts a runtime on it.
func (s *show) device(name string, place int, args ...string) (*device, error) {
	d := &device{s: s, name: name, home: filepath.Join(s.dir, name), place: place, args: args}
	return d, d.start()
}

func (d *device) command(args ...string) *exec.Cmd {
	line := append([]string{filepath.Join(d.s.bin, "peers-runtime"), "--home", d.home}, args...)
	line = d.s.net.in(d.place, line)
	c := exec.CommandContext(d.s.ctx, line[0], line[1:]...)
	c.Stderr = d.s.log
	return c
}

// start runs the runtime until its API answers.
func (d *device) start() error {
	c := d.command(append([]string{"up", "--api-port", "0", "--app-port", "0", "--log-level", "debug"}, d.args...)...)
	c.Stdout = d.s.log
	ownGroup(c) // an interrupt is ours to handle
	os.Remove(filepath.Join(d.home, control.FileAPI))
	if err := c.Start(); err != nil {
		return err
	}
	d.proc, d.gone = c, make(chan struct{})
	go func() {
		defer close(d.gone)
		if err := c.Wait(); err != nil {
			fmt.Fprintf(d.s.log, "%s ended: %v\n", d.name, err)
		}
	}()
	deadline := time.Now().Add(15 * time.Second)
	for {
		if _, err := d.status(); err == nil {
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("%s does not start: %w", d.name, err)
		}
		select {
		case <-d.gone:
			return fmt.Errorf("%s ended at once", d.name)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the runtime in good order.
func (d *device) stop() error {
	if err := d.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.gone:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("%s does not end", d.name)
	}
}

// kill ends the runtime as a power cut would, as far as the process knows.
func (d *device) kill() {
	if d.signal(syscall.SIGKILL) == nil {
		<-d.gone
	}
}

// signal reaches the runtime, which is the started process or, inside a
// namespace, what "ip netns exec" became.
func (d *device) signal(sig syscall.Signal) error {
	select {
	case <-d.gone:
		return fmt.Errorf("%s does not run", d.name)
	default:
		return d.proc.Process.Signal(sig)
	}
}

func (d *device) output(args ...string) ([]byte, error) {
	c := d.command(args...)
	var complain bytes.Buffer
	c.Stderr = &complain
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: peers-runtime %s: %w: %s", d.name, args[0], err, strings.TrimSpace(complain.String()))
	}
	return out, nil
}

func (d *device) status() (*control.Status, error) {
	out, err := d.output("status", "--json")
	if err != nil {
		return nil, err
	}
	st := new(control.Status)
	return st, json.Unmarshal(out, st)
}

func (d *device) space(app string) (*control.Space, error) {
	st, err := d.status()
	if err != nil {
		return nil, err
	}
	if sp := find(st, app); sp != nil {
		return sp, nil
	}
	return nil, fmt.Errorf("%s has no data of %s", d.name, app)
}

func (d *device) until(limit time.Duration, what string, cond func(*control.Status) bool) error {
	ctx, cancel := context.WithTimeout(d.s.ctx, limit)
	defer cancel()
	for {
		st, err := d.status()
		if err != nil {
			return err
		}
		if cond(st) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %s does not come true", d.name, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
