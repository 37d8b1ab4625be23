package catalog_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/apps/catalog/catalogtest"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

func TestMemoryStore(t *testing.T) {
	m := &catalogtest.Memory{}
	catalogtest.Store(t, func() catalog.Store { return m })
}

// A publisher is a user who signs bundles.
type publisher struct {
	t        *testing.T
	user     keys.UserID
	recovery *keys.KeyPair
	devices  []*keys.KeyPair
	log      [][]byte
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{t: t, recovery: keys.GenerateKeyPair(), devices: []*keys.KeyPair{keys.GenerateKeyPair()}}
	genesis, user, err := identity.NewGenesis(p.devices[0], p.recovery)
	if err != nil {
		t.Fatal(err)
	}
	p.user, p.log = user, [][]byte{genesis}
	return p
}

func (p *publisher) state() *identity.State {
	p.t.Helper()
	set, err := identity.Open(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return identity.Resolve(set)
}

func (p *publisher) certify() *keys.KeyPair {
	p.t.Helper()
	d := keys.GenerateKeyPair()
	op, err := p.state().NewCertify(p.recovery, identity.Subject{
		Device: identity.PublicOf(d), Power: identity.PowerFull, Consent: identity.Consent(d, p.user, p.recovery.ID()),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.log, p.devices = append(p.log, op), append(p.devices, d)
	return d
}

func (p *publisher) revoke(d *keys.KeyPair) {
	p.t.Helper()
	op, err := p.state().NewRevoke(p.recovery, d.ID(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.log = append(p.log, op)
}

// An app is what a publisher packs.
type app struct {
	seq  uint64
	caps []string // tables of app.toml
	abi  string   // "v1.0" if empty
	page string   // content of the page; the seq if empty
	key  *keys.KeyPair
	log  [][]byte
	big  int // bytes of a large file
}

const capDB = "[cap.db]\nreason = \"to keep your tasks\"\n"

// pack makes a bundle of the app "tasks".
func (p *publisher) pack(a app) (*bundle.Bundle, []byte) {
	p.t.Helper()
	if a.abi == "" {
		a.abi = "v1.0"
	}
	if a.page == "" {
		a.page = fmt.Sprintf("page of %d", a.seq)
	}
	if a.key == nil {
		a.key = p.devices[0]
	}
	if a.log == nil {
		a.log = p.log
	}
	manifest := fmt.Sprintf("manifest = 1\nid = \"tasks\"\nname = \"Tasks\"\nversion = \"1.0.%d\"\nseq = %d\nabi = %q\nlicense = \"MIT\"\n[ui]\n",
		a.seq, a.seq, a.abi) + strings.Join(a.caps, "")
	files := fstest.MapFS{
		"app.toml":      {Data: []byte(manifest)},
		"ui/index.html": {Data: []byte(a.page)},
		"ui/same.css":   {Data: []byte("body {}")}, // the same in every bundle
	}
	if a.big > 0 {
		data := make([]byte, a.big)
		for i := range data {
			data[i] = byte(i*7+int(a.seq)) ^ byte(i>>20) ^ byte(i>>9)
		}
		files["ui/big.bin"] = &fstest.MapFile{Data: data}
	}
	var w bytes.Buffer
	b, err := bundle.Pack(&w, files, bundle.Signer{Key: a.key, Log: a.log, Resolve: bundle.ResolveLog})
	if err != nil {
		p.t.Fatal(err)
	}
	return b, w.Bytes()
}

// A device is a catalog and what it stands on.
type device struct {
	*catalog.Catalog
	t      *testing.T
	store  *catalogtest.Memory
	dir    string
	config func(*catalog.Config)
	told   []bundle.App
}

func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{t: t, store: &catalogtest.Memory{}, dir: t.TempDir()}
	d.open()
	return d
}

// open opens the catalog anew, as after a crash.
func (d *device) open() {
	d.t.Helper()
	chunks, err := catalog.OpenChunks(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	cfg := catalog.Config{Store: d.store, Chunks: chunks, ABI: bundle.ABI{Major: 1}, Changed: func(a bundle.App) { d.told = append(d.told, a) }}
	if d.config != nil {
		d.config(&cfg)
	}
	if d.Catalog, err = catalog.Open(cfg); err != nil {
		d.t.Fatal(err)
	}
}

func announcement(b *bundle.Bundle) catalog.Announcement {
	return catalog.Announcement{App: b.App(), Seq: b.Index.Seq, Hash: b.Hash}
}

func (d *device) announce(b *bundle.Bundle) {
	d.t.Helper()
	if err := d.Announce(announcement(b)); err != nil {
		d.t.Fatal(err)
	}
}

// fetch gives d all it wants of what the peer has.
func (d *device) fetch(peer *device) {
	d.t.Helper()
	for range 3 {
		for _, w := range d.Wants() {
			if w.Index {
				index, sig, err := peer.Index(w.Hash)
				if err != nil {
					continue
				}
				if err := d.AddIndex(w.Hash, index, sig); err != nil {
					d.t.Fatal(err)
				}
			}
			for _, c := range w.Chunks {
				data, err := peer.Chunk(w.Hash, c.ID)
				if err != nil {
					d.t.Fatal(err)
				}
				if err := d.AddChunk(w.Hash, c.ID, data); err != nil {
					d.t.Fatal(err)
				}
			}
		}
	}
}

// install hands the file over and approves it with every capability.
func (d *device) install(file []byte) *bundle.Bundle {
	d.t.Helper()
	b, err := d.Install(bytes.NewReader(file))
	if err != nil {
		d.t.Fatal(err)
	}
	d.approve(b)
	return b
}

func (d *device) approve(b *bundle.Bundle) {
	d.t.Helper()
	full, err := d.Bundle(b.Hash)
	if err != nil {
		d.t.Fatal(err)
	}
	var grant []bundle.Capability
	for _, r := range full.Manifest.Capabilities {
		grant = append(grant, r.Capability)
	}
	if err := d.Approve(b.App(), b.Hash, grant); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) entry(b *bundle.Bundle) catalog.Entry {
	d.t.Helper()
	e, err := d.Entry(b.App())
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

// state is an entry in short: active and previous seq, then each pending one.
func (d *device) state(b *bundle.Bundle) string {
	d.t.Helper()
	e := d.entry(b)
	var s []string
	if e.Active != nil {
		s = append(s, fmt.Sprintf("active %d", e.Active.Seq))
	}
	if e.Previous != nil {
		s = append(s, fmt.Sprintf("previous %d", e.Previous.Seq))
	}
	if e.Stopped != nil {
		s = append(s, fmt.Sprintf("stopped %d", e.Stopped.Seq))
	}
	for _, p := range e.Pending {
		s = append(s, fmt.Sprintf("%s %d", p.Stage, p.Seq))
	}
	return strings.Join(s, ", ")
}

func (d *device) wantState(b *bundle.Bundle, want string) {
	d.t.Helper()
	if got := d.state(b); got != want {
		d.t.Errorf("state %q, want %q", got, want)
		for _, p := range d.entry(b).Pending {
			d.t.Logf("%d: %+v", p.Seq, p.Problem)
		}
	}
}

func (d *device) wantProblem(b *bundle.Bundle, code fault.Code, text, hint string) {
	d.t.Helper()
	for _, p := range d.entry(b).Pending {
		if p.Hash == b.Hash {
			if diff := cmp.Diff(&catalog.Problem{Code: code, Text: text, Hint: hint}, p.Problem); diff != "" {
				d.t.Error("problem (-want +got)\n" + diff)
			}
			return
		}
	}
	d.t.Errorf("bundle %d is not pending: %s", b.Index.Seq, d.state(b))
}

func (d *device) page(b *bundle.Bundle) string {
	d.t.Helper()
	active, err := d.Active(b.App())
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := d.File(active, "ui/index.html")
	if err != nil {
		d.t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		d.t.Fatal(err)
	}
	return out.String()
}

func wantFault(t *testing.T, err error, code fault.Code, message, hint string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was accepted; want %q", message)
	}
	if fault.CodeOf(err) != code {
		t.Errorf("code %s, want %s (%v)", fault.CodeOf(err), code, err)
	}
	if err.Error() != message {
		t.Errorf("message\n got: %s\nwant: %s", err, message)
	}
	if got := fault.HintOf(err); got != hint {
		t.Errorf("hint\n got: %s\nwant: %s", got, hint)
	}
}

// The walk of the issue: installed on one device, announced to the other,
// fetched by hash, approved there, running.
func TestInstallFromPeer(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1, caps: []string{capDB}, big: 3<<20 + 5})
	one, two := newDevice(t), newDevice(t)
	if _, err := one.Install(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	one.wantState(b, "waiting 1")
	if _, err := one.Active(b.App()); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("it runs before it is approved: %v", err)
	}
	ask, err := one.Undecided(b.App(), b.Hash)
	if err != nil || len(ask) != 1 || ask[0].Capability != bundle.DB {
		t.Errorf("asks %v, %v", ask, err)
	}
	one.approve(b)
	one.wantState(b, "active 1")

	two.announce(b)
	two.wantState(b, "announced 1")
	if w := two.Wants(); len(w) != 1 || !w[0].Index || w[0].Hash != b.Hash {
		t.Fatalf("wants %+v", w)
	}
	index, sig, err := one.Index(b.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if err := two.AddIndex(b.Hash, index, sig); err != nil {
		t.Fatal(err)
	}
	two.wantState(b, "fetching 1")
	if have, total := two.Progress(b.Hash); have != 0 || total != b.Index.Size() {
		t.Errorf("progress %d of %d", have, total)
	}
	two.fetch(one)
	two.wantState(b, "waiting 1")
	if len(two.Wants()) != 0 {
		t.Errorf("it still wants %+v", two.Wants())
	}
	two.announce(b) // again: nothing
	two.wantState(b, "waiting 1")
	two.approve(b)
	two.wantState(b, "active 1")
	if got := two.page(b); got != "page of 1" {
		t.Errorf("the page is %q", got)
	}
	if g, err := two.Grants(b.App()); err != nil || len(g) != 1 || g[0] != bundle.DB {
		t.Errorf("grants %v, %v", g, err)
	}
	var out bytes.Buffer
	if err := two.Export(&out, b.App()); err != nil || !bytes.Equal(out.Bytes(), file) {
		t.Errorf("the exported file differs: %v", err)
	}
	two.open()
	two.wantState(b, "active 1")
	if len(two.Apps()) != 1 || len(two.told) == 0 {
		t.Errorf("apps %v, told %v", two.Apps(), two.told)
	}
}

func TestUpdate(t *testing.T) {
	p := newPublisher(t)
	home := newDevice(t)
	for name, c := range map[string]struct {
		policy catalog.Policy
		caps   []string
		want   string
	}{
		"ask":                        {catalog.Ask, []string{capDB}, "active 1, waiting 2"},
		"follow":                     {catalog.Follow, []string{capDB}, "active 2, previous 1"},
		"follow, fewer capabilities": {catalog.Follow, nil, "active 2, previous 1"},
		"follow, new capability":     {catalog.Follow, []string{capDB, "[cap.kv]\nreason = \"counts\"\n"}, "active 1, waiting 2"},
		"follow, new optional one":   {catalog.Follow, []string{capDB, "[cap.kv]\nreason = \"counts\"\noptional = true\n"}, "active 1, waiting 2"},
		"pinned":                     {catalog.Pinned, []string{capDB}, "active 1, announced 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, first := p.pack(app{seq: 1, caps: []string{capDB}})
			second, file := p.pack(app{seq: 2, caps: c.caps})
			if _, err := home.Install(bytes.NewReader(file)); err != nil {
				t.Fatal(err)
			}
			d := newDevice(t)
			b := d.install(first)
			if err := d.SetPolicy(b.App(), c.policy); err != nil {
				t.Fatal(err)
			}
			d.announce(second)
			d.fetch(home)
			d.wantState(b, c.want)
			d.open()
			d.wantState(b, c.want)
			if err := home.Remove(b.App()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
