package web_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// What the dashboard says of a namespace, for what the local API answers.
func TestWords(t *testing.T) {
	d := start(t)
	d.newUser()
	b := browse(t)
	b.open(d.OpenURL())
	at := time.Now().Truncate(time.Minute)
	clock := at.Format("15:04")
	for _, c := range []struct {
		peer control.SpacePeer
		want string
	}{
		{control.SpacePeer{Equal: at}, "equal with phone since " + clock},
		{control.SpacePeer{ToGet: 59}, "syncing 41 % from phone"},
		{control.SpacePeer{ToSend: 10}, "syncing 75 % to phone"},
		{control.SpacePeer{Drift: true, Equal: at}, "differs from phone though nothing is missing"},
		{control.SpacePeer{ToGet: 1, Stalled: []control.Stall{{Reason: "16 forks"}}}, "stalled: no more of one stream is taken from phone: 16 forks"},
		{control.SpacePeer{}, "comparing with phone"},
	} {
		if got := said(t, b, "stand", c.peer, control.Space{Batches: 41}, "phone"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.peer, got, c.want)
		}
	}
	if got, want := said(t, b, "stand", control.SpacePeer{}, control.Space{}, "phone"), "nothing to sync with phone yet"; got != want {
		t.Errorf("an empty namespace: %q, want %q", got, want)
	}
	for _, c := range []struct {
		wait   control.Waiting
		device map[string]any
		want   string
	}{
		{control.Waiting{Batches: 1, Due: at}, map[string]any{"skew_ms": 2 * 3600 * 1000}, "held: phone’s clock is 2 h ahead; 1 change will show at " + clock},
		{control.Waiting{Batches: 7, Due: at}, map[string]any{}, "held: phone wrote with a clock that is ahead; 7 changes will show at " + clock},
		{control.Waiting{Batches: 2, Reason: "no key yet"}, nil, "waiting: 2 changes of phone: no key yet"},
	} {
		if got := said(t, b, "waits", c.wait, c.device, "phone"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.wait, got, c.want)
		}
	}
}

// said is what a function of words.js answers, or the text in it.
func said(t *testing.T, b *tab, function string, args ...any) (text string) {
	t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	b.eval(fmt.Sprintf(`import("/words.js").then(m => { const a = m[%q](...%s); return a.text ?? a })`, function, raw), &text)
	return text
}
