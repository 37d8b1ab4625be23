package linktest

import (
	"context"
	"testing"
	"time"
)

func TestSides(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for name, make := range map[string]func(context.Context) (*Side, error){"raw": Raw, "links": Links} {
		s, err := make(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 2 {
			if took, err := s.Push(ctx, 1<<20); err != nil || took <= 0 {
				t.Errorf("%s: %v, %v", name, took, err)
			}
		}
		cancel := time.AfterFunc(20*time.Second, func() { panic(name + " does not close") })
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel.Stop()
	}
}

func TestMeet(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	m, err := Meet(ctx)
	if err != nil || m.Found <= 0 || m.Connected < m.Found {
		t.Errorf("%+v, %v", m, err)
	}
	t.Logf("%+v", m)
}
