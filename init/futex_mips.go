package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepTimedWaits makes the timed waits of Go's runtime sleep. On big-endian
// 32-bit MIPS they spin with a kernel of 5.1 or newer: Go 1.26 passes
// futex_time64 a timespec in the wrong layout (golang/go#77934). The runtime
// chooses the call by the kernel's release, and a process with this personality
// is told 2.6; so are its children, who inherit it.
//
// To be deleted with the first Go release that has the mend.
func keepTimedWaits() {
	const uname26 = 0x0020000 // UNAME26 of linux/personality.h
	old, _, errno := unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	if errno != 0 || old&uname26 != 0 {
		return
	}
	if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, old|uname26, 0, 0); errno != 0 {
		return
	}
	// The runtime has chosen already in this process. If exec fails, the router
	// works all the same, and is warmer.
	_ = syscall.Exec(programPath, os.Args, os.Environ())
}
