package discover

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/labtest"
	"github.com/peers-run/peers-runtime/net/netmon"
	"go.uber.org/goleak"
)

// A real process is a Discovery in a network namespace of its own: the test
// binary runs itself again there, with these in the environment.
const (
	envID    = "PEERS_TEST_DISCOVER_ID"
	envKnown = "PEERS_TEST_DISCOVER_KNOWN"
	envPort  = "PEERS_TEST_DISCOVER_PORT"
	envDay   = "PEERS_TEST_DISCOVER_DAY" // days by which its clock is wrong
)

func TestMain(m *testing.M) {
	if os.Getenv(envID) != "" {
		if err := asProcess(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func envDevice(name string) (id keys.DeviceID, err error) {
	b, err := hex.DecodeString(os.Getenv(name))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%s is no device id", name)
	}
	return keys.DeviceID(b), nil
}

// asProcess runs a Discovery until standard input ends and prints findings.
func asProcess() error {
	id, err := envDevice(envID)
	if err != nil {
		return err
	}
	known, err := envDevice(envKnown)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(os.Getenv(envPort), 10, 16)
	if err != nil {
		return err
	}
	days, _ := strconv.Atoi(os.Getenv(envDay))
	mon := netmon.New(netmon.Config{Interval: 100 * time.Millisecond})
	d, err := New(Config{
		ID: id, Port: uint16(port), Monitor: mon,
		Known: func() []keys.DeviceID { return []keys.DeviceID{known, id} },
		Found: func(id keys.DeviceID, addrs []netip.AddrPort) {
			fmt.Println("found", hex.EncodeToString(id[:]), addrs[0])
		},
		Clock: func() time.Time { return time.Now().AddDate(0, 0, days) },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = mon.Run(ctx) })
	wg.Go(func() { _ = d.Run(ctx) })
	fmt.Println("up")
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	wg.Wait()
	return goleak.Find()
}

// process is one of them, seen from the test.
type process struct {
	id    keys.DeviceID
	lines chan string
	quit  func()
}

func run(t *testing.T, h *labtest.Host, id, known keys.DeviceID, env ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(exe)
	cmd.Env = append(os.Environ(), envID+"="+hex.EncodeToString(id[:]), envKnown+"="+hex.EncodeToString(known[:]), envPort+"=4242")
	cmd.Env = append(cmd.Env, env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{id: id, lines: make(chan string, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			select {
			case p.lines <- sc.Text():
			default:
			}
		}
	}()
	p.quit = sync.OnceFunc(func() {
		in.Close()
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process ended badly: %v", err)
		}
	})
	t.Cleanup(p.quit)
	if got := p.line(t, 10*time.Second); got != "up" {
		t.Fatalf("the process says %q", got)
	}
	return p
}

func (p *process) line(t *testing.T, patience time.Duration) string {
	t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			t.Fatal("the process ended")
		}
		return l
	case <-time.After(patience):
		t.Fatalf("the process was silent for %v", patience)
	}
	return ""
}

// finds waits until the process finds the other at an address for which ok.
func (p *process) finds(t *testing.T, other keys.DeviceID, patience time.Duration, ok func(netip.AddrPort) bool) netip.AddrPort {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		f := strings.Fields(p.line(t, max(0, time.Until(end))))
		if len(f) != 3 || f[0] != "found" || f[1] != hex.EncodeToString(other[:]) {
			t.Fatalf("the process says %q", f)
		}
		a, err := netip.ParseAddrPort(f[2])
		if err != nil || a.Port() != 4242 {
			t.Fatalf("found at %q", f[2])
		}
		if ok(a) {
			return a
		}
	}
}

func is4(a netip.AddrPort) bool { return a.Addr().Is4() }
func isLL(a netip.AddrPort) bool {
	return a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() && a.Addr().Zone() != ""
}

// pair are two hosts on one cable without a default route.
func pair(t *testing.T) (lab *labtest.Lab, a, b *labtest.Host) {
	lab = labtest.New(t)
	a, b = lab.Host("a"), lab.Host("b")
	lab.Cable(a, "eth-a", b, "eth-b")
	a.IP("addr", "add", "10.77.0.1/24", "dev", "eth-a")
	b.IP("addr", "add", "10.77.0.2/24", "dev", "eth-b")
	return lab, a, b
}

