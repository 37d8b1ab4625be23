// Command peers-demo shows the whole walk with real processes: two devices of one
// user pair, an app installed on one arrives on the other, 171,075 cities are
// imported on one and searched on the other, each is taken offline and edited,
// one is killed in mid-sync, a third device meets only the second, and all end
// with equal state digests. Each step prints its figure; the first that fails ends
// it.
//
// With -netns (as root) the devices live in two network namespaces on one veth
// without a default route, and must find each other by mDNS.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/peers-run/peers-runtime/runtime/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A show is one run of the demo.
type show struct {
	ctx    context.Context
	bin    string // folder of peers-runtime
	apps   string // folder of the example apps' bundles
	cities string // cities.csv
	dir    string // scratch
	net    *network
	log    *os.File

	laptop, phone, server *device
}

func run(ctx context.Context) error {
	bin := flag.String("bin", "bin", "`folder` of peers-runtime")
	apps := flag.String("apps", "bin/apps", "`folder` of the example apps")
	cities := flag.String("cities", "", "`file` with the cities")
	netns := flag.Bool("netns", false, "put the devices in network namespaces (as root)")
	keep := flag.Bool("keep", false, "keep the devices' homes")
	flag.Parse()
	dir, err := os.MkdirTemp("", "peers-demo-")
	if err != nil {
		return err
	}
	s := &show{ctx: ctx, bin: *bin, apps: *apps, cities: *cities, dir: dir}
	if s.log, err = os.Create(filepath.Join(dir, "log.txt")); err != nil {
		return err
	}
	defer s.log.Close()
	if *netns {
		if s.net, err = newNetwork(); err != nil {
			return err
		}
		defer s.net.close()
	}
	began := time.Now()
	err = s.play()
	for _, d := range []*device{s.laptop, s.phone, s.server} {
		if d != nil {
			d.kill()
		}
	}
	if err != nil {
		s.net.close()
		return fmt.Errorf("%w\nthe devices' log and homes are in %s", err, dir)
	}
	fmt.Printf("all done in %.1f s\n", time.Since(began).Seconds())
	if *keep {
		fmt.Println("the homes are in", dir)
		return nil
	}
	return os.RemoveAll(dir)
}

// step runs one part of the walk and prints its figure.
func (s *show) step(what string, fn func() (figure string, err error)) error {
	began := time.Now()
	figure, err := fn()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	took := fmt.Sprintf("%.2f s", time.Since(began).Seconds())
	if figure != "" {
		took += ", " + figure
	}
	fmt.Printf("%-58s %s\n", what, took)
	return nil
}

