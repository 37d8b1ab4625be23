//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package store

import (
	"os"
	"time"
)

// lock does nothing here: Windows gives a handle the same lock only once, so
// it is left to bbolt, which takes it after the file was looked at.
func lock(*os.File, bool, time.Duration) error { return nil }

func unlock(*os.File) error { return nil }
