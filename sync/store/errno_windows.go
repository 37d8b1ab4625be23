package store

import "syscall"

// fullDisk are the errors of a disk that cannot take more: ERROR_HANDLE_DISK_FULL
// and ERROR_DISK_FULL, and the name that package os may give them.
var fullDisk = []error{syscall.Errno(39), syscall.Errno(112), syscall.ENOSPC}