func (s *show) play() error {
	steps := []struct {
		what string
		fn   func() (string, error)
	}{
		{"a laptop starts and becomes a new user", s.start},
		{"a phone starts and pairs with it", s.pair},
		{"the tasks app, installed on the laptop, arrives and is allowed", s.tasks},
		{"the atlas app arrives too", s.atlas},
		{"the cities are imported on the laptop", s.importCities},
		{"the phone has them all", s.phoneHasAll},
		{"the phone finds \"sao paulo\"", s.search},
		{"the phone goes away, both are edited, it comes back", s.phoneOffline},
		{"the laptop goes away, both are edited, it comes back", s.laptopOffline},
		{"the phone is killed in mid-sync and starts again", s.kill},
		{"a server that only meets the phone catches up", s.third},
		{"all three have the same state", s.same},
	}
	for _, st := range steps {
		if err := s.step(st.what, st.fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *show) start() (string, error) {
	var err error
	if s.laptop, err = s.device("laptop", 0, "--init"); err != nil {
		return "", err
	}
	return "", s.laptop.until(10*time.Second, "it has a user", func(st *control.Status) bool { return st.User != "" })
}

func (s *show) pair() (string, error) {
	var err error
	if s.phone, err = s.device("phone", 1); err != nil {
		return "", err
	}
	if err := s.join(s.laptop, s.phone); err != nil {
		return "", err
	}
	if err := s.phone.until(20*time.Second, "it is connected", connected(1)); err != nil {
		return "", err
	}
	return s.how()
}

// how says how the two found each other; on one LAN without a route it must have
// been by mDNS.
func (s *show) how() (string, error) {
	if s.net == nil {
		return "by the invite's address", nil
	}
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		b, err := os.ReadFile(s.log.Name())
		if err != nil {
			return "", err
		}
		if strings.Contains(string(b), "found by mDNS") {
			return "found by mDNS", nil
		}
		if err := s.pause(); err != nil {
			return "", err
		}
	}
	return "", errors.New("the devices did not find each other by mDNS")
}

// join pairs newcomer with host: both sides' people compare the digits, here by
// --yes.
func (s *show) join(host, newcomer *device) error {
	invite := host.command("pair", "--yes", "--json")
	out, err := invite.StdoutPipe()
	if err != nil {
		return err
	}
	if err := invite.Start(); err != nil {
		return err
	}
	var inv control.Invite
	if err := json.NewDecoder(out).Decode(&inv); err != nil {
		return fmt.Errorf("no invite: %w", err)
	}
	if _, err := newcomer.output("pair", "--yes", inv.Link); err != nil {
		return err
	}
	return invite.Wait()
}

func (s *show) tasks() (string, error) { return s.install("tasks") }
func (s *show) atlas() (string, error) { return s.install("atlas") }

func (s *show) install(app string) (string, error) {
	if _, err := s.laptop.output("app", "install", "--yes", filepath.Join(s.apps, app+".peersapp")); err != nil {
		return "", err
	}
	if err := s.phone.until(20*time.Second, "the app waits for approval", appState(app, "waiting")); err != nil {
		return "", err
	}
	if _, err := s.phone.output("app", "approve", "--yes", app); err != nil {
		return "", err
	}
	return "", s.phone.until(20*time.Second, "the app is active", appState(app, "active"))
}

func (s *show) importCities() (string, error) {
	out, err := s.laptop.output("db", "import", "--json", "--key", "name,lat,lng", "atlas.cities", s.cities)
	if err != nil {
		return "", err
	}
	var r struct {
		Rows    int     `json:"rows"`
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d records, %.0f records/s, %.0f fields/s", r.Rows, float64(r.Rows)/r.Seconds, 6*float64(r.Rows)/r.Seconds), nil
}

func (s *show) phoneHasAll() (string, error) {
	want, err := s.laptop.space("atlas")
	if err != nil {
		return "", err
	}
	err = s.phone.until(90*time.Second, "the phone has the laptop's cities", func(st *control.Status) bool {
		sp := find(st, "atlas")
		return sp != nil && sp.Digest == want.Digest && sp.Settled
	})
	return fmt.Sprintf("%d records, digest %s…", want.Records, want.Digest[:8]), err
}

func (s *show) search() (string, error) {
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := s.phone.output("db", "query", "--json", "--index", "words", "--words", "sao paulo", "--limit", "20", "atlas.cities")
		var page control.Page
		if err == nil {
			err = json.Unmarshal(out, &page)
		}
		for _, r := range page.Records {
			if string(r.Fields["name"]) == `"São Paulo"` {
				return fmt.Sprintf("São Paulo is among %d", len(page.Records)), nil
			}
		}
		if time.Now().After(deadline) {
			return "", errors.Join(err, errors.New("the city is not found"))
		}
		if err := s.pause(); err != nil { // the index may still be building
			return "", err
		}
	}
}

func (s *show) edit(d *device, name string) error {
	_, err := d.output("db", "put", "--key", "name,lat,lng", "atlas.cities", "name="+quote(name), "lat=1.5", "lng=2.5", "country="+quote("XX"))
	return err
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func (s *show) phoneOffline() (string, error) { return s.offline(s.phone, s.laptop, "Phonetown") }

func (s *show) laptopOffline() (string, error) { return s.offline(s.laptop, s.phone, "Laptopville") }

// offline takes a device's runtime down, edits the other, edits it before it has
// met the other again, and waits until both are equal.
func (s *show) offline(away, stays *device, name string) (string, error) {
	if err := away.stop(); err != nil {
		return "", err
	}
	if err := s.edit(stays, name+" while away"); err != nil {
		return "", err
	}
	began := time.Now()
	if err := away.start(); err != nil {
		return "", err
	}
	figure := fmt.Sprintf("answers %d ms after its start", time.Since(began).Milliseconds())
	if err := s.edit(away, name+" on return"); err != nil {
		return "", err
	}
	return figure, s.untilEqual(s.laptop, s.phone)
}

func (s *show) kill() (string, error) {
	const edits = 5000
	file := filepath.Join(s.dir, "more.csv")
	var b strings.Builder
	b.WriteString("name,lat,lng,country,admin1,admin2\n")
	for i := range edits {
		fmt.Fprintf(&b, "Village %d,%d.25,%d.75,XX,,\n", i, i%90, i%180)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return "", err
	}
	before, err := s.phone.space("atlas")
	if err != nil {
		return "", err
	}
	imported := make(chan error, 1)
	go func() {
		_, err := s.laptop.output("db", "import", "--json", "--key", "name,lat,lng", "atlas.cities", file)
		imported <- err
	}()
	err = s.phone.until(20*time.Second, "the first of them arrive", func(st *control.Status) bool {
		sp := find(st, "atlas")
		return sp != nil && sp.Batches > before.Batches
	})
	if err != nil {
		return "", err
	}
	s.phone.kill()
	if err := <-imported; err != nil {
		return "", err
	}
	if err := s.phone.start(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d records", edits), s.untilEqual(s.laptop, s.phone)
}

func (s *show) third() (string, error) {
	if err := s.laptop.stop(); err != nil {
		return "", err
	}
	var err error
	if s.server, err = s.device("server", 0); err != nil {
		return "", err
	}
	if err := s.join(s.phone, s.server); err != nil {
		return "", err
	}
	began := time.Now()
	if err := s.untilEqual(s.phone, s.server); err != nil {
		return "", err
	}
	sp, err := s.server.space("atlas")
	if err != nil {
		return "", err
	}
	figure := fmt.Sprintf("%.0f records/s", float64(sp.Records)/time.Since(began).Seconds())
	return figure, s.laptop.start()
}

func (s *show) same() (string, error) {
	if err := s.untilEqual(s.laptop, s.phone, s.server); err != nil {
		return "", err
	}
	sp, err := s.laptop.space("atlas")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("digest %s… on each", sp.Digest[:16]), nil
}

// untilEqual waits until the devices have the same batches and digests in every
// namespace.
func (s *show) untilEqual(ds ...*device) error {
	deadline := time.Now().Add(90 * time.Second)
	for {
		var states []string
		for _, d := range ds {
			st, err := d.status()
			if err != nil {
				return err
			}
			var all []string
			for _, sp := range st.Spaces {
				if sp.Batches == 0 {
					continue // declared by an app that runs here, and nothing written
				}
				if !sp.Settled {
					all = append(all, "unsettled "+d.name)
				}
				all = append(all, sp.ID+sp.Vector+sp.Digest)
			}
			states = append(states, strings.Join(all, " "))
		}
		equal := len(states[0]) > 0
		for _, o := range states {
			equal = equal && o == states[0] && !strings.Contains(o, "unsettled")
		}
		if equal {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the devices do not become equal")
		}
		if err := s.pause(); err != nil {
			return err
		}
	}
}

// pause waits a little, or until the demo is interrupted.
func (s *show) pause() error {
	select {
	case <-time.After(50 * time.Millisecond):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func connected(n int) func(*control.Status) bool {
	return func(st *control.Status) bool {
		have := 0
		for _, d := range st.Devices {
			if !d.Self && d.Connected {
				have++
			}
		}
		return have >= n
	}
}

func appState(id, state string) func(*control.Status) bool {
	return func(st *control.Status) bool {
		for _, a := range st.Apps {
			if a.ID == id {
				return a.State == state
			}
		}
		return false
	}
}

func find(st *control.Status, app string) *control.Space {
	for i := range st.Spaces {
		if st.Spaces[i].App == app {
			return &st.Spaces[i]
		}
	}
	return nil
}
