package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable of the environment says how far a process of Isolate has come: not
// set outside of the namespaces, setUpStage in a process that has just been started
// in them, insideStage once they are set up. The children of the isolated process
// inherit insideStage, among them the workers of a fuzz test, which are the same
// program and must stay in the same namespaces.
const (
	stageVariable = "POSTERN_TESTNET"
	setUpStage    = "set up"
	insideStage   = "inside"
)

// Inside reports whether this is the process that Isolate has started.
func Inside() bool { return os.Getenv(stageVariable) != "" }

// exitNoProc is the exit status of a process that cannot mount /proc. The value is
// EX_UNAVAILABLE of sysexits.h, which no test binary returns.
const exitNoProc = 69

// Main is the body of a TestMain: it runs the tests by way of Isolate and exits with
// their status.
func Main(m interface{ Run() int }) { os.Exit(Isolate(m.Run)) }

// Isolate starts this program again, with the same arguments, environment and standard
// descriptors, in namespaces of its own. There it calls run, and it returns what run
// returned. It must be called before the program does anything else, since all that
// comes before it is done twice.
//
// Inside, the process
//   - is root: the real one if it was root outside, else the root of a user
//     namespace, with no other user in it (user_namespaces(7));
//   - has a network of its own, empty but for lo, which is up;
//   - has a host name, an empty /run and an empty /etc/resolv.conf of its own, so that
//     it shares neither lock files nor a resolver with the machine;
//   - is process 1 of a PID namespace: whatever it leaves running is killed when it
//     ends, and it is killed if the process outside is.
//
// Where the kernel does not let a user namespace mount /proc, because parts of the
// machine's are hidden (as in some containers), there is no PID namespace.
//
// The network inside reaches nothing, so what a run fetches it has to fetch outside: see Inside.
//
// If the namespaces cannot be made, Isolate writes the reason to standard error and
// returns 1.
func Isolate(run func() int) int {
	switch os.Getenv(stageVariable) {
	case insideStage:
		return run()
	case setUpStage:
		if err := setUp(); err != nil {
			fmt.Fprintln(os.Stderr, "testnet:", err)
			return 1
		}
		return run()
	}
	status, err := startInside(unix.CLONE_NEWPID)
	if err == nil && status == exitNoProc {
		status, err = startInside(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testnet: namespaces need root, or a kernel that gives them to other users:", err)
		return 1
	}
	return status
}

// startInside runs this program in new namespaces, pid (0 or CLONE_NEWPID) among
// them, and returns its exit status.
func startInside(pid uintptr) (status int, err error) {
	// A child's parent death signal comes when the thread ends that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageVariable+"="+setUpStage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | pid,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	// Ctrl-C reaches both processes, as both are of the terminal's foreground group: this
	// one waits for the other to end. What is sent to this one alone is passed on.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if s != unix.SIGINT {
					_ = cmd.Process.Signal(s) // fails if it has just ended
				}
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if !exit.Exited() {
			fmt.Fprintln(os.Stderr, "testnet: the isolated process ended:", exit)
			return 1, nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// setUp prepares the namespaces that this process was started in.
func setUp() error {
	// So that no mount made here shows up outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if os.Getpid() == 1 {
		err := unix.Mount("proc", "/proc", "proc", 0, "")
		if errors.Is(err, unix.EPERM) {
			os.Exit(exitNoProc)
		}
		if err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if err := hideRun(); err != nil {
		return err
	}
	if err := upLoopback(); err != nil {
		return err
	}
	return os.Setenv(stageVariable, insideStage)
}

// hideRun puts an empty /run and an empty resolv.conf over those of the machine.
func hideRun() error {
	resolver, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		resolver = ""
	} else if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	if resolver == "" {
		return nil
	}
	ours := "/run/resolv.conf"
	if strings.HasPrefix(resolver, "/run/") {
		ours = resolver
	}
	if err := os.MkdirAll(filepath.Dir(ours), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(ours, nil, 0o644); err != nil {
		return err
	}
	if ours == resolver {
		return nil
	}
	if err := unix.Mount(ours, resolver, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", ours, resolver, err)
	}
	return nil
}

// upLoopback sets lo up in the network namespace of the calling thread.
func upLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
