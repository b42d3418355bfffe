package testnet

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asVariable of the environment makes the test binary a program that isolates itself.
const asVariable = "POSTERN_TESTNET_AS"

func TestMain(m *testing.M) {
	program := map[string]func() int{
		"status":  func() int { return 7 },
		"process": func() int { fmt.Println(os.Getpid(), os.Geteuid(), os.Args[1:]); return 0 },
		// Holds standard output open beyond its own end, by a program that nobody waits for.
		"leaver": func() int { return start("sleep", "1000") },
		"waiter": func() int { start("sleep", "1000"); fmt.Println("ready"); select {} },
		"copier": func() int { fmt.Println("ready"); _, _ = io.Copy(os.Stdout, os.Stdin); return 0 },
	}[os.Getenv(asVariable)]
	if program != nil {
		os.Exit(Isolate(program))
	}
	Main(m)
}

// start starts a program in a session of its own, which writes to standard output.
func start(name string, args ...string) int {
	cmd := exec.Command(name, args...)
	cmd.Stdout = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// program prepares this test binary as one of TestMain's programs.
func program(t *testing.T, name string, wrapper ...string) *exec.Cmd {
	t.Helper()
	words := append(wrapper, "/proc/self/exe", "argument")
	if len(wrapper) > 0 { // whose own /proc/self/exe is another program
		self, _ := os.Executable()
		words[len(wrapper)] = self
	}
	cmd := exec.Command(words[0], words[1:]...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, stageVariable+"=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// With -cover, a program that has no such folder complains at its end.
	cmd.Env = append(cmd.Env, asVariable+"="+name, "GOCOVERDIR="+t.TempDir())
	return cmd
}

func TestIsolated(t *testing.T) {
	assert.Equal(t, 1, os.Getpid())
	assert.Equal(t, 0, os.Geteuid())
	links, err := net.Interfaces()
	require.NoError(t, err)
	require.Len(t, links, 1, "lo alone")
	assert.NotZero(t, links[0].Flags&net.FlagUp, "lo is up")
	var run unix.Statfs_t
	require.NoError(t, unix.Statfs("/run", &run))
	assert.EqualValues(t, unix.TMPFS_MAGIC, run.Type)
	assert.NoFileExists(t, "/run/xtables.lock")
	resolver, err := os.ReadFile("/etc/resolv.conf")
	require.NoError(t, err)
	assert.Empty(t, resolver)
	outside, err := os.Readlink("/proc/self/ns/uts")
	require.NoError(t, err)
	require.NoError(t, unix.Sethostname([]byte("isolated")))
	out, err := exec.Command("unshare", "--uts", "readlink", "/proc/self/ns/uts").Output()
	require.NoError(t, err)
	assert.NotEqual(t, outside, strings.TrimSpace(string(out)))
}

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		name, program string
		wrapper       []string
		status        int
		output        string
	}{
		{"of the function", "status", nil, 7, ""},
		{"process and arguments", "process", nil, 0, `1 0 \[argument\]\n`},
		{"where a part of /proc is hidden", "process", []string{"unshare", "--mount", "sh", "-c",
			`mount -t tmpfs tmpfs /proc/sys/fs && echo hidden && exec unshare --user --map-root-user --mount "$@"`, "sh"},
			0, `hidden\n([2-9]|\d\d+) 0 \[argument\]\n`},
		{"without a namespace to be had", "process", []string{"unshare", "--user"}, 1,
			"testnet: namespaces need root, or a kernel that gives them to other users: fork/exec /proc/self/exe: .*\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := program(t, test.program, test.wrapper...)
			out, err := cmd.CombinedOutput()
			if test.status == 0 {
				require.NoError(t, err, "%s", out)
			}
			assert.Equal(t, test.status, cmd.ProcessState.ExitCode())
			assert.Regexp(t, "^"+test.output+"$", string(out))
		})
	}
}

// What the isolated process leaves running ends with it.
func TestNothingLeft(t *testing.T) {
	out, err := program(t, "leaver").Output() // which waits for all that have the pipe
	require.NoError(t, err)
	assert.Empty(t, out)
}

// The isolated process and what it runs end with the process outside, whichever way
// that ends.
func TestKilled(t *testing.T) {
	outside := func(cmd *exec.Cmd) int { return cmd.Process.Pid }
	inside := func(cmd *exec.Cmd) int {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
		require.NoError(t, err)
		return pid
	}
	for _, test := range []struct {
		name   string
		signal syscall.Signal
		to     func(*exec.Cmd) int
		says   string
	}{
		{"killed", unix.SIGKILL, outside, ""},
		{"terminated", unix.SIGTERM, outside, ""},
		{"asked for its stacks, as by go test", unix.SIGQUIT, outside, "SIGQUIT: quit\n"},
		{"killed inside", unix.SIGKILL, inside, "testnet: the isolated process ended: signal: killed\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := program(t, "waiter")
			stdout, output, err := os.Pipe()
			require.NoError(t, err)
			defer stdout.Close()
			cmd.Stdout = output
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			require.NoError(t, cmd.Start())
			output.Close()
			lines := bufio.NewReader(stdout)
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ready\n", line)
			require.NoError(t, unix.Kill(test.to(cmd), test.signal))
			_, err = lines.ReadString('\n')
			assert.ErrorIs(t, err, io.EOF, "all that had the pipe are gone")
			assert.Error(t, cmd.Wait())
			assert.Contains(t, stderr.String(), test.says)
		})
	}
}

// Ctrl-C, which reaches every process of the terminal, is the isolated process's to
// take: the one outside waits for it.
func TestInterrupt(t *testing.T) {
	cmd := program(t, "copier")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(stdout)
	_, err = lines.ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(os.Interrupt)) // to the outer one alone
	_, err = io.WriteString(stdin, "still here\n")
	require.NoError(t, err)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "still here\n", line)
	require.NoError(t, stdin.Close())
	assert.NoError(t, cmd.Wait())
}

func TestResolverBelowRun(t *testing.T) {
	// As systemd-resolved and others have it: /etc/resolv.conf is a link into /run.
	etc := t.TempDir()
	require.NoError(t, os.Symlink("/run/some/resolv.conf", filepath.Join(etc, "resolv.conf")))
	cmd := program(t, "process", "unshare", "--mount", "sh", "-c",
		`mkdir -p /run/some && echo theirs >/run/some/resolv.conf && mount --bind "$0" /etc && cat /etc/resolv.conf && exec "$@"`, etc)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, "theirs\n1 0 [argument]\n", string(out))
}
