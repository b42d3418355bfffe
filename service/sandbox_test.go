package service

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What the filter answers about each call, as the kernel would ask it.
func TestCallFilter(t *testing.T) {
	const pid = 42
	calls := Client().And(Files()).And(Calls{Any: []uint32{unix.SYS_SPLICE}, Checked: []Check{Equals(unix.SYS_IOCTL, 1, unix.SIOCINQ), Equals(unix.SYS_IOCTL, 1, unix.SIOCOUTQ)}})
	filter, err := callFilter(calls, pid)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(filter), unix.BPF_MAXINSNS)
	var raw []bpf.RawInstruction
	for _, f := range filter {
		raw = append(raw, bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K})
	}
	program, complete := bpf.Disassemble(raw)
	require.True(t, complete)
	vm, err := bpf.NewVM(program)
	require.NoError(t, err)

	arch := filter[1].K
	const allowed, refused, killed = uint32(unix.SECCOMP_RET_ALLOW), unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), uint32(unix.SECCOMP_RET_KILL_PROCESS)
	for _, c := range []struct {
		name   string
		number uint32
		arch   uint32
		args   [6]uint64
		want   uint32
	}{
		{"the service's own", unix.SYS_SPLICE, arch, [6]uint64{5}, allowed},
		{"the first of a group", unix.SYS_CONNECT, arch, [6]uint64{5}, allowed},
		{"the last of the calls that take any argument", unix.SYS_EXIT_GROUP, arch, [6]uint64{}, allowed},
		{"another group's", unix.SYS_PWRITE64, arch, [6]uint64{5}, allowed},
		{"another service's", unix.SYS_ACCEPT4, arch, [6]uint64{}, refused},
		{"a file", unix.SYS_OPENAT, arch, [6]uint64{}, refused},
		{"a program", unix.SYS_EXECVE, arch, [6]uint64{}, refused},
		{"another process's memory", unix.SYS_PTRACE, arch, [6]uint64{}, refused},
		{"the filesystem", unix.SYS_MOUNT, arch, [6]uint64{}, refused},
		{"a second filter", unix.SYS_SECCOMP, arch, [6]uint64{}, refused},
		{"socket, IPv4", unix.SYS_SOCKET, arch, [6]uint64{unix.AF_INET}, allowed},
		{"socket, netlink", unix.SYS_SOCKET, arch, [6]uint64{unix.AF_NETLINK}, refused},
		{"socket, packets", unix.SYS_SOCKET, arch, [6]uint64{unix.AF_PACKET}, refused},
		{"a thread", unix.SYS_CLONE, arch, [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allowed},
		{"a process", unix.SYS_CLONE, arch, [6]uint64{uint64(unix.SIGCHLD)}, refused},
		{"what waits to be read", unix.SYS_IOCTL, arch, [6]uint64{5, unix.SIOCINQ}, allowed},
		{"what waits to be sent", unix.SYS_IOCTL, arch, [6]uint64{5, unix.SIOCOUTQ}, allowed},
		{"a terminal's input", unix.SYS_IOCTL, arch, [6]uint64{5, unix.TIOCSTI}, refused},
		{"a signal", unix.SYS_TGKILL, arch, [6]uint64{pid, 43, uint64(unix.SIGURG)}, allowed},
		{"a signal to another", unix.SYS_TGKILL, arch, [6]uint64{1, 1, uint64(unix.SIGURG)}, refused},
		{"a name for memory", unix.SYS_PRCTL, arch, [6]uint64{unix.PR_SET_VMA}, allowed},
		{"being traced", unix.SYS_PRCTL, arch, [6]uint64{unix.PR_SET_PTRACER}, refused},
		{"memory", mapCalls()[0], arch, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allowed},
		{"memory for code", mapCalls()[0], arch, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refused},
		{"memory made code", unix.SYS_MPROTECT, arch, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refused},
		{"numbers of another table", unix.SYS_RECVFROM, arch + 1, [6]uint64{5}, killed},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The machine reads words in network order, the kernel's in its own: so the words
			// stand where they would, each with its bytes the other way round if need be.
			word := binary.BigEndian.PutUint32
			data := make([]byte, 64)
			word(data[0:], c.number)
			word(data[4:], c.arch)
			for i, a := range c.args {
				low, high := data[16+8*i:], data[20+8*i:]
				if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
					low, high = high, low
				}
				word(low, uint32(a))
				word(high, uint32(a>>32))
			}
			got, err := vm.Run(data)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("%#x", c.want), fmt.Sprintf("%#x", uint32(got)))
		})
	}
}

// The kernel takes the filter, and refuses what it shall: on a thread of its own, which
// ends with the test.
func TestFilterCalls(t *testing.T) {
	type results struct {
		filter                error
		open, netlink, socket unix.Errno
	}
	done := make(chan results)
	go func() {
		runtime.LockOSThread()
		var r results
		defer func() { done <- r }()
		if r.filter = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); r.filter != nil {
			return
		}
		if r.filter = filterCalls(Client(), 0); r.filter != nil {
			return
		}
		_, _, r.open = unix.RawSyscall(unix.SYS_OPENAT, 0, 0, 0) // EFAULT without a filter
		_, _, r.netlink = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		var fd uintptr
		if fd, _, r.socket = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0); r.socket == 0 {
			unix.Close(int(fd))
		}
	}()
	assert.Equal(t, results{open: unix.EPERM, netlink: unix.EPERM}, <-done)
}

