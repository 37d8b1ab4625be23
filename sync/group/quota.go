package group

import (
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/quota"
	"github.com/peers-run/peers-runtime/sync/record"
)

// mayBegin decides whether another's run that begins a branch is stored.
func (x *txn) mayBegin(id record.Stream, role keys.Hash) error {
	if id.Device == x.g.self.ID() {
		return nil // its own, from before it was restored
	}
	num, known := x.g.tables.Spaces[id.Namespace]
	census := quota.NewCensus(num, known, len(x.g.tables.Spaces))
	for n, s := range x.g.streams {
		if x.streams[n] == nil {
			census.Add(&s.row)
		}
	}
	for _, s := range x.streams {
		census.Add(&s.row)
	}
	standing := quota.Open
	if x.view.state.Judge(id, role).Standing != control.Valid {
		standing = quota.Outsider
	} else if seq, _, closed := x.view.state.Cut(id, role); closed && seq == 0 {
		standing = quota.Closed
	}
	return census.MayBegin(standing)
}
