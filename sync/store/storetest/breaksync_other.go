//go:build !linux

package storetest

import "errors"

// BreakSync is for Linux only.
func (r *Recorder) BreakSync(Sync) (mend func() error, err error) {
	return nil, errors.ErrUnsupported
}
