package web_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// A sink counts who comes: connections and datagrams on loopback.
type sink struct {
	tcp net.Listener
	udp net.PacketConn

	mu          sync.Mutex
	connections int
	datagrams   int
	asked       []string
}

func newSink(t testing.TB) *sink {
	t.Helper()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{tcp: tcp, udp: udp}
	var wg sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked = append(s.asked, r.URL.Path)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.connections++
			}
		},
	}
	wg.Go(func() { srv.Serve(tcp) })
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			if _, _, err := udp.ReadFrom(b); err != nil {
				return
			}
			s.mu.Lock()
			s.datagrams++
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() { srv.Close(); udp.Close(); wg.Wait() })
	return s
}

func (s *sink) counts() (connections, datagrams int, asked []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections, s.datagrams, append([]string{}, s.asked...)
}

// hostile writes the hostile app for these sinks into a folder.
func hostile(t testing.TB, s *sink, shell, other string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/hostile")); err != nil {
		t.Fatal(err)
	}
	port := func(a net.Addr) string { return a.String()[strings.LastIndexByte(a.String(), ':')+1:] }
	fill := strings.NewReplacer("@TCP@", port(s.tcp.Addr()), "@UDP@", port(s.udp.LocalAddr()), "@SHELL@", shell, "@OTHER@", other)
	for _, name := range []string{"ui/index.html", "ui/hostile.js"} {
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte(fill.Replace(string(b))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type report struct{ Attempts, Reaches map[string]string }

// otherFrame opens another app and gives the address of one of its files, which
// can be had while the test runs.
func otherFrame(d *device) string {
	d.t.Helper()
	base := baseURL(d)
	c, res, err := websocket.Dial(d.t.Context(), strings.Replace(base, "http", "ws", 1)+"frame",
		&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {strings.TrimSuffix(base, "/")}}})
	if err != nil {
		d.t.Fatalf("%v: %v", err, res)
	}
	d.t.Cleanup(func() { c.CloseNow() })
	q, err := json.Marshal(map[string]string{"token": d.token(), "app": "atlas"})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := c.Write(d.t.Context(), websocket.MessageText, q); err != nil {
		d.t.Fatal(err)
	}
	_, b, err := c.Read(d.t.Context())
	var answer struct{ Frame string }
	if err != nil || json.Unmarshal(b, &answer) != nil || answer.Frame == "" {
		d.t.Fatalf("%s %v", b, err)
	}
	url := strings.TrimSuffix(answer.Frame, "index.html") + "map.js"
	r, err := http.Get(url)
	if err != nil || r.StatusCode != http.StatusOK {
		d.t.Fatalf("the other app's file: %v %v", r, err)
	}
	r.Body.Close()
	return url
}

// settle gives a browser time to do in secret what it was told to: an absence
// has no event to wait for.
func settle(b *tab) { b.eval(`new Promise(done => setTimeout(() => done(true), 1500))`, nil) }

func TestHostilePage(t *testing.T) {
	d := start(t)
	d.newUser()
	d.install("../../examples/atlas", true)
	d.running("atlas")
	s := newSink(t)
	d.install(hostile(t, s, baseURL(d), otherFrame(d)), true)
	d.running("hostile")
	b := browse(t)
	b.open(d.OpenURL())
	b.until(`document.querySelector("[data-key$='/hostile'][data-key^=open]")`)
	b.eval(`(document.querySelector("[data-key$='/hostile'][data-key^=open]").click(), true)`, nil)
	b.until(`document.querySelector("iframe")`)
	f := b.frame(`window.attack`)
	var r report
	f.eval(`attack()`, &r)
	for name, result := range r.Reaches {
		if result == "ok" {
			t.Errorf("the page could do: %s", name)
		}
	}
	if len(r.Reaches) < 15 || len(r.Attempts) < 20 {
		t.Errorf("not everything was tried: %v", r)
	}
	settle(b)
	f.eval(`(leave(), true)`, nil)
	settle(b)
	if c, u, asked := s.counts(); c != 0 || u != 0 {
		t.Errorf("the page got out: %d connections, %d datagrams, %q", c, u, asked)
	}
	b.shows("Back to Peers") // the shell stands
	t.Logf("%d attempts, %d reaches, nothing got out", len(r.Attempts), len(r.Reaches))
}

// The same page without our headers and sandbox gets out: the test above can fail.
func TestHostilePageWithoutHeaders(t *testing.T) {
	s := newSink(t)
	dir := hostile(t, s, "http://127.0.0.1:1/", "http://127.0.0.1:1/")
	plain := httptest.NewServer(http.FileServerFS(os.DirFS(filepath.Join(dir, "ui"))))
	defer plain.Close()
	b := browse(t)
	b.open(plain.URL + "/")
	b.until(`window.attack`)
	var r report
	b.eval(`attack(false)`, &r)
	settle(b)
	c, u, asked := s.counts()
	if c == 0 || u == 0 {
		t.Errorf("%d connections and %d datagrams: the control experiment proves nothing", c, u)
	}
	all := strings.Join(asked, " ")
	for _, want := range []string{"/fetch", "/websocket", "/beacon", "/image", "/form", "/frame", "/link-prefetch", "/iframe", "/css-image", "/script", "/worker"} {
		if !strings.Contains(all, want) {
			t.Errorf("without our headers nothing came to %s", want)
		}
	}
	t.Logf("without headers: %d connections, %d datagrams, %s", c, u, strconv.Quote(all))
}

// running waits until an app runs here.
func (d *device) running(app string) {
	d.t.Helper()
	eventually(d.t, app+" runs", func() bool {
		_, err := d.Apps().OpenPage(app)
		return err == nil
	})
}
