package control

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
)

// run runs a server on a home until the test ends, or stop is called.
func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	for ctx.Err() == nil {
		if _, err := os.Stat(filepath.Join(s.cfg.Home, FileAPI)); err == nil {
			return stop
		}
		wait(ctx)
	}
	return stop
}

func wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	<-ctx.Done()
}

// listen makes a server whose one call answers what it is asked.
func listen(t *testing.T, home string) *Server {
	t.Helper()
	s, err := Listen(Config{Home: home, Calls: map[string]Call{
		"echo": Typed(func(_ context.Context, q map[string]string) (map[string]string, error) { return q, nil }),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// secret is what a call tells: as recover tells the words.
const secret = "abandon ability able about"

// tell makes a call with the secret.
func tell(t *testing.T, home string) error {
	t.Helper()
	c, err := Dial(home)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var a map[string]string
	err = c.Call(ctx, "echo", map[string]string{"words": secret}, &a)
	if err == nil && a["words"] != secret {
		t.Errorf("the answer is %v", a)
	}
	return err
}

// A squatter is another user's program on a port. It keeps what it is told.
type squatter struct {
	mu   sync.Mutex
	told bytes.Buffer
}

func (q *squatter) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.told.Write(b)
}

func (q *squatter) heard() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.told.String()
}

// squat takes an address and serves each connection until the test ends.
func squat(t *testing.T, address string, serve func(net.Conn)) *squatter {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	q := &squatter{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(t.Context(), func() { conn.Close() })()
				serve(&heard{conn, io.TeeReader(conn, q)})
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() }) // after the test's context has ended
	return q
}

// heard is a connection whose reader tells a squatter.
type heard struct {
	net.Conn
	in io.Reader
}

func (h *heard) Read(b []byte) (int, error) { return h.in.Read(b) }

// says answers every request with a status and a body.
func says(status int, body string) func(net.Conn) {
	return func(conn net.Conn) {
		b := make([]byte, 64<<10)
		for {
			if _, err := conn.Read(b); err != nil {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(body), body)
		}
	}
}

// relays has another server answer.
func relays(to string) func(net.Conn) {
	return func(conn net.Conn) {
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(conn, up) })
		io.Copy(up, conn)
		up.Close()
		wg.Wait()
	}
}

// killed leaves a home as kill -9 does: the file stays, and the port is free.
func killed(t *testing.T) (home string, a Address) {
	t.Helper()
	home = t.TempDir()
	stop := run(t, listen(t, home))
	if err := tell(t, home); err != nil {
		t.Fatalf("a server that runs: %v", err)
	}
	stop()
	b, err := os.ReadFile(filepath.Join(home, FileAPI))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return home, a
}

func (a Address) host() string { return strings.TrimSuffix(strings.TrimPrefix(a.URL, "http://"), "/") }

