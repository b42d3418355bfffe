// Package machine tells how much memory the machine has: tables and buffers are sized by it.
package machine

import "golang.org/x/sys/unix"

// Memory returns how much memory is free, and how much the kernel manages in all, in bytes
// (sysinfo(2)). Cached files count as used, although the kernel could drop them.
func Memory() (free, all uint64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, 0
	}
	return uint64(info.Freeram) * uint64(info.Unit), uint64(info.Totalram) * uint64(info.Unit)
}
