package storetest

import (
	"bytes"
	"slices"
	"sort"
)

// fanout is how many entries a node holds at most.
const fanout = 32

// A stamp marks the nodes that one transaction made. It has a size so that no
// two are the same, and holds nothing so that nodes do not keep old snapshots
// alive.
type stamp struct{ _ byte }

// A node is part of a B+tree that many snapshots share. It is changed in place
// only by the transaction that made it; every other change copies the path
// from the root, so a snapshot is a root and taking one costs nothing. Nodes
// that shrink are not merged, only dropped when empty: a test twin does not
// live long enough to mind.
type node struct {
	owner *stamp
	keys  [][]byte // leaf: the keys. Inner: keys[i] is the least that kids[i] may hold, keys[0] is not looked at
	vals  [][]byte // leaf
	kids  []*node  // inner
}

// own returns n itself if by made it, else a copy that by may change.
func (n *node) own(by *stamp) *node {
	if n.owner == by {
		return n
	}
	return &node{owner: by, keys: slices.Clone(n.keys), vals: slices.Clone(n.vals), kids: slices.Clone(n.kids)}
}

// kid is the child that may hold key.
func (n *node) kid(key []byte) int {
	return sort.Search(len(n.keys)-1, func(i int) bool { return bytes.Compare(n.keys[i+1], key) > 0 })
}

// at is the first key of a leaf that is not less than key.
func (n *node) at(key []byte) (i int, found bool) {
	return slices.BinarySearchFunc(n.keys, key, bytes.Compare)
}

// get finds the value of key; nil n is the empty tree.
func (n *node) get(key []byte) []byte {
	if n == nil {
		return nil
	}
	for n.kids != nil {
		n = n.kids[n.kid(key)]
	}
	if i, found := n.at(key); found {
		return n.vals[i]
	}
	return nil
}

// put returns the tree with key set.
func (n *node) put(by *stamp, key, val []byte) *node {
	if n == nil {
		return &node{owner: by, keys: [][]byte{key}, vals: [][]byte{val}}
	}
	n = n.insert(by, key, val)
	if right := n.split(by); right != nil {
		return &node{owner: by, keys: [][]byte{n.keys[0], right.keys[0]}, kids: []*node{n, right}}
	}
	return n
}

// insert sets key below n and may leave n one entry too large.
func (n *node) insert(by *stamp, key, val []byte) *node {
	n = n.own(by)
	if n.kids == nil {
		i, found := n.at(key)
		if found {
			n.vals[i] = val
		} else {
			n.keys, n.vals = slices.Insert(n.keys, i, key), slices.Insert(n.vals, i, val)
		}
		return n
	}
	i := n.kid(key)
	n.kids[i] = n.kids[i].insert(by, key, val)
	if right := n.kids[i].split(by); right != nil {
		n.keys, n.kids = slices.Insert(n.keys, i+1, right.keys[0]), slices.Insert(n.kids, i+1, right)
	}
	return n
}

// split moves the upper half of n, which by owns, into a new node if n is too
// large.
func (n *node) split(by *stamp) *node {
	if len(n.keys) <= fanout {
		return nil
	}
	half := len(n.keys) / 2
	right := &node{owner: by, keys: slices.Clone(n.keys[half:])}
	n.keys = slices.Clip(n.keys[:half])
	if n.kids == nil {
		right.vals, n.vals = slices.Clone(n.vals[half:]), slices.Clip(n.vals[:half])
	} else {
		right.kids, n.kids = slices.Clone(n.kids[half:]), slices.Clip(n.kids[:half])
	}
	return right
}

// del returns the tree without key, nil if nothing is left.
func (n *node) del(by *stamp, key []byte) *node {
	if n.get(key) == nil {
		return n
	}
	n = n.remove(by, key)
	for n != nil && len(n.kids) == 1 {
		n = n.kids[0]
	}
	return n
}

// remove deletes key, which is below n.
func (n *node) remove(by *stamp, key []byte) *node {
	n = n.own(by)
	if n.kids == nil {
		i, _ := n.at(key)
		n.keys, n.vals = slices.Delete(n.keys, i, i+1), slices.Delete(n.vals, i, i+1)
	} else {
		i := n.kid(key)
		if kid := n.kids[i].remove(by, key); kid != nil {
			n.kids[i] = kid
		} else {
			n.keys, n.kids = slices.Delete(n.keys, i, i+1), slices.Delete(n.kids, i, i+1)
		}
	}
	if len(n.keys) == 0 {
		return nil
	}
	return n
}

// seek finds the first key not less than key, or greater than it if above is
// set.
func (n *node) seek(key []byte, above bool) (k, v []byte) {
	if n == nil {
		return nil, nil
	}
	if n.kids == nil {
		i, found := n.at(key)
		if found && above {
			i++
		}
		if i == len(n.keys) {
			return nil, nil
		}
		return n.keys[i], n.vals[i]
	}
	for i := n.kid(key); i < len(n.kids); i++ {
		if k, v := n.kids[i].seek(key, above); k != nil {
			return k, v
		}
	}
	return nil, nil
}

// below finds the last key less than key.
func (n *node) below(key []byte) (k, v []byte) {
	if n == nil {
		return nil, nil
	}
	if n.kids == nil {
		i, _ := n.at(key)
		if i == 0 {
			return nil, nil
		}
		return n.keys[i-1], n.vals[i-1]
	}
	for i := n.kid(key); i >= 0; i-- {
		if k, v := n.kids[i].below(key); k != nil {
			return k, v
		}
	}
	return nil, nil
}

// last finds the last key.
func (n *node) last() (k, v []byte) {
	if n == nil {
		return nil, nil
	}
	for n.kids != nil {
		n = n.kids[len(n.kids)-1]
	}
	return n.keys[len(n.keys)-1], n.vals[len(n.vals)-1]
}
