package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Calls are system calls that a process may make, for Spec.
type Calls struct {
	// Any are allowed with any arguments. Those that come first cost least.
	Any []uint32
	// Checked are allowed as far as an argument meets a condition.
	Checked []Check
}

// Check is a system call that is allowed as far as one of its arguments, its low 32 bits,
// meets a condition.
type Check struct {
	Call, Argument uint32
	Is             bpf.JumpTest
	Value          uint32
}

// Equals is a Check that argument of call is value.
func Equals(call, argument, value uint32) Check {
	return Check{call, argument, bpf.JumpEqual, value}
}

// Client are the calls of who connects to servers by IPv4, TCP or UDP.
func Client() Calls {
	return Calls{
		Any: []uint32{
			unix.SYS_CONNECT, unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SHUTDOWN, unix.SYS_BIND, unix.SYS_SETSOCKOPT,
		},
		Checked: []Check{Equals(unix.SYS_SOCKET, 0, unix.AF_INET)},
	}
}

// Files are the calls of who reads and writes files that it was handed, at any place.
func Files() Calls {
	return Calls{Any: slices.Concat([]uint32{unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_FSYNC}, fileCalls())}
}

// And returns the calls of both.
func (c Calls) And(more Calls) Calls {
	return Calls{slices.Concat(c.Any, more.Any), slices.Concat(c.Checked, more.Checked)}
}

// base are the calls of every process: those of Go's runtime and of a control link.
func base() []uint32 {
	return slices.Concat(wordCalls(), []uint32{
		unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_EPOLL_PWAIT, unix.SYS_SCHED_YIELD,
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_EPOLL_CTL, unix.SYS_CLOSE, unix.SYS_FCNTL,
		// A descriptor that came by the link is looked at before it is used.
		unix.SYS_GETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2,
		unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_SIGALTSTACK,
		unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGACTION, unix.SYS_RESTART_SYSCALL,
		unix.SYS_GETRANDOM, unix.SYS_SCHED_GETAFFINITY, unix.SYS_UNAME, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	})
}

// baseChecked are more of them.
func baseChecked(pid int) []Check {
	checks := []Check{
		{unix.SYS_CLONE, 0, bpf.JumpBitsSet, unix.CLONE_THREAD},
		Equals(unix.SYS_TGKILL, 0, uint32(pid)),
		Equals(unix.SYS_PRCTL, 0, unix.PR_SET_VMA), // names memory
	}
	for _, call := range mapCalls() {
		checks = append(checks, Check{call, 2, bpf.JumpBitsNotSet, unix.PROT_EXEC})
	}
	return checks
}

// maxThreads is how many threads a process may have. Go starts one for each blocking system
// call at a time, besides those that run its code.
const maxThreads = 64

// Confine holds this process, every thread of it and for good, to what its Spec says:
//   - the limits of setrlimit(2); no core dump; with a user of its own no more than that many
//     threads;
//   - no_new_privs (Documentation/userspace-api/no_new_privs.rst): no program gives it more
//     than it has;
//   - its system calls and those of every Go process (seccomp(2)). It opens no file, starts no
//     program, runs no code that comes as data, and sends no other process a signal. Any other
//     call fails with EPERM.
//
// After an error the process must end: it may be held to less.
func (s Spec) Confine() error {
	if err := s.limit(); err != nil {
		return err
	}
	for {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
		// With this flag the other threads get both from this one. Go may have moved this goroutine to another
		// thread in between, from which the kernel takes no filter without no_new_privs: then once more.
		// LockOSThread would be no shorter, and leaves a thread behind that waits for ever, 20 kB.
		err := filterCalls(s.Calls, unix.SECCOMP_FILTER_FLAG_TSYNC)
		if !errors.Is(err, unix.EACCES) {
			return err
		}
	}
}

// limit sets the limits.
func (s Spec) limit() error {
	debug.SetMemoryLimit(collectorLimit(s.memory()))
	limits := []struct {
		name     string
		resource int
		value    uint64
	}{
		{"NOFILE", unix.RLIMIT_NOFILE, uint64(s.files())},
		{"CORE", unix.RLIMIT_CORE, 0},
		{"DATA", unix.RLIMIT_DATA, dataLimit(s.memory())},
		{"NPROC", unix.RLIMIT_NPROC, maxThreads},
	}
	for _, l := range limits {
		// That one counts all that the user has.
		if l.resource == unix.RLIMIT_NPROC && uint32(os.Getuid()) != s.uid {
			continue
		}
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("limit %s to %d: %w", l.name, l.value, err)
		}
	}
	return nil
}

// collectorLimit is the limit of Go's collector (runtime/debug.SetMemoryLimit) for a process that is to keep to
// memory. It counts what the runtime takes for itself at the start: 2 MB, but on 64-bit machines 4 MB, with which
// the collector of a small process would never rest.
func collectorLimit(memory int64) int64 {
	if strconv.IntSize == 64 {
		return memory + 4<<20
	}
	return memory
}

// dataLimit is how many bytes of writable memory a process may have whose collector keeps it to
// memory. Go takes it in arenas of 64 MiB on 64-bit machines, and of 4 MiB on others, and
// counts as used what it has not touched yet.
func dataLimit(memory int64) uint64 {
	if strconv.IntSize == 64 {
		return uint64(2*memory) + 256<<20
	}
	return uint64(2*memory) + 16<<20
}

// filterCalls puts the filter in force, with flags of seccomp(2): for this thread alone, if
// there are none.
func filterCalls(calls Calls, flags uintptr) error {
	filter, err := callFilter(calls, unix.Getpid())
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

// callFilter returns the program that the kernel runs before each system call of the
// process of that id (Documentation/userspace-api/seccomp_filter.rst).
func callFilter(calls Calls, pid int) ([]unix.SockFilter, error) {
	arch, ok := map[string]uint32{
		"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "arm": unix.AUDIT_ARCH_ARM,
		"mips": unix.AUDIT_ARCH_MIPS, "mipsle": unix.AUDIT_ARCH_MIPSEL,
		"mips64": unix.AUDIT_ARCH_MIPS64, "mips64le": unix.AUDIT_ARCH_MIPSEL64,
	}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("the calls of GOARCH %s are not known", runtime.GOARCH)
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
	// The service's own come first: each costs the kernel a step or two for each that is
	// before it.
	all := slices.Concat(calls.Any, base())
	for i, number := range all {
		if slices.Contains(all[:i], number) {
			continue
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 1}, allow)
	}
	for _, c := range slices.Concat(calls.Checked, baseChecked(pid)) {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.Call, SkipTrue: 4},
			bpf.LoadAbsolute{Off: argumentsAt + 8*c.Argument + uint32(lowAt), Size: word},
			bpf.JumpIf{Cond: c.Is, Val: c.Value, SkipFalse: 1},
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
