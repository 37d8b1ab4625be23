package hostabi

import "github.com/peers-run/peers-runtime/internal/fault"

var (
	errNoKVKey  = fault.New(fault.Invalid, "", "", "the key is empty")
	errBigKey   = fault.New(fault.TooBig, "", "", "the key exceeds %d bytes", LimitKVKey)
	errBigValue = fault.New(fault.TooBig, "", "", "the value exceeds %d bytes", LimitKVValue)
	errLimit    = fault.New(fault.Invalid, "", "", "the limit is not between 0 and %d", LimitKVList)
)

// kvKey gives the stored form of the app's key in[i], copied.
func (c *call) kvKey(i int) ([]byte, error) {
	switch n := len(c.in[i]); {
	case n == 0:
		return nil, errNoKVKey
	case n > LimitKVKey:
		return nil, errBigKey
	}
	return append([]byte(appKeyPrefix), c.in[i]...), nil
}

func kvGet(c *call) (int64, error) {
	key, err := c.kvKey(0)
	if err != nil {
		return 0, err
	}
	v, err := c.tx.key(c.ctx, key)
	if err != nil {
		return 0, err
	}
	c.out = append(c.out, v...)
	return 0, nil
}

func kvPut(c *call) (int64, error) {
	key, err := c.kvKey(0)
	if err != nil {
		return 0, err
	}
	if len(c.in[1]) > LimitKVValue {
		return 0, errBigValue
	}
	return 0, c.tx.setKey(string(key), append([]byte{}, c.in[1]...))
}

func kvDelete(c *call) (int64, error) {
	key, err := c.kvKey(0)
	if err != nil {
		return 0, err
	}
	return 0, c.tx.setKey(string(key), nil)
}

func kvList(c *call) (int64, error) {
	limit := int(c.ints[0])
	if limit < 0 || limit > LimitKVList {
		return 0, errLimit
	}
	if limit == 0 {
		limit = LimitKVList
	}
	if len(c.in[0]) > LimitKVKey || len(c.in[1]) > LimitKVKey {
		return 0, errBigKey
	}
	prefix := append([]byte(appKeyPrefix), c.in[0]...)
	var after []byte
	if len(c.in[1]) > 0 {
		after = append([]byte(appKeyPrefix), c.in[1]...)
	}
	pairs, more, err := c.tx.list(c.ctx, prefix, after, limit)
	if err != nil {
		return 0, err
	}
	c.out = appendPairs(c.out, pairs, more)
	return 0, nil
}
