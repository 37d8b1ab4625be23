package link

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys"
)

// childEnv holds what a process of this test binary needs to be a device.
const childEnv = "PEERS_LINK_TEST_CHILD"

// A life says what a device's process does until it is killed.
type life struct {
	Sign, Open string // hex
	Port       uint16
	Dial       netip.AddrPort // where the survivor is; zero: it does not dial
	Survivor   string
}

// child is a device that runs until it is killed. It prints its port.
func child(text string) error {
	var l life
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return err
	}
	var seeds [2]keys.Secret
	for i, s := range []string{l.Sign, l.Open} {
		b, err := hex.DecodeString(s)
		if err != nil {
			return err
		}
		seeds[i] = keys.SecretFrom([32]byte(b))
	}
	k, err := keys.NewKeyPair(seeds[0], seeds[1])
	if err != nil {
		return err
	}
	survivor, err := keys.ParseDeviceID(l.Survivor)
	if err != nil {
		return err
	}
	e, err := New(Config{
		Keys: k, Bind: []netip.Addr{loopback}, Port: l.Port,
		Admit:      func(keys.DeviceID) (Access, error) { return AccessFull, nil },
		Candidates: func(keys.DeviceID) []netip.AddrPort { return []netip.AddrPort{l.Dial} },
	})
	if err != nil {
		return err
	}
	err = errors.Join(
		e.Handle("echo/1", AccessFull, echo),
		e.Handle("pull/1", AccessFull, servePull(make([]byte, 1<<30))), // more than can be pulled before the kill
	)
	if err != nil {
		return err
	}
	fmt.Println(e.Port())
	if l.Dial.IsValid() {
		e.Keep([]keys.DeviceID{survivor})
	}
	return e.Run(context.Background())
}

// A device is a process that can be killed and started again.
type device struct {
	t        *testing.T
	survivor *node
	k        *keys.KeyPair
	port     uint16
	cmd      *exec.Cmd
}

func (d *device) start(port uint16, dials bool) {
	d.t.Helper()
	sign, open := d.k.Secrets()
	a, b := sign.Reveal(), open.Reveal()
	l := life{Sign: hex.EncodeToString(a[:]), Open: hex.EncodeToString(b[:]), Port: port, Survivor: d.survivor.ID().String()}
	if dials {
		l.Dial = d.survivor.at()[0]
	}
	text, err := json.Marshal(l)
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd = exec.Command(os.Args[0])
	d.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := fmt.Sscan(strings.TrimSpace(line), &d.port); err != nil {
		d.t.Fatal(err)
	}
	if port != 0 && d.port != port {
		d.t.Fatalf("the port is %d, not %d", d.port, port)
	}
}

// kill is kill -9.
func (d *device) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// When a device is killed.
const (
	inHandshake = iota // in the middle of the handshake
	afterwards         // right after it
	pulling            // while the survivor receives
	atRest             // after a while of nothing
)

// A killing is one way for a device to die and come back.
type killing struct {
	when     int
	samePort bool
	dials    bool // the new process knows where the survivor is
	keeps    bool // the survivor dials as well
}

