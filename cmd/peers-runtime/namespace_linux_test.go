package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// envInner is set in a test that was run again in namespaces of its own.
const envInner = "PEERS_TEST_INNER"

// isolated runs the test again with namespaces of its own, in which it may mount
// and configure what it likes, also without root, and reports whether this is
// that run.
func isolated(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	if os.Getenv(envInner) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), envInner+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | namespaces,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in namespaces of its own (needs a kernel that lets this user make them): %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("the inner test did not run:\n%s", out)
	}
	t.Logf("%s", out)
	return false
}

// ip configures the network.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s (scripts/need.sh ip)", strings.Join(args, " "), err, out)
	}
}

// TestRecoverByID names no address: discovery finds the device that has the ID, on
// a network without a route to anywhere else.
func TestRecoverByID(t *testing.T) {
	if !isolated(t, syscall.CLONE_NEWNET) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
	ip(t, "link", "set", "lan1", "up")
	ip(t, "addr", "add", "10.77.1.1/24", "dev", "lan0")
	ip(t, "link", "set", "lan0", "up", "multicast", "on")
	dir := t.TempDir()
	lan := []string{"--bind", "10.77.1.1", "--discover", "true"}
	a := newUser(t, filepath.Join(dir, "a"), lan...)
	putNotes(a, 5)
	b := startProcess(t, filepath.Join(dir, "b"), lan...)
	b.status()
	if status, out, said := runCommand(t, nil, "--home", b.home, "recover", "--words", a.words(), a.status().Device); status != 0 {
		t.Fatalf("exit %d\n%s%s", status, out, said)
	}
	b.until("both have one user", func(st *control.Status) bool { return st.User == a.status().User })
	b.until("the app arrives", func(st *control.Status) bool { return len(st.Apps) == 1 && st.Apps[0].State == "waiting" })
	b.stop()
	a.stop()
}

// TestBadInputNetwork starts where there is no network at all, not even loopback,
// and where there is loopback alone.
func TestBadInputNetwork(t *testing.T) {
	if !isolated(t, syscall.CLONE_NEWNET) {
		return
	}
	home := filepath.Join(t.TempDir(), "home")
	all := []string{"--bind", "", "--discover", "true"}
	p := startProcess(t, home, append([]string{"--init"}, all...)...)
	if p.client(t.Context()) == nil {
		t.Fatalf("it does not come up:\n%s", p.tail())
	}
	refused(t, 1, "cannot reach the runtime", "", "--home", home, "status")
	ip(t, "link", "set", "lo", "up")
	p.until("there is a user", func(st *control.Status) bool { return st.User != "" })
	putNotes(p, 3)
	if st := p.status(); st.Port == 0 || len(st.Devices) != 1 {
		t.Errorf("port %d, devices %+v", st.Port, st.Devices)
	}
	// A network that comes later is found.
	ip(t, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
	ip(t, "link", "set", "lan1", "up")
	ip(t, "addr", "add", "10.77.2.1/24", "dev", "lan0")
	ip(t, "link", "set", "lan0", "up")
	q := startProcess(t, filepath.Join(t.TempDir(), "second"), all...)
	q.status()
	if status, out, said := runCommand(t, nil, "--home", q.home, "recover", "--words", p.words(), p.status().Device); status != 0 {
		t.Errorf("exit %d\n%s%s", status, out, said)
	}
	q.stop()
	p.stop()
}
