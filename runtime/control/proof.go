package control

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A node that was killed leaves its FileAPI, and any user of the machine may take
// its port. So a Client tells a connection nothing, not even the token, before
// the other end has proved that it knows the token of this home's FileAPI. Every
// connection proves itself, not a process once: a node may be killed, and its
// port taken, between two calls.
//
// The proof covers the address that the connection goes to, as each end sees it,
// so that whoever has the port at the other loopback address cannot have a node
// prove itself in their place.

// callProve is the call that a server answers without a token. It learns and
// tells nothing but the proof.
const callProve = "prove"

const (
	lenNonce  = 32
	lenToken  = 40 // hex digits, 160 bits
	proveTime = 10 * time.Second
	maxProve  = 4 << 10 // bytes of the request's body, and of the whole answer
	roleProve = "peers/local-api/1 server\x00"
)

// ProveRequest asks the server to prove that it knows the token.
type ProveRequest struct {
	Nonce string `json:"nonce"` // 32 random bytes in hex
}

// ProveAnswer proves it.
type ProveAnswer struct {
	Proof string `json:"proof"` // 32 bytes in hex
}

// proof is HMAC-SHA256(token, "peers/local-api/1 server" ‖ 0 ‖ nonce ‖ address):
// the token's hex digits, the 32 bytes of the nonce, and the server's end of the
// connection as "127.0.0.1:7717" or "[::1]:7717". docs/spec/local-api.md.
func proof(token string, nonce [lenNonce]byte, address string) []byte {
	m := hmac.New(sha256.New, []byte(token))
	m.Write([]byte(roleProve))
	m.Write(nonce[:])
	m.Write([]byte(address))
	return m.Sum(nil)
}

// check refuses an address that no server of ours announces. An empty token would
// let everybody prove that they know it.
func (a Address) check() error {
	u, err := url.Parse(a.URL)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil || u.Scheme != "http" || u.Path != "/" || !at.Addr().IsLoopback() {
		return fault.New(fault.Invalid, "", "", "%s is no address of a runtime on this machine", fault.Quote(a.URL))
	}
	if b, err := hex.DecodeString(a.Token); err != nil || len(b) != lenToken/2 {
		return fault.New(fault.Invalid, "", "", "it has no token of %d hex digits", lenToken)
	}
	return nil
}

// prove answers ProveRequest for the connection that ctx belongs to.
func (s *Server) prove(ctx context.Context, q ProveRequest) (ProveAnswer, error) {
	const op = "prove who answers"
	var nonce [lenNonce]byte
	b, err := hex.DecodeString(q.Nonce)
	if err != nil || len(b) != lenNonce {
		return ProveAnswer{}, fault.New(fault.Invalid, op, "", "the nonce is not %d bytes in hex", lenNonce)
	}
	copy(nonce[:], b)
	local, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return ProveAnswer{}, fault.New(fault.Internal, op, "", "the connection has no address")
	}
	return ProveAnswer{Proof: hex.EncodeToString(proof(s.token, nonce, local.String()))}, nil
}

// dial makes a connection and has its other end prove itself.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, proveTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, c.offline(fmt.Errorf("what it left names a port that nobody has: %w", err))
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = c.challenge(conn)
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	if err == nil {
		return conn, nil
	}
	conn.Close()
	return nil, c.offline(fmt.Errorf("another program has its port %s: %w", address, err))
}

// offline says that no node runs. It is no alarm: to whoever has the port now
// nothing was said but a random number.
func (c *Client) offline(cause error) error {
	return fault.New(fault.Offline, "reach the runtime", `start it with "peers-runtime up"`, "none runs on %s: %w", c.home, cause)
}

// challenge has the other end of a connection prove that it knows the token. The
// request is written and the answer read here, not by an http.Client, so that the
// proof is of this very connection.
func (c *Client) challenge(conn net.Conn) error {
	var nonce [lenNonce]byte
	rand.Read(nonce[:]) // never fails since Go 1.24
	body, err := json.Marshal(ProveRequest{Nonce: hex.EncodeToString(nonce[:])})
	if err != nil {
		return err
	}
	r, err := http.NewRequest(http.MethodPost, c.addr.URL+strings.TrimPrefix(prefix, "/")+callProve, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if err := r.Write(conn); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxProve))
	res, err := http.ReadResponse(in, r)
	if err != nil {
		return errors.New("it does not answer as a runtime does")
	}
	defer res.Body.Close()
	var a ProveAnswer
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(answer, &a) != nil {
		return errors.New("it does not answer as a runtime does")
	}
	got, err := hex.DecodeString(a.Proof)
	if err != nil || !hmac.Equal(got, proof(c.addr.Token, nonce, conn.RemoteAddr().String())) {
		return errors.New("it cannot prove that it is this home's runtime")
	}
	if in.Buffered() > 0 || res.Close {
		return errors.New("it does not answer as a runtime does")
	}
	return nil
}
