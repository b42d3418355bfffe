package daemon

import (
	"fmt"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// spareDescriptors are for all that is not a relayed connection: standard
// streams, poller, control, listener, name resolution, connections that end.
const spareDescriptors = 64

// limitDescriptors bounds the descriptors of this process, for good, to what
// that many connections need. It returns an error if the process may not have
// so many.
func limitDescriptors(connections int) error {
	need := uint64(2*connections + spareDescriptors)
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

// forbidNewPrivileges sets no_new_privs for every thread (prctl(2)).
func forbidNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errno == syscall.ENOTSUP {
		return fmt.Errorf("set no_new_privs: this program is built with cgo")
	}
	if errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
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
