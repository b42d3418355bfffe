package daemon

import (
	"fmt"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/socks"
)

// spareDescriptors are for all that is not a relayed connection: standard
// streams, poller, control, listener, name resolution, sockets that PID 1 is shown, connections that
// end or have no slot yet.
const spareDescriptors = 192

// descriptors returns how many that many connections need at most: two each, and one more if it
// may be a UDP ASSOCIATE.
func descriptors(connections int, udp bool) int {
	need := 2*connections + spareDescriptors
	if udp {
		need += min(connections, socks.MaxAssociations)
	}
	return need
}

// limitDescriptors bounds the descriptors of this process, for good, to what
// the connections of cfg need. It returns an error if the process may not have
// so many.
func limitDescriptors(cfg socks.Config) error {
	connections := cfg.MaxConnections
	need := uint64(descriptors(connections, cfg.UDP))
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		return fmt.Errorf("read the limit of descriptors: %w", err)
	}
	if uint64(now.Max) < need {
		return fmt.Errorf("%d connections need %d descriptors, but %d is the limit", connections, need, now.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: need, Max: need}); err != nil {
		return fmt.Errorf("limit descriptors to %d: %w", need, err)
	}
	return nil
}

// forbidNewPrivileges sets no_new_privs for every thread (prctl(2)): those that there are,
// and by them those that they start.
func forbidNewPrivileges() error {
	// syscall.AllThreadsSyscall does that, but not in a program that is built with cgo, as go
	// run does where there is a C compiler. The kernel does it for a filter of system calls
	// that is to hold every thread (SECCOMP_FILTER_FLAG_TSYNC of seccomp(2)): it gives the
	// others the no_new_privs of the thread that asks. This filter allows everything.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("set no_new_privs for every thread: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("set no_new_privs: thread %d cannot have it", thread)
	}
	return nil
}

// become makes every thread run as the named user, with its group alone.
func become(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("run as %s: %w", name, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("run as %s: uid: %w", name, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("run as %s: gid: %w", name, err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("run as %s: drop groups: %w", name, err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("run as %s: set group %d: %w", name, gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("run as %s: set user %d: %w", name, uid, err)
	}
	return nil
}
