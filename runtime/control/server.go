package control

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Config says what a Server serves.
type Config struct {
	Home   string          // where FileAPI is written; empty: nowhere
	Port   int             // 0: any
	Calls  map[string]Call // by name
	Pages  http.Handler    // everything that is not the API; nil: nothing
	Logger *slog.Logger    // nil: discard
}

// A Call answers one kind of request. body is JSON of at most maxBody bytes.
type Call func(ctx context.Context, body []byte) (answer any, err error)

// Typed makes a Call of a function with a typed request. Unknown fields in the
// request are refused.
func Typed[Q, A any](fn func(context.Context, Q) (A, error)) Call {
	return func(ctx context.Context, body []byte) (any, error) {
		var q Q
		if len(body) > 0 {
			d := json.NewDecoder(strings.NewReader(string(body)))
			d.DisallowUnknownFields()
			if err := d.Decode(&q); err != nil {
				return nil, fault.New(fault.Invalid, "read the request", "", "%w", err)
			}
		}
		return fn(ctx, q)
	}
}

// maxBody bounds a request.
const maxBody = 8 << 20

// A Server is the local API. Make it with Listen.
type Server struct {
	// Set by Listen, never changed.
	cfg       Config
	log       *slog.Logger
	listeners []net.Listener
	port      int
	token     string

	mu    sync.Mutex
	codes map[string]time.Time // one-time codes and when they end
}

// Listen takes the port on both loopback addresses. A port that is taken on one
// of them is refused: whoever has it there would get this user's visits.
func Listen(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Logger, token: randomText(), codes: map[string]time.Time{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.listeners, s.port, err = ListenLoopback(cfg.Port, "api_port"); err != nil {
		return nil, err
	}
	return s, nil
}

// ListenLoopback listens on one TCP port of 127.0.0.1 and [::1]. setting names
// the port's setting in errors.
func ListenLoopback(port int, setting string) ([]net.Listener, int, error) {
	const op = "listen on loopback"
	v4, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, 0, taken(op, "127.0.0.1", port, setting, err)
	}
	port = v4.Addr().(*net.TCPAddr).Port
	v6, err := net.Listen("tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
	switch {
	case err == nil:
		return []net.Listener{v4, v6}, port, nil
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return []net.Listener{v4}, port, nil // no IPv6 on this machine
	}
	return nil, 0, errors.Join(taken(op, "[::1]", port, setting, err), v4.Close())
}

func taken(op, host string, port int, setting string, err error) error {
	return &fault.Error{
		Op: op, Code: fault.Busy, Err: fmt.Errorf("port %d of %s: %w", port, host, err),
		Hint: fmt.Sprintf("stop what uses it, or set another %s (it may be another user's program)", setting),
	}
}

func randomText() string {
	var b [lenToken / 2]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// URL is the dashboard's address, without a code.
func (s *Server) URL() string { return fmt.Sprintf("http://127.0.0.1:%d/", s.port) }

// codeLife is how long a one-time code can be used.
const codeLife = 10 * time.Minute

// OpenURL is the dashboard's address with a new one-time code.
func (s *Server) OpenURL() string {
	code := randomText()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for c, end := range s.codes {
		if now.After(end) {
			delete(s.codes, c)
		}
	}
	s.codes[code] = now.Add(codeLife)
	return s.URL() + "#code=" + code
}

// redeem trades a code for the token, once.
func (s *Server) redeem(code string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, end := range s.codes {
		if subtle.ConstantTimeCompare([]byte(c), []byte(code)) == 1 {
			delete(s.codes, c)
			if time.Now().Before(end) {
				return s.token, nil
			}
		}
	}
	return "", fault.New(fault.Expired, "open the dashboard", `run "peers-runtime open" for a fresh address`, "the address was used already or is too old")
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if err := s.announce(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		wg.Go(func() { errs <- srv.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(end) != nil {
		srv.Close()
	}
	wg.Wait()
	return err
}

func (s *Server) announce() error {
	if s.cfg.Home == "" {
		return nil
	}
	b, err := json.MarshalIndent(Address{URL: s.URL(), Token: s.token}, "", "\t")
	if err != nil {
		return err
	}
	return fault.Wrap(atomicfile.Write(filepath.Join(s.cfg.Home, FileAPI), b), "announce the local API", "")
}

const prefix = "/api/v1/"

// ServeHTTP checks who asks before it looks at what is asked.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !s.local(r) {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	if !strings.HasPrefix(r.URL.Path, prefix) {
		if s.cfg.Pages == nil {
			http.NotFound(w, r)
			return
		}
		s.cfg.Pages.ServeHTTP(w, r)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, prefix)
	limit := int64(maxBody)
	switch {
	case name == callProve || name == "session": // by whoever has no token yet
		limit = maxProve
	case !s.Authorized(bearer(r)):
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		reply(w, nil, fault.New(fault.TooBig, "read the request", "", "%w", err))
		return
	}
	answer, err := s.call(r.Context(), name, body)
	reply(w, answer, err)
}

func (s *Server) call(ctx context.Context, name string, body []byte) (any, error) {
	if name == "session" {
		return Typed(func(_ context.Context, q SessionRequest) (SessionAnswer, error) {
			token, err := s.redeem(q.Code)
			return SessionAnswer{Token: token}, err
		})(ctx, body)
	}
	if name == callProve {
		return Typed(s.prove)(ctx, body)
	}
	call := s.cfg.Calls[name]
	if call == nil {
		return nil, fault.New(fault.NoSys, "answer the call", "update Peers", "there is no call %s", fault.Quote(name))
	}
	return call(ctx, body)
}

// local reports whether the request names this server by one of its own names
// and comes from no other origin: a page elsewhere that got here by a rebound
// name or a plain link has another Host or Origin.
func (s *Server) local(r *http.Request) bool {
	port := ":" + strconv.Itoa(s.port)
	mine := func(host string) bool {
		return host == "127.0.0.1"+port || host == "[::1]"+port || host == "localhost"+port
	}
	if !mine(r.Host) {
		return false
	}
	if o := r.Header.Get("Origin"); o != "" && (!strings.HasPrefix(o, "http://") || !mine(strings.TrimPrefix(o, "http://"))) {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	}
	return arrives(r)
}

// arrives reports whether a browser goes to the dashboard's first page in a tab of
// its own. It may come from anywhere, as from the file that "app open" hands to
// the browser: the page is the same for everybody, and shows nothing without a
// one-time code. Frames and everything that reads an answer are no arrival.
func arrives(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Origin") == "" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// Authorized compares a token in constant time.
func (s *Server) Authorized(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
}

func reply(w http.ResponseWriter, answer any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(status(fault.CodeOf(err)))
		answer = ProblemOf(err)
	}
	json.NewEncoder(w).Encode(answer) // the connection is gone if it fails
}

func status(c fault.Code) int {
	switch c {
	case fault.NotFound, fault.NoSys:
		return http.StatusNotFound
	case fault.Denied, fault.Untrusted:
		return http.StatusForbidden
	case fault.Internal, fault.Corrupt:
		return http.StatusInternalServerError
	case fault.Busy, fault.Conflict, fault.Exists:
		return http.StatusConflict
	case fault.TooBig:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// ProblemOf describes an error as the API does.
func ProblemOf(err error) Problem {
	return Problem{Error: err.Error(), Hint: fault.HintOf(err), Code: fault.CodeOf(err).String()}
}
