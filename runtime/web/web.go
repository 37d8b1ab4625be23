// Package web serves what people see in a browser: the dashboard, and the pages
// of apps inside it.
//
// Two origins keep them apart. The dashboard (the shell) is served at the port
// of the local API with a policy that lets it load nothing but its own files, talk
// to nothing but its own port, and frame nothing but the app port. An app's page
// is a frame in it, with an opaque origin (sandbox="allow-scripts"): its files
// come from the app port under a path of 128 random bits that lives as long as
// the frame's session,
//
//	http://127.0.0.1:<app port>/f/<32 hex digits>/<file below ui/>
//
// and each answer carries a policy that lets the page load files of that path and
// nothing else from anywhere. What the page wants of the host it says through a
// MessagePort to the shell, which hands the bytes on, unread, over a WebSocket:
//
//	shell  {"token": …, "app": …}                 text, the first message
//	server {"frame": URL, "name": …}              text; or {"problem": {…}} and the end
//	both   messages of the page protocol          binary (docs/spec/hostabi-v1.md §8)
//
// The token is the dashboard's; it never reaches a frame, and there are no
// cookies. Requests to the dashboard come through control.Server, which has
// checked Host and Origin; the app port checks Host itself.
package web

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/runtime/control"
)

//go:embed static
var static embed.FS

// A Page is an app that was opened for one frame.
type Page struct {
	Name  string // the app's own name for itself
	Index string // its first page, below ui/

	// File opens a file below ui/; an error of any kind is shown as missing.
	File func(path string) (io.ReadSeeker, error)
	// Serve talks the page protocol until ctx or the app ends.
	Serve func(ctx context.Context, conn hostabi.PageConn) error
}

// A Config says what a Server serves. Open and Authorized are required.
type Config struct {
	Open       func(app string) (*Page, error)
	Authorized func(token string) bool
	AppPort    int          // 0: any
	Logger     *slog.Logger // nil: discard
}

// A Server serves the dashboard (it is the http.Handler for control.Config.Pages)
// and, on a port of its own, the files of apps. Make it with Listen.
type Server struct {
	// Set by Listen, never changed.
	cfg       Config
	log       *slog.Logger
	listeners []net.Listener
	port      int
	files     fs.FS

	sessions sync.WaitGroup // of frames

	mu     sync.Mutex // guards the fields below
	frames map[string]*frame
	closed bool
}

// A frame is one open page: its path's files can be had while it is registered.
type frame struct {
	page  *Page
	shell string // origin of the shell that shows it
	end   context.CancelFunc
}

// Listen takes the app port on both loopback addresses (0: any). Busy: somebody has
// it on one of them. Nothing is answered before Run; without Run, Close lets go
// of the port.
func Listen(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Logger, frames: map[string]*frame{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.files, err = fs.Sub(static, "static"); err != nil {
		return nil, err
	}
	s.listeners, s.port, err = control.ListenLoopback(cfg.AppPort, "app_port")
	return s, err
}

// Close frees the port, if Run was never called.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// origin is where apps' files come from. It is always named by this address: a
// policy cannot name an IPv6 one.
func (s *Server) origin() string { return "http://127.0.0.1:" + strconv.Itoa(s.port) }

// Run serves the files of apps until ctx ends, and then waits until all frames
// have ended. It returns nil, or why it could not serve. To be called once.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler: http.HandlerFunc(s.serveApp), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
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
	s.mu.Lock()
	s.closed = true
	for _, f := range s.frames {
		f.end()
	}
	s.mu.Unlock()
	srv.Close()
	wg.Wait()
	s.sessions.Wait()
	return err
}

// register gives a frame its path. The caller calls the returned function, once,
// when the frame's session is over.
func (s *Server) register(f *frame) (key string, done func(), ok bool) {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24
	key = hex.EncodeToString(b[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", nil, false
	}
	s.frames[key] = f
	s.sessions.Add(1)
	return key, func() {
		s.mu.Lock()
		delete(s.frames, key)
		s.mu.Unlock()
		s.sessions.Done()
	}, true
}

func (s *Server) frame(key string) *frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frames[key]
}

