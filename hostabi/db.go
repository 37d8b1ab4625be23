package hostabi

import (
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

var errCollection = fault.New(fault.Invalid, "", "", "that is not a collection id (number << 2 | rule)")

// collection is the call's first integer as a collection id. Whether the app
// declared it is the Store's to say.
func (c *call) collection() (record.CollectionID, error) {
	id := record.CollectionID(c.ints[0])
	if c.ints[0] != int64(id) || !id.Valid() {
		return 0, errCollection
	}
	return id, nil
}

func dbGet(c *call) (int64, error) {
	coll, err := c.collection()
	if err != nil {
		return 0, err
	}
	cells, err := c.tx.record(c.ctx, coll, c.id())
	if err != nil {
		return 0, err
	}
	c.out = appendFields(c.out, cells)
	return 0, nil
}

func dbPut(c *call) (int64, error) { return c.write(WritePut) }

func dbReplace(c *call) (int64, error) { return c.write(WriteReplace) }

func dbDelete(c *call) (int64, error) { return c.write(WriteDelete) }

func (c *call) write(code WriteCode) (int64, error) {
	coll, err := c.collection()
	if err != nil {
		return 0, err
	}
	w := Write{Code: code, Collection: coll, Record: c.id()}
	if code != WriteDelete {
		if len(c.in[1]) > record.MaxBody {
			return 0, errBigBatch
		}
		if w.Cells, err = decodeFields(c.in[1]); err != nil {
			return 0, err
		}
	}
	return 0, c.put(w)
}

// put checks w against the Store's rules and adds it to the transaction.
func (c *call) put(w Write) error {
	if w.Code == WriteReplace {
		w.Cells = withoutNulls(w.Cells)
	}
	return c.tx.write(w)
}

func dbBatch(c *call) (int64, error) {
	if len(c.in[0]) > LimitPayload {
		return 0, errBigBatch
	}
	writes, err := decodeBatch(c.in[0])
	if err != nil {
		return 0, err
	}
	undo := c.tx.savepoint()
	for _, w := range writes {
		if err := c.put(w); err != nil {
			c.tx.restore(undo)
			return 0, err
		}
	}
	return int64(len(writes)), nil
}

func dbNewID(c *call) (int64, error) {
	coll, err := c.collection()
	if err != nil {
		return 0, err
	}
	if len(c.in[0]) > LimitKVKey {
		return 0, errBigKey
	}
	id, err := c.app.cfg.Store.NewID(c.ctx, coll, c.in[0])
	if err != nil {
		return 0, err
	}
	c.out = append(c.out, id[:]...)
	return 0, nil
}

func dbWatch(c *call) (int64, error) { return c.from.watch(c) }

func dbUnwatch(c *call) (int64, error) { return c.from.unwatch(c) }

// declared is the call's first integer as the id of a collection that the app
// declared.
func (c *call) declared() (record.CollectionID, error) { return c.collection() }

func dbQuery(*call) (int64, error) { return 0, errNoFunction }
