package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Lab is a network that lives as long as a test.
type Lab struct {
	t     testing.TB
	name  string
	links int
}

// A Host is a network namespace.
type Host struct {
	lab *Lab
	ns  string
}

// New makes an empty Lab.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test builds network namespaces: run it as root (sudo -E go test ...)")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Fatal("this test needs ip: apt-get install iproute2")
	}
	f, err := os.CreateTemp("", "peerslab")
	if err != nil {
		t.Fatal(err)
	}
	name := f.Name()
	f.Close()
	t.Cleanup(func() { os.Remove(name) })
	return &Lab{t: t, name: "pl" + name[strings.LastIndex(name, "peerslab")+len("peerslab"):]}
}

func (l *Lab) run(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Host adds a host with nothing but a loopback interface.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	h := &Host{lab: l, ns: l.name + name}
	l.run("netns", "add", h.ns)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", h.ns).Run() })
	h.IP("link", "set", "lo", "up")
	// A link-local address is usable at once, not after a second's test for
	// duplicates.
	for _, which := range []string{"all", "default"} {
		h.Write("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", "0")
	}
	return h
}

// IP runs "ip -n HOST args".
func (h *Host) IP(args ...string) {
	h.lab.t.Helper()
	h.lab.run(append([]string{"-n", h.ns}, args...)...)
}

// Command prepares a command that runs on the host.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.ns, name}, args...)...)
}

// Write writes a file under /proc/sys/net as the host sees it.
func (h *Host) Write(path, value string) {
	h.lab.t.Helper()
	var err error
	h.Do(func() { err = os.WriteFile(path, []byte(value), 0o644) })
	if err != nil {
		h.lab.t.Fatal(err)
	}
}

// Cable joins two hosts by a cable with an interface at each end, up and with
// a link-local IPv6 address only. Interface names are at most 15 characters.
func (l *Lab) Cable(a *Host, devA string, b *Host, devB string) {
	l.t.Helper()
	l.links++
	// An index of its own for each interface keeps the process's cache of IPv6
	// zones right, which knows nothing of namespaces.
	base := 1000 + 10*l.links
	l.run("link", "add", devA, "index", fmt.Sprint(base), "netns", a.ns, "type", "veth",
		"peer", "name", devB, "index", fmt.Sprint(base+1), "netns", b.ns)
	a.IP("link", "set", devA, "up")
	b.IP("link", "set", devB, "up")
	a.await(devA)
	b.await(devB)
}

// await waits until an interface has its link-local address, which it gets when
// the kernel has seen the cable at both ends.
func (h *Host) await(dev string) {
	h.lab.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		out, err := exec.Command("ip", "-n", h.ns, "-6", "addr", "show", "dev", dev, "scope", "link").Output()
		if err == nil && strings.Contains(string(out), "inet6 fe80:") {
			return
		}
		<-tick.C
	}
	h.lab.t.Fatalf("%s has no link-local address", dev)
}

// Do runs f on the host: sockets it opens belong there for good. Goroutines it
// starts do not run there. f may fail the test.
func (h *Host) Do(f func()) {
	h.lab.t.Helper()
	errs := make(chan error, 1)
	go func() {
		defer close(errs) // also if f ends the goroutine
		// Not unlocked: the thread is in another namespace and must end with
		// the goroutine.
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + h.ns)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			f()
		}
		errs <- err
	}()
	if err, ok := <-errs; !ok || err != nil {
		h.lab.t.Fatalf("on host %s: %v", h.ns, err)
	}
}
