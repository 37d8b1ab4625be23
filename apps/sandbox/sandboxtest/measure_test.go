package sandboxtest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// counting sees that the guest reads as often as is claimed.
type counting struct {
	*hostabitest.Memory
	views int
}

func (c *counting) View(ctx context.Context, read func(schema.Source) error) error {
	c.views++
	return c.Memory.View(ctx, read)
}

func TestMeasures(t *testing.T) {
	ctx, s := context.Background(), hostabitest.SuiteSchema()
	store := &counting{Memory: hostabitest.NewMemory(s)}
	c, id := s.Collections[0].ID, record.ID{1}
	err := store.Commit(ctx, &hostabi.Transaction{Writes: []hostabi.Write{{Code: hostabi.WritePut, Collection: c, Record: id}}})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := Peers(ctx, filepath.Join(t.TempDir(), "cache"), store, s, c, id)
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	bare, err := Bare(ctx, func() []byte { reads++; return []byte{0xa0} })
	if err != nil {
		t.Fatal(err)
	}
	store.views, reads = 0, 0
	for _, side := range []*Side{ours, bare} {
		if d, err := side.Run(ctx, 2); err != nil || d <= 0 {
			t.Errorf("%s, %v", d, err)
		}
		if err := side.Close(); err != nil {
			t.Error(err)
		}
	}
	if store.views != 2*GetsPerEvent || reads != 2*GetsPerEvent {
		t.Errorf("%d and %d reads", store.views, reads)
	}
	times, err := Starts(ctx, filepath.Join(t.TempDir(), "cache"), getter(c, id), 3)
	if err != nil || len(times) != 3 {
		t.Errorf("%v, %v", times, err)
	}
}
