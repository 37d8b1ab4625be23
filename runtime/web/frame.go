package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/control"
)

// helloTime is how long a socket may stay silent before it says who it is.
const helloTime = 10 * time.Second

type frameRequest struct {
	Token string `json:"token"`
	App   string `json:"app"`
}

type frameAnswer struct {
	Frame   string           `json:"frame,omitempty"`
	Name    string           `json:"name,omitempty"`
	Problem *control.Problem `json:"problem,omitempty"`
}

// serveFrame is the session of one frame, over the shell's WebSocket.
func (s *Server) serveFrame(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") != "http://"+r.Host {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	page, err := s.greet(ctx, c)
	if err != nil {
		refuse(ctx, c, err)
		return
	}
	key, done, ok := s.register(&frame{page: page, shell: "http://" + r.Host, end: cancel})
	if !ok {
		return
	}
	defer done()
	hello, err := json.Marshal(frameAnswer{Frame: s.origin() + "/f/" + key + "/" + page.Index, Name: page.Name})
	if err != nil || c.Write(ctx, websocket.MessageText, hello) != nil {
		return
	}
	c.SetReadLimit(hostabi.MaxPageMessage)
	err = page.Serve(ctx, socket{c})
	code, why := websocket.StatusNormalClosure, ""
	if err != nil && ctx.Err() == nil && websocket.CloseStatus(err) == -1 {
		s.log.Debug("a page's session ended", "app", page.Name, "error", err)
		code, why = websocket.StatusPolicyViolation, fault.Quote(err.Error())
	}
	c.Close(code, fault.Cap(why, 120)) // the other side may be gone
}

var errForbidden = errors.New("forbidden")

// greet reads the first message. Whoever has no token learns nothing but that.
func (s *Server) greet(ctx context.Context, c *websocket.Conn) (*Page, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	c.SetReadLimit(4 << 10)
	_, b, err := c.Read(ctx)
	if err != nil {
		return nil, errForbidden
	}
	var q frameRequest
	if json.Unmarshal(b, &q) != nil || !s.cfg.Authorized(q.Token) {
		return nil, errForbidden
	}
	return s.cfg.Open(q.App)
}

func refuse(ctx context.Context, c *websocket.Conn, err error) {
	if errors.Is(err, errForbidden) {
		c.Close(websocket.StatusPolicyViolation, "forbidden")
		return
	}
	problem := control.ProblemOf(err)
	if b, err := json.Marshal(frameAnswer{Problem: &problem}); err == nil && c.Write(ctx, websocket.MessageText, b) == nil {
		c.Close(websocket.StatusNormalClosure, "")
	}
}

// socket is a page's connection: binary messages only.
type socket struct{ c *websocket.Conn }

var errText = fault.New(fault.Protocol, "talk to the page", "reload the page", "it sent text, not bytes")

// Read implements hostabi.PageConn.
func (s socket) Read(ctx context.Context) ([]byte, error) {
	kind, b, err := s.c.Read(ctx)
	if err == nil && kind != websocket.MessageBinary {
		err = errText
	}
	return b, err
}

// Write implements hostabi.PageConn.
func (s socket) Write(ctx context.Context, message []byte) error {
	return s.c.Write(ctx, websocket.MessageBinary, message)
}
