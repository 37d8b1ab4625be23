package group

import (
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A spaceSchema is what an app declared about a namespace.
type spaceSchema struct{}

func (s *spaceSchema) entries(dst [][]byte, c record.CollectionID, id record.ID, st *record.State) [][]byte {
	return dst
}

func (g *Group) loadSchema(tx store.Tx, sp *space) error { return nil }
