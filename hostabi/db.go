package hostabi

import (
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

var (
	errCollection = fault.New(fault.Invalid, "", "", "that is not a collection id (number << 2 | rule)")
	errNoRecord   = fault.New(fault.NotFound, "", "", "there is no such record")
	errUndeclared = fault.New(fault.NotFound, "", "", "the app declared no such collection")
)

// collection is the call's first integer as a collection id, declared or not.
func (c *call) collection() (record.CollectionID, error) {
	id := record.CollectionID(c.ints[0])
	if c.ints[0] != int64(id) || !id.Valid() {
		return 0, errCollection
	}
	return id, nil
}

// declared is the collection that the call's first integer names.
func (c *call) declared() (*schema.Collection, error) {
	id, err := c.collection()
	if err != nil {
		return nil, err
	}
	return c.app.declared(id)
}

func (a *App) declared(id record.CollectionID) (*schema.Collection, error) {
	if d, ok := a.cfg.Schema.Collection(id); ok {
		return d, nil
	}
	return nil, errUndeclared
}

func dbGet(c *call) (int64, error) {
	coll, err := c.declared()
	if err != nil {
		return 0, err
	}
	return 0, c.app.cfg.Store.View(c.ctx, func(base schema.Source) error {
		c.over.base, c.over.tx = base, c.tx
		visible, err := c.over.Load(coll.ID, c.id(), &c.state)
		if err != nil {
			return err
		}
		if !visible {
			return errNoRecord
		}
		c.out = appendState(c.out, &c.state)
		return nil
	})
}

func dbQuery(c *call) (int64, error) {
	q, err := schema.DecodeQuery(c.in[0])
	if err != nil {
		return 0, err
	}
	coll, err := c.app.declared(q.Collection)
	if err != nil {
		return 0, err
	}
	return 0, c.app.cfg.Store.View(c.ctx, func(base schema.Source) error {
		src, err := c.tx.over(base, coll)
		if err != nil {
			return err
		}
		for {
			plan, err := q.Plan(c.app.cfg.Schema)
			if err != nil {
				return err
			}
			page, err := plan.Run(src)
			if err != nil {
				return err
			}
			fit := 0
			if c.out, fit = appendPage(c.out[:0], &page); fit == len(page.Rows) {
				return nil
			}
			// Too large for a payload: the same query for as many records as fit
			// has the cursor that belongs to them.
			q.Limit = fit
		}
	})
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

// put checks w against the schema and adds it to the transaction.
func (c *call) put(w Write) error {
	coll, err := c.app.declared(w.Collection)
	if err != nil {
		return err
	}
	for _, cell := range w.Cells {
		f, ok := coll.Field(cell.Field)
		if !ok {
			return fault.New(fault.Invalid, "", "", "collection %s has no field %d", coll.Name, cell.Field)
		}
		if !f.Accepts(cell.Value) {
			return fault.New(fault.Invalid, "", "", "field %s of collection %s is %s, not %s", f.Name, coll.Name, f.Kind, cell.Value.Kind())
		}
	}
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
	coll, err := c.declared()
	if err != nil {
		return 0, err
	}
	if len(c.in[0]) > LimitKVKey {
		return 0, errBigKey
	}
	id, err := c.app.cfg.Store.NewID(c.ctx, coll.ID, c.in[0])
	if err != nil {
		return 0, err
	}
	c.out = append(c.out, id[:]...)
	return 0, nil
}

func dbWatch(c *call) (int64, error) { return c.from.watch(c) }

func dbUnwatch(c *call) (int64, error) { return c.from.unwatch(c) }