// buildConfined builds the program of testdata.
func buildConfined(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "confined")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/confined")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// TestConfined has a process try what it must not do, and do its work. With root it has a
// user and a root folder of its own, too.
func TestConfined(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
		}
	}()
	log := &testLog{}
	s := &Supervisor{Program: buildConfined(t), Log: func(string) Log { return log }}
	spec := Spec{Name: "confined"}
	s.Table = NewTable(Spec{Name: "other"}, spec)
	root := os.Getuid() == 0
	if root {
		s.Roots = t.TempDir()
		require.NoError(t, os.Chmod(s.Roots, 0o755))
		t.Cleanup(func() { _ = unix.Unmount(filepath.Join(s.Roots, "confined", "confined"), unix.MNT_DETACH) })
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the log:\n%s", log)
		}
	})
	var parent *toyParent
	v := s.NewService(spec, Options{Parent: func(l *Link) Parent {
		parent = &toyParent{link: l}
		return parent
	}})
	require.NoError(t, taken(t, v.Set(&Desired{Configure: func(ctx context.Context, _ Parent) error {
		return parent.link.Call(ctx, opAlive, nil, nil)
	}})))

	var e Encoder
	e.String(l.Addr().String())
	var results []string
	require.NoError(t, parent.link.Call(t.Context(), 1, e.Bytes(), func(d *Decoder) {
		for range 10 {
			results = append(results, d.String(200))
		}
	}))
	assert.Equal(t, []string{
		"open /proc/self/status: operation not permitted",
		"open /tmp/file: operation not permitted",
		"operation not permitted", // a program
		"operation not permitted", // a signal to PID 1
		"operation not permitted", // netlink
		"operation not permitted", // packets
		"operation not permitted", // memory for code
		"operation not permitted", // more descriptors
		"ok",                      // the collector's limit
		"ok",                      // work
	}, results)

	if root {
		_, err := s.start(Spec{Name: "stranger"}, "", nil)
		require.ErrorContains(t, err, "not in the table of services")
	}
	children, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found int
	for _, path := range children {
		process := filepath.Dir(path)
		if text, err := os.ReadFile(path); err != nil || string(text) != "confined\x00" {
			continue
		}
		if text, err := os.ReadFile(process + "/status"); err != nil || !strings.Contains(string(text), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
			continue // another run of this test
		}
		threads, err := filepath.Glob(process + "/task/*/status")
		require.NoError(t, err)
		require.NotEmpty(t, threads)
		for _, thread := range threads {
			status, err := os.ReadFile(thread)
			require.NoError(t, err)
			if !root {
				assert.Contains(t, string(status), fmt.Sprintf("\nUid:\t%d\t", os.Getuid()))
			} else {
				assert.Contains(t, string(status), "\nUid:\t64001\t64001\t64001\t64001\n")
				assert.Contains(t, string(status), "\nGid:\t64001\t64001\t64001\t64001\n")
				assert.Regexp(t, `\nGroups:\s*\n`, string(status))
				assert.Regexp(t, `\nCapEff:\s0+\n`, string(status))
			}
			assert.Regexp(t, `\nSeccomp:\s2\n`, string(status), "%s", thread)
			assert.Regexp(t, `\nNoNewPrivs:\s1\n`, string(status), "%s", thread)
		}
		limits, err := os.ReadFile(process + "/limits")
		require.NoError(t, err)
		assert.Regexp(t, `\nMax open files\s+20\s+20\s`, string(limits))
		assert.Regexp(t, `\nMax core file size\s+0\s+0\s`, string(limits))
		assert.Regexp(t, fmt.Sprintf(`\nMax data size\s+%d\s`, dataLimit(4<<20)), string(limits))
		if root {
			assert.Regexp(t, `\nMax processes\s+64\s+64\s`, string(limits))
			files, err := filepath.Glob(process + "/root/*")
			require.NoError(t, err)
			assert.Equal(t, []string{process + "/root/confined"}, files)
			require.ErrorIs(t, os.WriteFile(process+"/root/confined", nil, 0o600), unix.EROFS)
		}
		found++
	}
	assert.Equal(t, 1, found)
}

// TestConfineFailsClosed: a process that cannot be held to its list does nothing at all.
func TestConfineFailsClosed(t *testing.T) {
	log := &testLog{}
	s := &Supervisor{Program: buildConfined(t), Log: func(string) Log { return log }}
	defer s.Stop()
	v := s.NewService(Spec{Name: "unknown-call"}, Options{})
	require.EqualError(t, taken(t, v.Set(&Desired{Configure: func(ctx context.Context, _ Parent) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}})), "unknown-call ended with exit status 1")
	assert.Contains(t, log.String(), "confine to system calls: ")
}