// TestKilledPeerIsNoticed kills the process at the other end with -9 at
// awkward moments and starts it again. Whoever dials, whatever was under way,
// on the same port or another: the survivor is soon connected to the new
// process, and only to it.
func TestKilledPeerIsNoticed(t *testing.T) {
	for name, c := range map[string]killing{
		"in the handshake, same port":     {inHandshake, true, false, true},
		"in the handshake, other port":    {inHandshake, false, true, false},
		"right after, same port":          {afterwards, true, false, true},
		"right after, it dials":           {afterwards, true, true, false},
		"right after, other port":         {afterwards, false, true, false},
		"pulling, same port":              {pulling, true, false, true},
		"pulling, other port":             {pulling, false, true, true},
		"pulling, other port, both blind": {pulling, false, false, true},
		"idle, same port":                 {atRest, true, false, true},
		"idle, other port":                {atRest, false, true, false},
		"idle, other port, both blind":    {atRest, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func (c killing) run(t *testing.T) {
	var bk book
	a := start(t, func(cfg *Config) {
		cfg.Candidates = bk.look
		// What QUIC itself would notice must not help.
		cfg.Timing = Timing{Idle: time.Hour, KeepAlive: 2 * time.Second, Suspect: 500 * time.Millisecond, Probe: 2 * time.Second, Look: 250 * time.Millisecond, Hello: 2 * time.Second, Handshake: 2 * time.Second}
	})
	d := &device{t: t, survivor: a, k: keys.GenerateKeyPair()}
	p := a.Peer(d.k.ID())
	d.start(0, !c.keeps)
	defer func() { d.kill() }()
	bk.put(d.k.ID(), netip.AddrPortFrom(loopback, d.port))
	if c.keeps {
		a.Keep([]keys.DeviceID{d.k.ID()})
	}
	if c.when != inHandshake {
		until(t, func() bool { return p.Status().Connected() })
	}
	var under *Stream
	switch c.when {
	case pulling:
		s, err := p.OpenStream(soon(t), "pull/1")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Write(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		under = s
	case atRest:
		say(t, p, "and then nothing")
		until(t, func() bool { return p.Status().Conns[0].Streams == 0 })
	}
	d.kill()
	killed := time.Now()
	port := d.port
	if !c.samePort {
		port = 0
	}
	d.start(port, c.dials)
	bk.put(d.k.ID(), netip.AddrPortFrom(loopback, d.port))
	until(t, func() bool {
		st := p.Status()
		return len(st.Conns) == 1 && st.Connected() && st.Conns[0].Remote.Port() == d.port && st.Conns[0].Since.After(killed)
	})
	say(t, p, "it is you again")
	t.Logf("connected to the new process %v after the kill", time.Since(killed))
	if took := time.Since(killed); took > 12*time.Second {
		t.Errorf("it took %v", took)
	}
	if under != nil {
		if _, err := io.Copy(io.Discard, under); err == nil {
			t.Error("the stream of the old process ended well")
		}
	}
}

// TestNewLifeReplacesTheOld: a device that was killed dials again while the
// acceptor still believes in the old connection. The hello of the new process
// ends it at once: no ping is waited for, nothing opens on it.
func TestNewLifeReplacesTheOld(t *testing.T) {
	timing := Timing{Probe: time.Hour, KeepAlive: time.Hour, Suspect: time.Hour, Idle: time.Hour}
	k := keys.GenerateKeyPair()
	b := start(t, func(c *Config) { c.Timing = timing })
	var r *road
	a := start(t, func(c *Config) { c.Keys = k; r = newRoad(t, Direct, "127.0.0.1", c); c.Timing = timing })
	dial(t, a, b)
	p := b.Peer(k.ID())
	until(t, func() bool { return p.Status().Connected() })
	s, err := p.OpenStream(soon(t), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	r.v.shut.Store(true)
	a2 := start(t, func(c *Config) { c.Keys = k; c.Timing = timing })
	dial(t, a2, b)
	until(t, func() bool { return len(p.Status().Conns) == 1 })
	if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "restarted") {
		t.Errorf("the stream to the old life ended with %v", err)
	}
	say(t, p, "welcome back")
	a.stop()
}

// TestDeadPathIsDropped: packets are lost both ways from some moment on, and
// nobody says so. Both ends notice: who sends, soon; who has nothing to say, at
// the next sign of life.
func TestDeadPathIsDropped(t *testing.T) {
	for name, c := range map[string]struct {
		sends           bool
		keepAlive       time.Duration
		atLeast, atMost time.Duration
	}{
		"sending": {true, time.Hour, 300 * time.Millisecond, 8 * time.Second},
		"idle":    {false, time.Second, 800 * time.Millisecond, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			timing := Timing{Probe: 500 * time.Millisecond, KeepAlive: c.keepAlive, Suspect: 300 * time.Millisecond, Look: 100 * time.Millisecond, Idle: time.Hour}
			a, b, _, direct := twoRoads(t, timing)
			p, err := a.Dial(soon(t), b.ID(), direct.at)
			if err != nil {
				t.Fatal(err)
			}
			until(t, func() bool { return b.Peer(a.ID()).Status().Connected() })
			if c.sends {
				s, err := b.Peer(a.ID()).OpenStream(soon(t), "echo/1")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					for err == nil {
						_, err = s.Write(make([]byte, 1000))
					}
				}()
				if _, err := io.ReadFull(s, make([]byte, 100_000)); err != nil {
					t.Fatal(err)
				}
				defer s.Close()
			} else {
				say(t, p, "hello")
			}
			direct.v.shut.Store(true)
			died := time.Now()
			until(t, func() bool { return !b.Peer(a.ID()).Status().Connected() })
			took := time.Since(died)
			t.Logf("noticed after %v", took)
			if took < c.atLeast || took > c.atMost {
				t.Errorf("it took %v", took)
			}
			if why := b.Peer(a.ID()).Status().LastErr; why != nil && !strings.Contains(why.Error(), "no answer") {
				t.Errorf("why: %v", why)
			}
		})
	}
}

// TestRestIsQuiet: two devices with nothing to say exchange a ping now and then
// and nothing else. The suspicion must not feed on its own pings.
func TestRestIsQuiet(t *testing.T) {
	timing := Timing{KeepAlive: 700 * time.Millisecond, Suspect: 50 * time.Millisecond, Look: 20 * time.Millisecond}
	a, b := start(t, func(c *Config) { c.Timing = timing }), start(t, func(c *Config) { c.Timing = timing })
	p := dial(t, a, b)
	say(t, p, "hello")
	sent := func() uint64 {
		return p.Status().Conns[0].PacketsSent + b.Peer(a.ID()).Status().Conns[0].PacketsSent
	}
	settled, settledAt := sent(), time.Now()
	until(t, func() bool { // the path's packet size has been found
		if now := sent(); now != settled {
			settled, settledAt = now, time.Now()
		}
		return time.Since(settledAt) > 300*time.Millisecond
	})
	began := time.Now()
	<-time.After(3 * time.Second)
	periods := float64(time.Since(began)) / float64(timing.KeepAlive)
	if n := float64(sent() - settled); n < 4 || n > 8*periods {
		t.Errorf("%v packets in %v periods", n, periods)
	}
	if st := p.Status(); len(st.Conns) != 1 || !st.Connected() {
		t.Errorf("%+v", st)
	}
}