// TestSquatter leaves the port of a killed node to somebody else, who answers in
// any way they can think of: none is told the token or what a call tells.
func TestSquatter(t *testing.T) {
	another := t.TempDir()
	other := listen(t, another)
	run(t, other)
	for name, serve := range map[string]func(*Address) func(net.Conn){
		"says yes":           func(*Address) func(net.Conn) { return says(200, `{}`) },
		"an empty proof":     func(*Address) func(net.Conn) { return says(200, `{"proof":""}`) },
		"a wrong proof":      func(*Address) func(net.Conn) { return says(200, `{"proof":"`+strings.Repeat("00", 32)+`"}`) },
		"asks for the token": func(*Address) func(net.Conn) { return says(401, `{"error":"token, please"}`) },
		"sends elsewhere":    func(a *Address) func(net.Conn) { return says(307, "") },
		"no HTTP":            func(*Address) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n") } },
		"hangs up":           func(*Address) func(net.Conn) { return func(net.Conn) {} },
		"never ends":         func(*Address) func(net.Conn) { return endless },
		"echoes the nonce":   func(*Address) func(net.Conn) { return func(c net.Conn) { io.Copy(c, c) } },
		"proof of no token":  func(a *Address) func(net.Conn) { return proves("", a.host()) },
		"another home's node": func(*Address) func(net.Conn) {
			return relays(strings.TrimPrefix(strings.TrimSuffix(other.URL(), "/"), "http://"))
		},
		"a proof of the same node at another address": func(a *Address) func(net.Conn) {
			return proves(a.Token, strings.Replace(a.host(), "127.0.0.1", "[::1]", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			home, a := killed(t)
			q := squat(t, a.host(), serve(&a))
			err := tell(t, home)
			if fault.CodeOf(err) != fault.Offline || !strings.Contains(err.Error(), "another program has its port") || fault.HintOf(err) == "" {
				t.Errorf("error %v, hint %q", err, fault.HintOf(err))
			}
			if told := q.heard(); told == "" && name != "hangs up" && name != "no HTTP" || strings.Contains(told, a.Token) || strings.Contains(told, secret) {
				t.Errorf("the squatter was told %q", told)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		home, _ := killed(t)
		if err := tell(t, home); fault.CodeOf(err) != fault.Offline || fault.HintOf(err) == "" {
			t.Errorf("error %v", err)
		}
	})
}

func endless(c net.Conn) {
	c.Read(make([]byte, 64<<10))
	io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	for {
		if _, err := io.WriteString(c, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
			return
		}
	}
}

// proves answers as somebody who knows a token, for an address of their choice.
func proves(token, address string) func(net.Conn) {
	return func(c net.Conn) {
		b := make([]byte, 64<<10)
		n, _ := c.Read(b)
		_, body, _ := strings.Cut(string(b[:n]), "\r\n\r\n")
		if body == "" { // it may come in a packet of its own
			n, _ = c.Read(b)
			body = string(b[:n])
		}
		var q ProveRequest
		json.Unmarshal([]byte(body), &q)
		var nonce [lenNonce]byte
		hex.Decode(nonce[:], []byte(q.Nonce))
		says(200, `{"proof":"`+hex.EncodeToString(proof(token, nonce, address))+`","words":"`+secret+`"}`)(&heard{c, io.MultiReader(strings.NewReader("again"), c)})
	}
}

// TestSquatterProvesItself holds the squatters of TestSquatter against a good
// proof: what refuses them is that they do not know the token.
func TestSquatterProvesItself(t *testing.T) {
	home, a := killed(t)
	q := squat(t, a.host(), proves(a.Token, a.host()))
	tell(t, home)
	if told := q.heard(); !strings.Contains(told, a.Token) || !strings.Contains(told, secret) {
		t.Errorf("whoever knows the token is told only %q", told)
	}
}

// TestOtherLoopback has the port of a node at the other loopback address taken by
// a squatter who lets the node answer: nothing goes there, and where a client is
// sent there all the same, the proof is of another address.
func TestOtherLoopback(t *testing.T) {
	home := t.TempDir()
	s := listen(t, home)
	if len(s.listeners) != 2 {
		t.Fatal("this machine has no [::1], which the test needs")
	}
	if err := s.listeners[1].Close(); err != nil {
		t.Fatal(err)
	}
	s.listeners = s.listeners[:1]
	run(t, s)
	v6 := net.JoinHostPort("::1", strconv.Itoa(s.port))
	q := squat(t, v6, relays(net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))))
	if err := tell(t, home); err != nil {
		t.Error(err)
	}
	if told := q.heard(); told != "" {
		t.Errorf("the squatter was told %q", told)
	}
	b, err := json.Marshal(Address{URL: "http://" + v6 + "/", Token: s.token})
	if err == nil {
		err = os.WriteFile(filepath.Join(home, FileAPI), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := tell(t, home); fault.CodeOf(err) != fault.Offline {
		t.Errorf("a node that proves itself through a squatter: %v", err)
	}
	if told := q.heard(); told == "" || strings.Contains(told, s.token) || strings.Contains(told, secret) {
		t.Errorf("the squatter was told %q", told)
	}
}

// TestKilledBetweenCalls takes the port over while a client is in use: its next
// connection must prove itself again.
func TestKilledBetweenCalls(t *testing.T) {
	home := t.TempDir()
	s := listen(t, home)
	stop := run(t, s)
	c, err := Dial(home)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Call(t.Context(), "echo", map[string]string{"n": "1"}, nil); err != nil {
		t.Fatal(err)
	}
	stop()
	q := squat(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), says(200, `{}`))
	for range 2 { // the first may find its connection gone
		if err := c.Call(t.Context(), "echo", map[string]string{"words": secret}, nil); fault.CodeOf(err) != fault.Offline {
			t.Errorf("error %v", err)
		}
	}
	if told := q.heard(); told == "" || strings.Contains(told, s.token) || strings.Contains(told, secret) {
		t.Errorf("the squatter was told %q", told)
	}
}

// TestOneProof counts: calls after each other cost one proof.
func TestOneProof(t *testing.T) {
	home := t.TempDir()
	s := listen(t, home)
	run(t, s)
	c, err := Dial(home)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	proofs := 0
	dial := c.http.Transport.(*http.Transport).DialContext
	c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		proofs++
		return dial(ctx, network, address)
	}
	for range 5 {
		if err := c.Call(t.Context(), "echo", map[string]string{"n": "1"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if proofs != 1 {
		t.Errorf("five calls made %d connections", proofs)
	}
}

// TestProveRefuses asks for proofs that there are none of.
func TestProveRefuses(t *testing.T) {
	home := t.TempDir()
	s := listen(t, home)
	run(t, s)
	for body, want := range map[string]int{
		`{"nonce":"` + strings.Repeat("0f", lenNonce) + `"}`:   http.StatusOK,
		`{"nonce":"` + strings.Repeat("0f", lenNonce-1) + `"}`: http.StatusBadRequest,
		`{"nonce":"` + strings.Repeat("0f", lenNonce+1) + `"}`: http.StatusBadRequest,
		`{"nonce":"` + strings.Repeat("zz", lenNonce) + `"}`:   http.StatusBadRequest,
		`{}`:                                 http.StatusBadRequest,
		`{"nonce":"","x":1}`:                 http.StatusBadRequest,
		strings.Repeat(" ", maxProve) + `{}`: http.StatusRequestEntityTooLarge,
	} {
		res, err := http.Post(s.URL()+"api/v1/prove", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%.80q: %s, want %d", body, res.Status, want)
		}
	}
}

// TestBadAddress reads files that no node wrote.
func TestBadAddress(t *testing.T) {
	token := strings.Repeat("0f", lenToken/2)
	for _, text := range []string{
		``, `{`, `[]`, `{}`,
		`{"url":"http://127.0.0.1:7717/","token":""}`,
		`{"url":"http://127.0.0.1:7717/","token":"` + token[2:] + `"}`,
		`{"url":"http://127.0.0.1:7717/","token":"` + token[2:] + `zz"}`,
		`{"url":"http://192.0.2.1:7717/","token":"` + token + `"}`,
		`{"url":"http://localhost:7717/","token":"` + token + `"}`,
		`{"url":"https://127.0.0.1:7717/","token":"` + token + `"}`,
		`{"url":"http://127.0.0.1/","token":"` + token + `"}`,
		`{"url":"http://127.0.0.1:7717/x","token":"` + token + `"}`,
	} {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, FileAPI), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(home); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%s: error %v", text, err)
		}
	}
	if _, err := Dial(t.TempDir()); fault.CodeOf(err) != fault.Offline {
		t.Errorf("no file: %v", err)
	}
}

// Other programs of the machine's user prove the server the same way.
func TestProofGolden(t *testing.T) {
	var nonce [lenNonce]byte
	for i := range nonce {
		nonce[i] = byte(i)
	}
	token := strings.Repeat("0123456789", 4)
	for _, at := range []string{"127.0.0.1:7717", "[::1]:7717"} {
		if got := netip.MustParseAddrPort(at).String(); got != at {
			t.Fatalf("%s is written %s", at, got)
		}
	}
	golden.Lines(t, "proof",
		hex.EncodeToString(proof(token, nonce, "127.0.0.1:7717")),
		hex.EncodeToString(proof(token, nonce, "[::1]:7717")))
}
