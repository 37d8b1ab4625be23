package node

import (
	"fmt"
	"os"
	"syscall"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// lockFile keeps a second daemon out of a home: the file is open without
// sharing.
func lockFile(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, fault.New(fault.Busy, "", "stop the other one, or give another home with --home", "%s cannot be locked: %w", path, err)
	}
	return os.NewFile(uintptr(h), path), nil
}

// instanceOf names the place of a file: host, and volume and index of the file.
func instanceOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var info syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(f.Fd()), &info); err != nil {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("1 %s %d %d %d\n", host, info.VolumeSerialNumber, info.FileIndexHigh, info.FileIndexLow), nil
}