func TestFindEachOtherWithoutDefaultRoute(t *testing.T) {
	_, a, b := pair(t)
	ida, idb := keys.GenerateKeyPair().ID(), keys.GenerateKeyPair().ID()
	pa, pb := run(t, a, ida, idb), run(t, b, idb, ida)
	began := time.Now()
	var got4, got6 bool
	pb.finds(t, ida, 10*time.Second, func(a netip.AddrPort) bool {
		got4, got6 = got4 || is4(a), got6 || isLL(a)
		return got4 && got6
	})
	took := time.Since(began)
	t.Logf("who came second found the other by both families in %v", took)
	if took > 1500*time.Millisecond {
		t.Errorf("it took %v, of at most 1.5 s", took)
	}
	pa.finds(t, idb, 10*time.Second, func(netip.AddrPort) bool { return true })
	t.Logf("both found each other in %v", time.Since(began))
	if out, err := a.Command("ip", "route", "show", "default").Output(); err != nil || len(out) > 0 {
		t.Fatalf("the lab has a default route: %s %v", out, err)
	}
}

func TestInterfaceComesAndGoes(t *testing.T) {
	lab, a, b := pair(t)
	c := lab.Host("c")
	ida, idb := keys.GenerateKeyPair().ID(), keys.GenerateKeyPair().ID()
	pa := run(t, a, ida, idb)
	pc := run(t, c, idb, ida)             // with no network at all
	<-time.After(4500 * time.Millisecond) // now nobody asks for 20 s, unless something happens
	lab.Cable(a, "eth-a2", c, "eth-c")
	a.IP("addr", "add", "10.78.0.1/24", "dev", "eth-a2")
	c.IP("addr", "add", "10.78.0.2/24", "dev", "eth-c")
	on78 := func(x netip.AddrPort) bool { return netip.MustParsePrefix("10.78.0.0/24").Contains(x.Addr()) }
	pc.finds(t, ida, 3*time.Second, on78)
	pa.finds(t, idb, 3*time.Second, on78)
	pc.quit()

	c.IP("link", "del", "eth-c")
	pb := run(t, b, idb, ida)
	on77 := func(x netip.AddrPort) bool { return netip.MustParsePrefix("10.77.0.0/24").Contains(x.Addr()) }
	pb.finds(t, ida, 10*time.Second, on77)
	pa.finds(t, idb, 10*time.Second, on77)
}

func TestOneFamilyIsEnough(t *testing.T) {
	t.Run("v6", func(t *testing.T) {
		_, a, b := pair(t)
		a.IP("addr", "flush", "dev", "eth-a", "scope", "global")
		b.IP("addr", "flush", "dev", "eth-b", "scope", "global")
		ida, idb := keys.GenerateKeyPair().ID(), keys.GenerateKeyPair().ID()
		run(t, a, ida, idb)
		run(t, b, idb, ida).finds(t, ida, 10*time.Second, isLL)
	})
	t.Run("v4", func(t *testing.T) {
		_, a, b := pair(t)
		a.Write("/proc/sys/net/ipv6/conf/eth-a/disable_ipv6", "1")
		b.Write("/proc/sys/net/ipv6/conf/eth-b/disable_ipv6", "1")
		ida, idb := keys.GenerateKeyPair().ID(), keys.GenerateKeyPair().ID()
		run(t, a, ida, idb)
		run(t, b, idb, ida).finds(t, ida, 10*time.Second, is4)
	})
}

func TestClockOffByADay(t *testing.T) {
	for days, found := range map[string]bool{"1": true, "-1": true, "3": false} {
		t.Run(days, func(t *testing.T) {
			_, a, b := pair(t)
			ida, idb := keys.GenerateKeyPair().ID(), keys.GenerateKeyPair().ID()
			run(t, a, ida, idb, envDay+"="+days)
			pb := run(t, b, idb, ida)
			if found {
				pb.finds(t, ida, 10*time.Second, is4)
				return
			}
			select {
			case l := <-pb.lines:
				t.Fatalf("the process says %q", l)
			case <-time.After(1500 * time.Millisecond):
			}
		})
	}
}

// TestNoNoise: nothing but findings reaches the process's output, whatever the
// network says; the library logs to standard error by default.
func TestNoNoise(t *testing.T) {
	_, a, b := pair(t)
	ida, idb := keys.GenerateKeyPair().ID(), keys.GenerateKeyPair().ID()
	pa := run(t, a, ida, idb)
	b.IP("route", "add", "224.0.0.0/4", "dev", "eth-b")
	if out, err := b.Command("bash", "-c", `for i in 1 2 3; do printf 'garbage\377\377' > /dev/udp/224.0.0.251/5353; done`).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	pb := run(t, b, idb, ida)
	pb.finds(t, ida, 10*time.Second, is4)
	pa.finds(t, idb, 10*time.Second, is4)
	pa.quit()
	for l := range pa.lines {
		if !strings.HasPrefix(l, "found ") {
			t.Errorf("the process says %q", l)
		}
	}
}
