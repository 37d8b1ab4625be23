package browser

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestOpener(t *testing.T) {
	for _, c := range []struct {
		system string
		env    []string
		want   string
	}{
		{"linux", nil, ""},
		{"linux", []string{"DISPLAY"}, "xdg-open"},
		{"linux", []string{"WAYLAND_DISPLAY"}, "xdg-open"},
		{"freebsd", []string{"DISPLAY"}, "xdg-open"},
		{"darwin", nil, "open"},
		{"windows", nil, "rundll32 url.dll,FileProtocolHandler"},
	} {
		got := strings.Join(opener(c.system, func(k string) string {
			if slices.Contains(c.env, k) {
				return ":0"
			}
			return ""
		}), " ")
		if got != c.want {
			t.Errorf("%s with %v: %q, want %q", c.system, c.env, got, c.want)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("DISPLAY", ":0")
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if err := Open(t.Context(), "x"); !errors.Is(err, ErrNoDesktop) {
		t.Errorf("without an opener: %v", err)
	}
	script := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script(`printf %s "$*" >` + filepath.Join(dir, "seen"))
	const target = "/home/a b/$(x)&;open.html"
	if err := Open(t.Context(), target); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "seen")); err != nil || string(b) != target {
		t.Errorf("the opener got %q, %v", b, err)
	}
	script("exit 3")
	if err := Open(t.Context(), target); err == nil || !strings.Contains(err.Error(), "xdg-open: exit status 3") {
		t.Errorf("an opener that fails: %v", err)
	}
	// One that stays is left alone: its end is the closing of this pipe.
	fifo := filepath.Join(dir, "fifo")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	script("read line </proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(r.Fd())) + "\n: >" + fifo)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Open(ctx, target); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(fifo); err == nil {
		t.Error("the opener had ended already")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
