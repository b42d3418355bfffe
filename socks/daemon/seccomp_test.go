package daemon

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/socks"
)

// What the filter answers about each call, as the kernel would ask it.
func TestCallFilter(t *testing.T) {
	const pid = 42
	filter, err := callFilter(pid)
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
		{"recv", unix.SYS_RECVFROM, arch, [6]uint64{5}, allowed},
		{"the last of the calls that take any argument", unix.SYS_EXIT_GROUP, arch, [6]uint64{}, allowed},
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
		if r.filter = filterCalls(0); r.filter != nil {
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

// TestConfined has the program as it is shipped do under a parent what it does there.
func TestConfined(t *testing.T) {
	parent, file, err := Socketpair()
	require.NoError(t, err)
	p := run(t, build(t), []*os.File{file}, "--control-fd=3")
	file.Close()
	var fw firewall
	client := NewClient(parent, fw.open, fw.close)
	t.Cleanup(func() { client.Close(); <-client.Done() })
	listener, addr, port := listen(t)
	cfg := socks.DefaultConfig()
	cfg.Enabled, cfg.Port = true, port
	// Nobody answers there: what comes of it is not the filter's doing.
	cfg.NameServers = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	require.NoError(t, client.Configure(t.Context(), cfg, listener))

	near, bound := bind(t, addr)
	far, err := net.Dial("tcp4", bound.String())
	require.NoError(t, err)
	defer far.Close()
	granted(t, near)
	named, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer named.Close()
	_, err = named.Write([]byte("\x04\x01\x00\x50\x00\x00\x00\x01\x00host.example\x00"))
	require.NoError(t, err)
	assert.Contains(t, p.awaitLine(t, "address of host.example"), "connection refused")

	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Process.Pid))
	require.NoError(t, err)
	require.NotEmpty(t, threads)
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		require.NoError(t, err)
		assert.Regexp(t, `Seccomp:\s2\n`, string(status), "%s", thread)
		assert.Regexp(t, `NoNewPrivs:\s1\n`, string(status), "%s", thread)
	}
	client.Close()
	says, code := p.awaitExit(t)
	assert.Zero(t, code)
	assert.NotContains(t, says, "not permitted")
}
