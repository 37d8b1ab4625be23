package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/node"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// cityFields is how many fields a city has in cities.csv.
const cityFields = 6

// A runtimeProcess is peers-runtime as a process of its own.
type runtimeProcess struct {
	bin, home string
	cmd       *exec.Cmd
	api       *control.Client
}

func (b *bench) startRuntime(bin, name string, args ...string) (*runtimeProcess, error) {
	r := &runtimeProcess{bin: bin, home: filepath.Join(b.dir, name)}
	args = append([]string{"up", "--home", r.home, "--api-port", "0", "--app-port", "0", "--bind", "127.0.0.1", "--discover", "false", "--log-level", "error"}, args...)
	r.cmd = exec.Command(bin, args...)
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	for range 1000 {
		var err error
		if r.api, err = control.Dial(r.home); err == nil {
			return r, nil
		}
		<-time.After(10 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("the runtime does not start"), r.stop())
}

// interrupt ends the process and keeps its home.
func (r *runtimeProcess) interrupt() error {
	if r.cmd == nil {
		return nil
	}
	err := errors.Join(r.cmd.Process.Signal(os.Interrupt), r.cmd.Wait())
	r.cmd = nil
	return err
}

func (r *runtimeProcess) stop() error { return errors.Join(r.interrupt(), os.RemoveAll(r.home)) }

func (r *runtimeProcess) call(name string, request, answer any) error {
	return r.api.Call(context.Background(), name, request, answer)
}

// until waits at most two minutes for the status to be as wanted.
func (r *runtimeProcess) until(cond func(*control.Status) bool) error {
	for range 24_000 {
		var st control.Status
		if err := r.call("status", struct{}{}, &st); err != nil {
			return err
		}
		if cond(&st) {
			return nil
		}
		<-time.After(5 * time.Millisecond)
	}
	return errors.New("the devices do not become equal")
}

// pairWith makes other a device of r's user.
func (r *runtimeProcess) pairWith(other *runtimeProcess) error {
	var inv control.Invite
	if err := r.call("pair.invite", struct{}{}, &inv); err != nil {
		return err
	}
	joined := make(chan error, 1)
	go func() { joined <- other.call("pair.join", control.JoinRequest{Link: inv.Link}, nil) }()
	for _, side := range []*runtimeProcess{r, other} {
		digits := ""
		err := side.until(func(st *control.Status) bool {
			if p := st.Pairing; p != nil && !p.Done && !p.Confirmed && p.Error == "" { // not the last one
				digits = p.Digits
			}
			return digits != ""
		})
		if err == nil {
			err = side.call("pair.answer", control.AnswerRequest{Digits: digits, Yes: true}, nil)
		}
		if err != nil {
			return err
		}
	}
	return <-joined
}

// cities imports the cities through the command line on one process, until a
// second has acknowledged all of them over QUIC; and then searches them there.
func (b *bench) cities() (err error) {
	file := filepath.Join(os.Getenv("PEERS_DATA_DIR"), "cities.csv")
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("PEERS_DATA_DIR must name the folder of cities.csv: %w", err)
	}
	rows := uint64(bytes.Count(content, []byte("\n")) - 1)
	bin := filepath.Join(b.dir, "peers-runtime")
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/peers-runtime").CombinedOutput(); err != nil {
		return fmt.Errorf("build the runtime: %w\n%s", err, out)
	}
	var app bytes.Buffer
	if _, err := bundle.Pack(&app, os.DirFS(filepath.Join("examples", "atlas")), bundle.InsecureSigner()); err != nil {
		return err
	}
	atlas := filepath.Join(b.dir, "atlas.peersapp")
	if err := os.WriteFile(atlas, app.Bytes(), 0o600); err != nil {
		return err
	}
	one, err := b.startRuntime(bin, "one", "--init")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, one.stop()) }()
	if err := one.until(func(st *control.Status) bool { return st.User != "" }); err != nil {
		return err
	}
	two, err := b.startRuntime(bin, "two")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, two.stop()) }()
	if err := one.call("app.install", control.InstallRequest{File: atlas, Accept: true}, nil); err != nil {
		return err
	}
	if err := one.pairWith(two); err != nil {
		return err
	}
	// The second has the app too, and so the indexes.
	if err := two.until(func(st *control.Status) bool {
		return slices.ContainsFunc(st.Apps, func(a control.AppStatus) bool { return a.ID == "atlas" && a.State == "waiting" })
	}); err != nil {
		return err
	}
	if err := two.call("app.approve", control.AppRequest{App: "atlas"}, nil); err != nil {
		return err
	}
	began := time.Now()
	if out, err := exec.Command(bin, "--home", one.home, "db", "import", "--json", "--key", "name,lat,lng", "atlas.cities", file).CombinedOutput(); err != nil {
		return fmt.Errorf("import: %w\n%s", err, out)
	}
	imported := time.Since(began)
	err = one.until(func(st *control.Status) bool {
		i := slices.IndexFunc(st.Spaces, func(s control.Space) bool { return s.App == "atlas" })
		return i >= 0 && len(st.Spaces[i].Peers) == 1 && st.Spaces[i].Peers[0].ToSend == 0 && !st.Spaces[i].Peers[0].Equal.IsZero()
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	line("e2e.cities", float64(rows*cityFields)/took.Seconds(), "fields/s", ">=100000")
	line("e2e.cities.import", float64(rows*cityFields)/imported.Seconds(), "fields/s", "-")
	if err := two.search(); err != nil {
		return err
	}
	return two.searchHere()
}

// prefixes begin words in names of cities, each of at least 50.
func prefixes() []string {
	return []string{"b", "sa", "san", "new", "mar", "k", "al", "port", "st", "ham"}
}

// search measures the local API's answer for the first 50 of a prefix, as a
// caller sees it: HTTP and JSON included.
func (r *runtimeProcess) search() error {
	var took []float64
	prefixes := prefixes()
	for n := range 1000 {
		began := time.Now()
		var page struct {
			Records []json.RawMessage `json:"records"`
		}
		q := control.QueryRequest{Target: control.Target{App: "atlas", Collection: "cities"}, Index: "words", Words: prefixes[n%len(prefixes)], Limit: 50}
		if err := r.call("db.query", q, &page); err != nil {
			return err
		}
		if len(page.Records) != 50 {
			return fmt.Errorf("%q finds %d cities", q.Words, len(page.Records))
		}
		took = append(took, time.Since(began).Seconds()*1000)
	}
	line("db.query.http", quantile(took, 0.99), "ms_p99", "-")
	return nil
}

// searchHere measures the same at the function that an app's query ends in, on
// the device's own database, opened by this process with nothing else running.
func (r *runtimeProcess) searchHere() error {
	if err := r.interrupt(); err != nil {
		return err
	}
	home, err := node.OpenHome(r.home, func() (vault.Passphrase, error) { return vault.Passphrase{}, nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer home.Close()
	n, err := node.Open(home, node.Config{Bind: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		return err
	}
	defer n.Close()
	g, err := n.Group()
	if err != nil {
		return err
	}
	var space group.Summary // the cities'
	for _, s := range g.Summaries() {
		if s.Records > space.Records {
			space = s
		}
	}
	manifest, err := os.ReadFile(filepath.Join("examples", "atlas", bundle.ManifestPath))
	if err != nil {
		return err
	}
	m, err := bundle.ParseManifest(manifest)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Schema.Collections, func(c schema.Collection) bool { return c.Name == "cities" })
	if i < 0 {
		return errors.New("the atlas has no cities")
	}
	cities := &m.Schema.Collections[i]
	k := slices.IndexFunc(cities.Indexes, func(x schema.Index) bool { return x.Name == "words" })
	if k < 0 {
		return errors.New("the cities have no index of words")
	}
	var took []float64
	prefixes := prefixes()
	for n := range 2000 {
		q := &schema.Query{Collection: cities.ID, Index: cities.Indexes[k].ID, Words: prefixes[n%len(prefixes)], Limit: 50}
		began := time.Now()
		page, err := g.Query(space.Namespace, q)
		ms := time.Since(began).Seconds() * 1000
		if err != nil {
			return err
		}
		if len(page.Rows) != 50 {
			return fmt.Errorf("%q finds %d cities", q.Words, len(page.Rows))
		}
		if n >= 2000/10 { // the pages are in memory then, as on a device in use
			took = append(took, ms)
		}
	}
	line("db.query", quantile(took, 0.99), "ms_p99", "<=1")
	return nil
}
