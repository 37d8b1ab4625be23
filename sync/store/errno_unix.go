//go:build !windows

package store

import "syscall"

// fullDisk are the errors of a disk, a disk quota or a file that cannot grow.
var fullDisk = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}
