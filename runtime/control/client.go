package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Client calls the local API of a home's running node. Safe for concurrent
// use.
type Client struct {
	home string
	addr Address
	http *http.Client
}

// idle is how many connections are kept for the next call: as many as the import
// of a file has under way, since each new one must prove itself first.
const idle = 16

// Dial finds the API of the node that runs on a home. It does not connect: a
// FileAPI that a killed node left is noticed by the first Call, with
// fault.Offline, before anything is told to whoever has its port now.
func Dial(home string) (*Client, error) {
	b, err := os.ReadFile(filepath.Join(home, FileAPI))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notRunning(home)
	}
	c := &Client{home: home}
	c.http = &http.Client{Transport: &http.Transport{DialContext: c.dial, MaxIdleConnsPerHost: idle}}
	if err == nil {
		err = json.Unmarshal(b, &c.addr)
	}
	if err == nil {
		err = c.addr.check()
	}
	if err != nil {
		return nil, fault.Wrap(err, "read "+FileAPI, `stop the runtime, if it runs, and start it again with "peers-runtime up"`)
	}
	return c, nil
}

func notRunning(home string) error {
	return fault.New(fault.Offline, "reach the runtime", `start it with "peers-runtime up"`, "none runs on %s", home)
}

// A ProblemError is an error that the server answered with.
type ProblemError struct{ Problem }

func (e *ProblemError) Error() string { return e.Problem.Error }

// Call makes a call. A nil answer discards what comes. fault.Offline says that
// no node of this home answers; the other errors are the node's, or ctx's.
func (c *Client) Call(ctx context.Context, name string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.addr.URL+"api/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.addr.Token)
	r.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if f, ok := errors.AsType[*fault.Error](err); ok {
			return f // the connection was not made; the rest of err repeats the address
		}
		return fault.New(fault.Offline, "reach the runtime", `start it with "peers-runtime up"`, "%w", err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		if answer == nil {
			_, err = io.Copy(io.Discard, res.Body)
			return err
		}
		return json.NewDecoder(res.Body).Decode(answer)
	}
	var p Problem
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&p); err != nil || p.Error == "" {
		return fmt.Errorf("the runtime answered %s", res.Status)
	}
	code := fault.Internal
	for _, known := range fault.Codes() {
		if known.String() == p.Code {
			code = known
		}
	}
	return &fault.Error{Code: code, Hint: p.Hint, Err: &ProblemError{p}}
}

// Close lets go of connections that are kept for the next call.
func (c *Client) Close() { c.http.CloseIdleConnections() }
