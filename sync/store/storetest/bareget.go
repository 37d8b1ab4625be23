package storetest

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// BareGet makes a bare bbolt file of so many fields in dir and gives a function
// that reads one of them, a transaction each. What it returns is good until the
// next call.
func BareGet(dir string, fields int) (read func() []byte, done func() error, err error) {
	path := filepath.Join(dir, "bare-get")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return nil, nil, err
	}
	done = func() error { return errors.Join(db.Close(), os.Remove(path)) }
	name, key := []byte("b"), []byte(nil)
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(name)
		for i := 0; i < fields && err == nil; i++ {
			k, v := fieldAt(i)
			if i == fields/2 {
				key = k
			}
			err = b.Put(k, v)
		}
		return err
	})
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	var value []byte
	return func() []byte {
		_ = db.View(func(tx *bbolt.Tx) error {
			value = append(value[:0], tx.Bucket(name).Get(key)...)
			return nil
		})
		return value
	}, done, nil
}
