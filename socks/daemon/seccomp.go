package daemon

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// confine holds every thread of this process, for good, to the system calls that socksd
// needs under a parent (seccomp(2)): relaying, the control socket, name servers, and what
// Go's runtime does. It opens no file, starts no program, runs no code that comes as data,
// makes no socket but of IPv4, and sends no other process a signal. Any other call fails
// with EPERM. It sets no_new_privs, which the kernel wants for that.
func confine() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errno == syscall.ENOTSUP {
		return fmt.Errorf("set no_new_privs: this program is built with cgo, which needs more calls")
	}
	if errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return filterCalls(unix.SECCOMP_FILTER_FLAG_TSYNC)
}

// filterCalls puts callFilter in force, with flags of seccomp(2): for this thread alone, if
// there are none.
func filterCalls(flags uintptr) error {
	filter, err := callFilter(unix.Getpid())
	if err != nil {
		return fmt.Errorf("confine to system calls: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("confine to system calls: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("confine to system calls: thread %d cannot be", thread)
	}
	return nil
}

// checkedCall is a system call that is allowed as far as one of its arguments, its low 32
// bits, meets a condition.
type checkedCall struct {
	number, argument uint32
	is               bpf.JumpTest
	value            uint32
}

// callFilter returns the program that the kernel runs before each system call of the
// process of that id (Documentation/userspace-api/seccomp_filter.rst).
func callFilter(pid int) ([]unix.SockFilter, error) {
	arch, ok := map[string]uint32{
		"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "arm": unix.AUDIT_ARCH_ARM,
		"mips": unix.AUDIT_ARCH_MIPS, "mipsle": unix.AUDIT_ARCH_MIPSEL,
		"mips64": unix.AUDIT_ARCH_MIPS64, "mips64le": unix.AUDIT_ARCH_MIPSEL64,
	}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("the calls of GOARCH %s are not known", runtime.GOARCH)
	}
	// Those that relaying takes come first: each costs the kernel a step or two for each
	// that is before it.
	calls := []uint32{
		unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_SPLICE, unix.SYS_GETSOCKOPT, unix.SYS_EPOLL_PWAIT,
		unix.SYS_SCHED_YIELD, unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_SYSINFO,
		unix.SYS_SETSOCKOPT, unix.SYS_EPOLL_CTL, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_CLOSE, unix.SYS_SHUTDOWN,
		unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_PPOLL, unix.SYS_PIPE2,
		unix.SYS_FCNTL, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2,
		// Go's runtime.
		unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_SIGALTSTACK,
		unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGACTION, unix.SYS_RESTART_SYSCALL,
		unix.SYS_GETRANDOM, unix.SYS_SCHED_GETAFFINITY, unix.SYS_UNAME, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	}
	checked := []checkedCall{
		{unix.SYS_SOCKET, 0, bpf.JumpEqual, unix.AF_INET},
		{unix.SYS_IOCTL, 1, bpf.JumpEqual, unix.SIOCINQ},
		{unix.SYS_IOCTL, 1, bpf.JumpEqual, unix.SIOCOUTQ},
		{unix.SYS_CLONE, 0, bpf.JumpBitsSet, unix.CLONE_THREAD},
		{unix.SYS_TGKILL, 0, bpf.JumpEqual, uint32(pid)},
		{unix.SYS_PRCTL, 0, bpf.JumpEqual, unix.PR_SET_VMA}, // names memory
	}
	for _, number := range mapCalls() {
		checked = append(checked, checkedCall{number, 2, bpf.JumpBitsNotSet, unix.PROT_EXEC})
	}

	// struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6].
	const numberAt, archAt, argumentsAt, word = 0, 4, 16, 4
	lowAt := 0 // of the two words of an argument
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		lowAt = word
	}
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: archAt, Size: word},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, // numbers of another table
		bpf.LoadAbsolute{Off: numberAt, Size: word},
	}
	for _, number := range slices.Concat(calls, wordCalls()) {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 1}, allow)
	}
	for _, c := range checked {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.number, SkipTrue: 4},
			bpf.LoadAbsolute{Off: uint32(argumentsAt + 8*int(c.argument) + lowAt), Size: word},
			bpf.JumpIf{Cond: c.is, Val: c.value, SkipFalse: 1},
			allow,
			bpf.LoadAbsolute{Off: numberAt, Size: word}) // it may be allowed with another argument
	}
	program = append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}
