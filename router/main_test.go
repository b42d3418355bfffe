package router

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests as the root of a machine of their own, as far as a router
// changes one: with other network ports, host name and resolv.conf.
func TestMain(m *testing.M) {
	const inside = "ROUTER_TEST_MACHINE"
	if folder := os.Getenv(inside); folder != "" {
		if err := hideResolver(folder); err != nil {
			fmt.Fprintln(os.Stderr, "router's tests:", err)
			os.Exit(1)
		}
		if out, err := exec.Command("ip", "link", "set", "up", "dev", "lo").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "router's tests: ip link set up dev lo: %v: %s\n", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	folder, err := os.MkdirTemp("", "postern-router-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+folder, "XTABLES_LOCKFILE="+filepath.Join(folder, "xtables.lock"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	os.RemoveAll(folder)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "router's tests need namespaces (root or unprivileged user namespaces):", err)
		os.Exit(1)
	}
}

// hideResolver puts a file of the tests' own over the machine's resolv.conf.
func hideResolver(folder string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("a mount namespace: %w", err)
	}
	ours := filepath.Join(folder, "resolv.conf")
	if err := os.WriteFile(ours, nil, 0o644); err != nil {
		return err
	}
	theirs, err := filepath.EvalSymlinks(resolverFile)
	if err != nil {
		return err
	}
	if err := unix.Mount(ours, theirs, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount on %s: %w", theirs, err)
	}
	return nil
}
