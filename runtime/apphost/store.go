package apphost

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// Origins of transactions, as the group's change feed tells them back.
const (
	originGuest group.Origin = "guest"
	originPage  group.Origin = "page"
)

// A Store is an app's namespace in a group, as hostabi wants it. All exported
// fields are required. It is safe for concurrent use.
type Store struct {
	Group     *group.Group
	Namespace record.NamespaceID
	User      keys.UserID // whose device this is
	Now       func() time.Time
	Random    io.Reader

	// mu guards the fields below: the last author id made.
	mu     sync.Mutex
	lastMS int64
	lastN  uint16
}

// View implements hostabi.Store.
func (s *Store) View(_ context.Context, read func(schema.Source) error) error {
	return s.Group.Read(s.Namespace, read)
}

// NewID implements hostabi.Store.
func (s *Store) NewID(_ context.Context, c record.CollectionID, key []byte) (record.ID, error) {
	if len(key) > 0 {
		if c.Rule() == record.RuleAuthor {
			return record.ID{}, fault.New(fault.Invalid, "make a record id", "", "records of an author collection have no natural key")
		}
		return record.KeyID(s.Namespace, c, key), nil
	}
	var random [10]byte
	if _, err := io.ReadFull(s.Random, random[:]); err != nil {
		return record.ID{}, err
	}
	ms := s.Now().UnixMilli()
	if c.Rule() == record.RuleAuthor {
		ms, n := s.authorCount(ms, binary.BigEndian.Uint16(random[:]))
		return record.AuthorID(s.User, s.Group.ID(), s.Namespace, c, ms, n), nil
	}
	return record.NewID(ms, random), nil
}

// authorCount makes each pair of time and number differ from those before. An
// author id has only 16 bits beside its millisecond: drawn at random, two of a few
// hundred would be the same. The first of a millisecond is random, so that another
// device of the user draws another.
func (s *Store) authorCount(ms int64, random uint16) (int64, uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ms > s.lastMS:
		s.lastMS, s.lastN = ms, random
	case s.lastN == math.MaxUint16:
		s.lastMS, s.lastN = s.lastMS+1, 0
	default:
		s.lastN++
	}
	return s.lastMS, s.lastN
}

// Key implements hostabi.Store.
func (s *Store) Key(_ context.Context, key []byte) ([]byte, error) {
	v, ok, err := s.Group.Local(s.Namespace, key)
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "", "", "there is no such key")
	}
	return v, err
}

// Keys implements hostabi.Store.
func (s *Store) Keys(_ context.Context, prefix, after []byte, limit int) ([]hostabi.Pair, error) {
	list, err := s.Group.LocalList(s.Namespace, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	pairs := make([]hostabi.Pair, len(list))
	for i, p := range list {
		pairs[i] = hostabi.Pair{Key: p.Key, Value: p.Value}
	}
	return pairs, nil
}

// Changes implements hostabi.Store. A Position is the group's change counter of
// the namespace; the empty one is before everything.
func (s *Store) Changes(_ context.Context, since hostabi.Since) (hostabi.Changes, error) {
	var after uint64
	known := len(since.Position) == 8
	if known {
		after = binary.BigEndian.Uint64([]byte(since.Position))
	}
	list, position, ok := s.Group.Changes(s.Namespace, after)
	out := hostabi.Changes{Next: hostabi.Position(binary.BigEndian.AppendUint64(nil, position))}
	if !known || !ok {
		if position == 0 {
			return out, nil // nothing was ever written
		}
		for _, c := range since.Collections {
			out.Touched = append(out.Touched, hostabi.Touched{Collection: c, Reset: true})
		}
		return out, nil
	}
	type seenKey struct {
		collection record.CollectionID
		record     record.ID
	}
	touched := map[record.CollectionID]*hostabi.Touched{}
	seen := map[seenKey]bool{}
	for _, ch := range list {
		if since.SkipGuest && ch.Origin == originGuest || !slices.Contains(since.Collections, ch.Collection) {
			continue
		}
		t := touched[ch.Collection]
		if t == nil {
			t = &hostabi.Touched{Collection: ch.Collection}
			touched[ch.Collection] = t
		}
		if t.Reset || seen[seenKey{ch.Collection, ch.Record}] {
			continue
		}
		seen[seenKey{ch.Collection, ch.Record}] = true
		if t.Records = append(t.Records, ch.Record); len(t.Records) > since.Max {
			*t = hostabi.Touched{Collection: ch.Collection, Reset: true}
		}
	}
	for _, t := range touched {
		out.Touched = append(out.Touched, *t)
	}
	slices.SortFunc(out.Touched, func(a, b hostabi.Touched) int { return int(a.Collection) - int(b.Collection) })
	return out, nil
}

// Commit implements hostabi.Store.
func (s *Store) Commit(ctx context.Context, t *hostabi.Transaction) error {
	tr := group.Transaction{Namespace: s.Namespace, Origin: originGuest}
	if t.Origin == hostabi.OriginPage {
		tr.Origin = originPage
	}
	for _, w := range t.Writes {
		kind := group.Put
		switch w.Code {
		case hostabi.WriteReplace:
			kind = group.Replace
		case hostabi.WriteDelete:
			kind = group.Delete
		}
		tr.Writes = append(tr.Writes, group.Write{Kind: kind, Collection: w.Collection, Record: w.Record, Cells: w.Cells})
	}
	for _, k := range t.Keys {
		tr.Local = append(tr.Local, group.LocalWrite{Key: k.Key, Value: k.Value})
	}
	_, err := s.Group.Commit(ctx, &tr)
	return err
}
