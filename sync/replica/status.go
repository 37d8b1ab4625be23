package replica

import (
	"slices"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A Status is what a session knows about being in step.
type Status struct {
	Peer    keys.DeviceID
	Skew    time.Duration // the peer's clock minus ours, at Hello
	Hello   bool          // the peer has said Hello
	Spaces  []SpaceStatus
	Moved   Counters
	Last    time.Time // when something useful last arrived
	Waiting int       // bytes received and not yet durable
}

// A SpaceStatus is how far a namespace is in step with the peer.
type SpaceStatus struct {
	Namespace record.NamespaceID
	Equal     time.Time // since when both have the same batches and digests; zero if they have not
	Drift     bool      // the same batches but other digests
	ToGet     uint64    // batches that the peer said it has and we lack
	ToSend    uint64    // batches that we have and the peer has not acknowledged, nor said it has
	Have      uint64    // batches stored here
	Stalled   []Stalled // streams of which no more is taken from the peer, a few of them if they are many
}

const maxListed = 16

// A Stalled stream exceeds a quota of this device.
type Stalled struct {
	Stream record.Stream
	Reason string
}

// Status is a snapshot of the session.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Peer: s.peer, Skew: s.skew, Hello: s.helloed, Moved: s.stats, Last: s.last, Waiting: s.inflight}
	for _, sp := range s.order {
		st.Spaces = append(st.Spaces, s.spaceStatus(sp))
	}
	return st
}

func (s *Session) spaceStatus(sp *space) SpaceStatus {
	st := SpaceStatus{Namespace: sp.id, Equal: sp.equal, Drift: sp.drift}
	for stream, reason := range sp.stall {
		st.Stalled = append(st.Stalled, Stalled{stream, reason})
	}
	slices.SortFunc(st.Stalled, func(a, b Stalled) int { return a.Stream.Compare(b.Stream) })
	st.Stalled = st.Stalled[:min(len(st.Stalled), maxListed)]
	stored := map[record.Stream]uint64{}
	for _, t := range s.g.Vector(sp.id) {
		st.Have += t.Seq
		stored[t.Stream] = max(stored[t.Stream], t.Seq)
		theirs := uint64(0)
		for _, o := range sp.theirs[t.Stream] {
			theirs = max(theirs, o.Seq)
		}
		if sp.known && t.Seq > theirs {
			st.ToSend += t.Seq - theirs
		}
	}
	for stream, tips := range sp.theirs {
		top := uint64(0)
		for _, t := range tips {
			top = max(top, t.Seq)
		}
		if have := stored[stream]; top > have {
			st.ToGet += top - have
		}
	}
	return st
}
