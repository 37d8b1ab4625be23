package control

import (
	"bytes"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// Bounds of identity ops that came before anything says whose they are.
const (
	maxStrays     = 256
	maxStrayBytes = 4 << 20
)

// A Raw is an op as received, and the log it belongs to: the identity log of
// User, or the control log when User is zero.
type Raw struct {
	User  keys.UserID
	Bytes []byte
}

// IsControl reports an op of the control log.
func (r Raw) IsControl() bool { return r.User == keys.UserID{} }

// Heads says what somebody has of a group's logs.
type Heads struct {
	Control []keys.Hash // ascending
	Users   []UserHeads // ascending by user
}

// UserHeads are the heads of one user's identity log.
type UserHeads struct {
	User  keys.UserID
	Heads []keys.Hash // ascending
}

// Equal reports whether two heads are of the same ops.
func (h Heads) Equal(o Heads) bool {
	return slices.Equal(h.Control, o.Control) && slices.EqualFunc(h.Users, o.Users, func(a, b UserHeads) bool {
		return a.User == b.User && slices.Equal(a.Heads, b.Heads)
	})
}

// A Log is a group's control ops and its members' identity logs. Not safe for
// concurrent use: the group's engine owns it. The States it gives out are.
type Log struct {
	group   keys.GroupID
	control *oplog.Set
	users   map[keys.UserID]*userLog // every user an op names, member or not
	owner   map[keys.Hash]keys.UserID
	strays  map[keys.Hash]*oplog.Op // identity ops none of whose parents is here
	stray   int                     // bytes of strays

	// state is of the ops there were at the last Resolve, or nil when what came
	// since touches more than itself.
	state *State
}

type userLog struct {
	set   *oplog.Set
	state *identity.State // of everything added, or nil
}

// NewLog makes an empty log for group.
func NewLog(group keys.GroupID) *Log {
	return &Log{
		group:   group,
		control: oplog.New(keys.DomainControlOp, keys.Hash(group), decodeBody),
		users:   map[keys.UserID]*userLog{},
		owner:   map[keys.Hash]keys.UserID{},
		strays:  map[keys.Hash]*oplog.Op{},
	}
}

// Group is whose log this is.
func (l *Log) Group() keys.GroupID { return l.group }

// Add takes in an op of either kind of log: see AddControl and AddIdentity.
func (l *Log) Add(r Raw) ([]Raw, error) {
	if r.IsControl() {
		return l.AddControl(r.Bytes)
	}
	return l.AddIdentity(r.Bytes)
}

// AddControl takes in a control op and returns the ops that became part of the
// log by it, parents first: none if it was known or waits for parents, else itself
// and those that waited for it. They are what the caller stores, in this order.
// Errors are those of oplog.Set.Add; nothing has changed then.
func (l *Log) AddControl(raw []byte) ([]Raw, error) {
	out, err := l.control.Add(raw)
	if err != nil {
		return nil, err
	}
	var added []Raw
	for _, o := range out.Admitted {
		added = append(added, Raw{Bytes: o.Raw()})
		switch b := o.Body.(type) {
		case create:
			l.name(b.Owner)
		case addUser:
			l.name(b.User)
		}
	}
	return added, nil
}

// name makes room for the identity log of a user.
func (l *Log) name(user keys.UserID) {
	if l.users[user] == nil {
		l.users[user] = &userLog{set: identity.NewSet(user)}
		l.state = nil
	}
}

// AddIdentity takes in an op of a member's identity log; it finds out whose. A log
// that no control op names is refused, so the control ops go first. The results are
// those of AddControl.
func (l *Log) AddIdentity(raw []byte) ([]Raw, error) {
	o, err := oplog.Decode(keys.DomainIdentityOp, bytes.Clone(raw))
	if err != nil {
		return nil, err
	}
	user, known := l.userOf(o)
	switch {
	case known:
		return l.addIdentity(user, o)
	case len(o.Parents) == 0:
		return nil, fault.New(fault.NotFound, "add the identity op", "send the control ops first", "user %s is not named in this group", o.Hash.Short())
	case l.strays[o.Hash] != nil:
		return nil, nil
	case !o.Verify(keys.DomainIdentityOp):
		return nil, fault.New(fault.Untrusted, "add the identity op", "the link that sent it is broken or hostile", "the signature of op %s does not hold", o.Hash.Short())
	case len(l.strays) >= maxStrays || l.stray+len(raw) > maxStrayBytes:
		return nil, fault.New(fault.Busy, "add the identity op", "send its parents first", "%d identity ops lack parents already", len(l.strays))
	}
	l.strays[o.Hash] = o
	l.stray += len(raw)
	return nil, nil
}

// userOf finds the log that o belongs to: the one it is the genesis of, or that
// has one of its parents.
func (l *Log) userOf(o *oplog.Op) (keys.UserID, bool) {
	if len(o.Parents) == 0 {
		user := keys.UserID(o.Hash)
		return user, l.users[user] != nil
	}
	for _, p := range o.Parents {
		if user, ok := l.owner[p]; ok {
			return user, true
		}
	}
	return keys.UserID{}, false
}

func (l *Log) addIdentity(user keys.UserID, o *oplog.Op) ([]Raw, error) {
	log := l.users[user]
	out, err := log.set.AddOp(o)
	if err != nil {
		return nil, err
	}
	var added []Raw
	for _, o := range out.Admitted {
		added = append(added, Raw{User: user, Bytes: o.Raw()})
		l.owner[o.Hash] = user
	}
	if len(added) == 0 {
		return nil, nil
	}
	log.state, l.state = nil, nil
	for hash, s := range l.strays {
		if _, known := l.userOf(s); !known {
			continue
		}
		delete(l.strays, hash)
		l.stray -= len(s.Raw())
		// It waits now, or is admitted; with the set's room full it is as if it
		// had never come.
		if more, err := l.addIdentity(user, s); err == nil {
			added = append(added, more...)
		}
	}
	return added, nil
}

// Identity is the identity log of a user that an op of the group names.
func (l *Log) Identity(user keys.UserID) (*identity.State, bool) {
	log := l.users[user]
	if log == nil {
		return nil, false
	}
	return log.resolve(), true
}

func (u *userLog) resolve() *identity.State {
	if u.state == nil {
		u.state = identity.Resolve(u.set)
	}
	return u.state
}

// Heads says what the log has.
func (l *Log) Heads() Heads {
	h := Heads{Control: l.control.Heads()}
	for _, user := range l.named() {
		h.Users = append(h.Users, UserHeads{User: user, Heads: l.users[user].set.Heads()})
	}
	return h
}

func (l *Log) named() []keys.UserID {
	users := make([]keys.UserID, 0, len(l.users))
	for user := range l.users {
		users = append(users, user)
	}
	slices.SortFunc(users, keys.UserID.Compare)
	return users
}

// Missing lists the ops that somebody with heads h lacks, control ops first, each
// log in causal order: added in this order, none waits.
func (l *Log) Missing(h Heads) []Raw {
	var list []Raw
	for _, o := range l.control.Missing(h.Control) {
		list = append(list, Raw{Bytes: o.Raw()})
	}
	theirs := map[keys.UserID][]keys.Hash{}
	for _, u := range h.Users {
		theirs[u.User] = append(theirs[u.User], u.Heads...)
	}
	for _, user := range l.named() {
		for _, o := range l.users[user].set.Missing(theirs[user]) {
			list = append(list, Raw{User: user, Bytes: o.Raw()})
		}
	}
	return list
}

// Waiting is the number of ops that wait for parents.
func (l *Log) Waiting() int {
	n := l.control.Waiting() + len(l.strays)
	for _, u := range l.users {
		n += u.set.Waiting()
	}
	return n
}
