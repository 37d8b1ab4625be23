package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/devkit"
)

const (
	idleApps  = 10
	idlePeers = 5
)

// idleNodes measures a runtime process with ten apps and five connected devices
// when there is nothing to do: after the apps' idle instances are gone.
func (b *bench) idleNodes() (err error) {
	bin := filepath.Join(b.dir, "peers-runtime")
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/peers-runtime").CombinedOutput(); err != nil {
		return fmt.Errorf("build the runtime: %w\n%s", err, out)
	}
	files, err := b.idleBundles()
	if err != nil {
		return err
	}
	one, err := b.startRuntime(bin, "idle", "--init")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, one.stop()) }()
	if err := one.until(func(st *control.Status) bool { return st.User != "" }); err != nil {
		return err
	}
	for _, f := range files {
		if err := one.call("app.install", control.InstallRequest{File: f, Accept: true}, nil); err != nil {
			return err
		}
	}
	for i := range idlePeers {
		peer, err := b.startRuntime(bin, fmt.Sprintf("idle-peer-%d", i))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, peer.stop()) }()
		if err := one.pairWith(peer); err != nil {
			return err
		}
	}
	if err := one.until(inStep); err != nil {
		return err
	}
	<-time.After(min(b.quiet, 75*time.Second)) // idle apps go after a minute
	return b.watchIdle(one)
}

// inStep reports whether all peers are connected and have everything.
func inStep(st *control.Status) bool {
	connected := 0
	for _, d := range st.Devices {
		if d.Connected && !d.Self {
			connected++
		}
	}
	return connected == idlePeers && !slices.ContainsFunc(st.Spaces, func(s control.Space) bool {
		return s.Batches > 0 && (len(s.Peers) != idlePeers || slices.ContainsFunc(s.Peers, func(p control.SpacePeer) bool { return p.Equal.IsZero() }))
	})
}

// watchIdle asks before and after, and leaves the process alone meanwhile.
func (b *bench) watchIdle(r *runtimeProcess) error {
	traffic := func() (bytes uint64, err error) {
		var st control.Status
		err = r.call("status", struct{}{}, &st)
		for _, d := range st.Devices {
			bytes += d.Sent + d.Received
		}
		return bytes, err
	}
	moved, err := traffic()
	if err != nil {
		return err
	}
	<-time.After(time.Second) // what the question cost is over
	busy, err := cpuTime(r.cmd.Process.Pid)
	if err != nil {
		return err
	}
	began := time.Now()
	<-time.After(b.quiet)
	busyAfter, err := cpuTime(r.cmd.Process.Pid)
	if err != nil {
		return err
	}
	took := time.Since(began)
	rss, err := residentMiB(r.cmd.Process.Pid)
	if err != nil {
		return err
	}
	movedAfter, err := traffic()
	if err != nil {
		return err
	}
	line("node.idle.memory", rss, "MB_rss", "<=60")
	line("node.idle.cpu", 100*(busyAfter-busy).Seconds()/took.Seconds(), "percent_of_a_core", "<=0.5")
	perDay := float64(movedAfter-moved) / idlePeers * (24 * time.Hour).Seconds() / took.Seconds()
	line("node.idle.traffic", perDay/1e6, "MB_per_day_and_peer", "<=5")
	return nil
}

// cpuTime is how long the threads of a process have run on processors. The Go
// runtime does not end threads.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

func residentMiB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, err
	}
	return kib * 1024 / 1e6, nil
}

// idleBundles makes ten apps of the one Go guest, each with an id of its own.
func (b *bench) idleBundles() ([]string, error) {
	src := filepath.Join("examples", "tasks")
	module, err := devkit.Build(context.Background(), src)
	if err != nil {
		return nil, err
	}
	manifest, err := os.ReadFile(filepath.Join(src, bundle.ManifestPath))
	if err != nil {
		return nil, err
	}
	var files []string
	for i := range idleApps {
		dir := filepath.Join(b.dir, fmt.Sprintf("app-%d", i))
		if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
			return nil, err
		}
		own := bytes.Replace(manifest, []byte(`id = "tasks"`), fmt.Appendf(nil, `id = "tasks%d"`, i), 1)
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, bundle.ManifestPath), own, 0o600),
			os.WriteFile(filepath.Join(dir, "app.wasm"), module, 0o600),
		)
		if err != nil {
			return nil, err
		}
		var app bytes.Buffer
		if _, err := bundle.Pack(&app, os.DirFS(dir), bundle.InsecureSigner()); err != nil {
			return nil, err
		}
		file := filepath.Join(b.dir, fmt.Sprintf("tasks%d.peersapp", i))
		if err := os.WriteFile(file, app.Bytes(), 0o600); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}
