package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// The dashboard shows the last lines from level info on, whatever the log itself
// shows.
func TestRecent(t *testing.T) {
	for _, c := range []struct {
		level slog.Level
		main  []string // what the log itself has
	}{
		{slog.LevelDebug, []string{"quiet", "news", "trouble"}},
		{slog.LevelInfo, []string{"news", "trouble"}},
		{slog.LevelWarn, []string{"trouble"}},
	} {
		var main bytes.Buffer
		r := new(recent)
		log := slog.New(r.tee(slog.NewTextHandler(&main, &slog.HandlerOptions{Level: c.level})))
		log = log.With("device", "D1").WithGroup("g")
		log.Debug("quiet", "n", 1)
		log.Info("news", "n", 2)
		log.Warn("trouble", "n", 3)
		got := r.all()
		if len(got) != 2 || !strings.Contains(got[0], "msg=news device=D1 g.n=2") || !strings.Contains(got[1], "level=WARN msg=trouble") || strings.HasSuffix(got[0], "\n") {
			t.Errorf("level %v: %q", c.level, got)
		}
		for _, m := range []string{"quiet", "news", "trouble"} {
			want := false
			for _, w := range c.main {
				want = want || w == m
			}
			if strings.Contains(main.String(), "msg="+m) != want {
				t.Errorf("level %v: the log itself has %s", c.level, main.String())
			}
		}
	}
}

func TestRecentForgets(t *testing.T) {
	r := new(recent)
	log := slog.New(r.tee(slog.DiscardHandler))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range recentLines {
				log.Info("line", "w", w, "i", i)
			}
		})
	}
	wg.Wait()
	log.Info("the last")
	got := r.all()
	if len(got) != recentLines || !strings.Contains(got[recentLines-1], "the last") {
		t.Errorf("%d lines are kept, the last is %q", len(got), got[len(got)-1])
	}
	got[0] = "changed"
	if r.all()[0] == "changed" {
		t.Error("a caller changes what is kept")
	}
}

// JSON carries the lines: they are text, whatever was logged.
func TestRecentIsText(t *testing.T) {
	r := new(recent)
	if n, err := r.Write([]byte("a \xff b\n")); n != 6 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if got := fmt.Sprint(r.all()); !utf8.ValidString(got) || got != "[a ? b]" {
		t.Errorf("%q", got)
	}
	if got := new(recent).all(); got == nil || len(got) != 0 {
		t.Errorf("nothing logged is %#v, and JSON's null", got)
	}
}
