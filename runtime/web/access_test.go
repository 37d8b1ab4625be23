package web_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/peers-run/peers-runtime/runtime/control"
)

type rawJSON = json.RawMessage

// baseURL is the dashboard's address, with a slash at its end.
func baseURL(d *device) string {
	base, _, _ := strings.Cut(d.OpenURL(), "#")
	return base
}

func (d *device) token() string {
	d.t.Helper()
	var a control.Address
	b, err := os.ReadFile(filepath.Join(d.home, control.FileAPI))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return a.Token
}

// ask sends a request with a Host and headers of the test's choice.
func ask(t *testing.T, method, url, host string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestStrangersLearnNothing(t *testing.T) {
	d := start(t)
	d.newUser()
	base := baseURL(d)
	token := "Bearer " + d.token()
	for _, c := range []struct {
		name, method, path, host string
		headers                  []string
	}{
		{"no token", "POST", "api/v1/status", "", nil},
		{"a wrong token", "POST", "api/v1/status", "", []string{"Authorization", "Bearer " + strings.Repeat("0", 40)}},
		{"another origin with the token", "POST", "api/v1/status", "", []string{"Authorization", token, "Origin", "https://evil.example"}},
		{"an opaque origin", "POST", "api/v1/status", "", []string{"Authorization", token, "Origin", "null"}},
		{"a rebound name", "POST", "api/v1/status", "evil.example", []string{"Authorization", token}},
		{"a rebound name with the port", "POST", "api/v1/status", "evil.example" + base[len("http://127.0.0.1"):len(base)-1], []string{"Authorization", token}},
		{"a cross-site link", "GET", "", "", []string{"Sec-Fetch-Site", "cross-site"}},
		{"a cross-site frame", "GET", "", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
		{"a cross-site fetch of the page", "GET", "", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Origin", "https://evil.example"}},
		{"a cross-site tab of another file", "GET", "main.js", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}},
		{"a cross-site form", "POST", "", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Origin", "null"}},
		{"a cross-site tab of the API", "GET", "api/v1/status", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}},
		{"another port of this machine", "GET", "main.js", "", []string{"Sec-Fetch-Site", "same-site"}},
		{"a wrong name for the page", "GET", "", "evil.example", nil},
		{"a socket of another origin", "GET", "frame", "", []string{"Origin", "http://127.0.0.1:1"}},
		{"a socket without origin", "GET", "frame", "", nil},
		{"the session with a wrong name", "POST", "api/v1/session", "evil.example", nil},
		{"a GET of the API", "GET", "api/v1/status", "", []string{"Authorization", token}},
	} {
		res, body := ask(t, c.method, base+c.path, c.host, c.headers...)
		if res.StatusCode != http.StatusForbidden || body != "forbidden\n" {
			t.Errorf("%s: %d %q", c.name, res.StatusCode, body)
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "" || res.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: headers %v", c.name, res.Header)
		}
	}
	// A tab of its own may come from anywhere: the page says nothing by itself.
	tab := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	if res, body := ask(t, "GET", base, "", tab...); res.StatusCode != http.StatusOK || res.Header.Get("X-Frame-Options") != "DENY" ||
		res.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" || !strings.Contains(body, "main.js") || strings.Contains(body, d.Node().ID().Short()) {
		t.Errorf("a tab from elsewhere: %d %v %s", res.StatusCode, res.Header, body)
	}
	if res, body := ask(t, "POST", base+"api/v1/status", "", "Authorization", token); res.StatusCode != http.StatusOK {
		t.Fatalf("with the token: %d %s", res.StatusCode, body)
	}
}

func TestShellPolicy(t *testing.T) {
	d := start(t)
	res, body := ask(t, "GET", baseURL(d), "")
	csp := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:", "frame-src http://127.0.0.1:", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("the policy %q lacks %s", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || !strings.Contains(body, "main.js") {
		t.Errorf("%s\n%s", csp, body)
	}
	for path, want := range map[string]int{"style.css": 200, "nothing.js": 404, "static/main.js": 404, "../web.go": 404, "index.html/": 404} {
		if res, _ := ask(t, "GET", baseURL(d)+path, ""); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	if res, _ := ask(t, "GET", baseURL(d), strings.Replace(strings.TrimSuffix(baseURL(d), "/")[len("http://"):], "127.0.0.1", "[::1]", 1)); res.StatusCode != http.StatusTemporaryRedirect || res.Header.Get("Location") != baseURL(d) {
		t.Errorf("[::1]: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
}

// A frame's files can be had with its path only, while it lives only, and never
// without the headers that shut it in.
func TestFrameFiles(t *testing.T) {
	d := start(t)
	d.newUser()
	d.install("../../examples/atlas", true)
	d.running("atlas")
	ctx := t.Context()
	c, _, err := websocket.Dial(ctx, strings.Replace(baseURL(d), "http", "ws", 1)+"frame", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {strings.TrimSuffix(baseURL(d), "/")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"token":"`+d.token()+`","app":"atlas"}`)); err != nil {
		t.Fatal(err)
	}
	var hello struct{ Frame, Name string }
	_, b, err := c.Read(ctx)
	if err != nil || json.Unmarshal(b, &hello) != nil || hello.Name != "Atlas" {
		t.Fatalf("%s %v", b, err)
	}
	own := strings.TrimSuffix(hello.Frame, "index.html")
	origin, _, _ := strings.Cut(own, "/f/")
	for path, want := range map[string]int{
		hello.Frame: 200, own + "atlas.js": 200, own + "peers/peers.js": 200, own: 404, own + "../app.toml": 404, own + "%2e%2e/app.toml": 404,
		origin + "/": 404, origin + "/f/" + strings.Repeat("0", 32) + "/index.html": 404, own + "META/index": 404,
	} {
		res, _ := ask(t, "GET", path, "")
		csp := res.Header.Get("Content-Security-Policy")
		if res.StatusCode != want || !strings.HasPrefix(csp, "sandbox allow-scripts; default-src 'none'") || strings.Contains(csp, "allow-same-origin") ||
			!strings.Contains(csp, "connect-src 'none'") || res.Header.Get("Connection-Allowlist") != "(response-origin)" ||
			res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %d, want %d: %v", path, res.StatusCode, want, res.Header)
		}
	}
	res, _ := ask(t, "GET", hello.Frame, "")
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "script-src "+own+" ") || !strings.Contains(csp, "frame-ancestors "+strings.TrimSuffix(baseURL(d), "/")) {
		t.Errorf("the frame's policy: %s", csp)
	}
	for _, host := range []string{"evil.example", strings.Replace(origin[len("http://"):], "127.0.0.1", "localhost", 1)} {
		if res, body := ask(t, "GET", hello.Frame, host); res.StatusCode != http.StatusForbidden || body != "forbidden\n" {
			t.Errorf("host %s: %d %q", host, res.StatusCode, body)
		}
	}
	c.Close(websocket.StatusNormalClosure, "")
	eventually(t, "the path dies with the session", func() bool {
		res, _ := ask(t, "GET", hello.Frame, "")
		return res.StatusCode == http.StatusNotFound
	})
}

func TestSocketRefuses(t *testing.T) {
	d := start(t)
	d.newUser()
	for _, c := range []struct {
		name, first string
		code        websocket.StatusCode
		problem     bool
	}{
		{"no token", `{"app":"atlas"}`, websocket.StatusPolicyViolation, false},
		{"a wrong token", `{"token":"x","app":"atlas"}`, websocket.StatusPolicyViolation, false},
		{"no JSON", `hello`, websocket.StatusPolicyViolation, false},
		{"no such app", `{"token":"` + d.token() + `","app":"nothing"}`, websocket.StatusNormalClosure, true},
	} {
		ws, _, err := websocket.Dial(t.Context(), strings.Replace(baseURL(d), "http", "ws", 1)+"frame", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {strings.TrimSuffix(baseURL(d), "/")}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(c.first)); err != nil {
			t.Fatal(err)
		}
		_, b, err := ws.Read(t.Context())
		if c.problem {
			if err != nil || !strings.Contains(string(b), "not-found") {
				t.Errorf("%s: %s %v", c.name, b, err)
			}
			_, _, err = ws.Read(t.Context())
		}
		var end websocket.CloseError
		if !errors.As(err, &end) || end.Code != c.code || strings.Contains(end.Reason, "atlas") {
			t.Errorf("%s: %v", c.name, err)
		}
		ws.CloseNow()
	}
}