// ServeHTTP serves the dashboard and the frames' WebSockets.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.Host, "[") {
		// A frame's policy must name the shell's origin, and no policy can name
		// this one. Browsers carry the code in the fragment along.
		_, port, _ := net.SplitHostPort(r.Host)
		http.Redirect(w, r, "http://127.0.0.1:"+port+"/", http.StatusTemporaryRedirect)
		return
	}
	if r.URL.Path == "/frame" {
		s.serveFrame(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", s.shellPolicy())
	h.Set("X-Frame-Options", "DENY")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), usb=(), serial=(), hid=(), payment=()")
	path := strings.TrimPrefix(r.URL.Path, "/")
	if path == "" {
		path = "index.html"
	}
	f, err := s.files.Open(path)
	if err != nil || strings.HasSuffix(path, "/") {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	content, ok := f.(io.ReadSeeker)
	if info, err := f.Stat(); !ok || err != nil || info.IsDir() {
		http.NotFound(w, r)
		return
	}
	h.Set("Content-Type", mediaType(path))
	http.ServeContent(w, r, "", time.Time{}, content)
}

func (s *Server) shellPolicy() string {
	return "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-src " + s.origin() +
		"; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
}

// framePolicy is the policy of one frame's files. own is the frame's path with
// its origin: 'self' would be the whole app port, other frames' paths included.
// The directive sandbox makes the origin opaque also for a page that somebody
// opens outside a frame.
func framePolicy(own, shell string) string {
	return fmt.Sprintf("sandbox allow-scripts; default-src 'none'; script-src %[1]s 'wasm-unsafe-eval'; style-src %[1]s 'unsafe-inline'; "+
		"img-src %[1]s data: blob:; font-src %[1]s data:; media-src %[1]s data: blob:; connect-src 'none'; frame-src 'none'; object-src 'none'; "+
		"worker-src 'none'; manifest-src 'none'; base-uri 'none'; form-action 'none'; webrtc 'block'; frame-ancestors %[2]s", own, shell)
}

// isolate are the headers of every answer of the app port, errors included: an
// error page without them would be a page with an origin.
func isolate(h http.Header, own, shell string) {
	h.Set("Content-Security-Policy", framePolicy(own, shell))
	h.Set("Connection-Allowlist", "(response-origin)") // closes what no CSP covers: preconnect, DNS, WebRTC
	h.Set("Access-Control-Allow-Origin", "*")          // an opaque origin needs CORS for modules and fonts; the path is the secret
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-DNS-Prefetch-Control", "off")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), usb=(), serial=(), hid=(), payment=(), display-capture=(), local-network-access=()")
	h.Set("Cache-Control", "no-store")
}

// serveApp serves the app port.
func (s *Server) serveApp(w http.ResponseWriter, r *http.Request) {
	isolate(w.Header(), "'none'", "'none'")
	if r.Host != strings.TrimPrefix(s.origin(), "http://") || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/f/")
	key, path, slash := strings.Cut(rest, "/")
	f := s.frame(key)
	if !ok || !slash || f == nil {
		http.NotFound(w, r)
		return
	}
	isolate(w.Header(), s.origin()+"/f/"+key+"/", f.shell)
	content, err := f.page.File(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mediaType(path))
	http.ServeContent(w, r, "", time.Time{}, content)
}

// mediaType goes by a table of our own: the machine's may say anything.
func mediaType(path string) string {
	dot := strings.LastIndexByte(path, '.')
	switch strings.ToLower(path[dot+1:]) {
	case "html", "htm":
		return "text/html; charset=utf-8"
	case "js", "mjs":
		return "text/javascript; charset=utf-8"
	case "css":
		return "text/css; charset=utf-8"
	case "json", "map":
		return "application/json"
	case "txt", "md", "csv":
		return "text/plain; charset=utf-8"
	case "svg":
		return "image/svg+xml"
	case "png":
		return "image/png"
	case "jpg", "jpeg":
		return "image/jpeg"
	case "gif":
		return "image/gif"
	case "webp":
		return "image/webp"
	case "woff2":
		return "font/woff2"
	case "wasm":
		return "application/wasm"
	}
	return "application/octet-stream"
}
