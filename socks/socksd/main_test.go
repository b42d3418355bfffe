// The tests of socksd from outside: clients as they are installed, Dante beside
// it as the oracle, 200,000 connections, and all that goes wrong.
//
// Each test has a network of namespaces of its own (see lab), so that nothing
// depends on ports or programs of the machine. They need root, and the programs
// of debianPackages.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/postern-router/postern/socks/daemon"
)

// patience is how long a test waits for what must happen. Nothing takes as long
// on an idle machine.
const patience = 30 * time.Second

// The environment variables that make this binary another program.
const (
	asSocksd = "POSTERN_TEST_SOCKSD"
	asSoak   = "POSTERN_TEST_SOAK"
	asWarden = "POSTERN_TEST_WARDEN"
)

// TestMain is socksd, the load of the soak, or the warden, when it is started as
// that. socksd is this
// binary so that -race watches it too; what is measured is built plain.
func TestMain(m *testing.M) {
	if os.Getenv(asSocksd) != "" {
		os.Exit(daemon.Main(os.Args[1:]))
	}
	if number := os.Getenv(asSoak); number != "" {
		if err := soakMain(number); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(asWarden) != "" {
		io.Copy(io.Discard, os.Stdin)
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "the tests of socksd need root for network namespaces")
			return 1
		}
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := startWarden(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// startWarden starts the process that sweeps when this one ends, whichever way:
// a test binary that is killed or panics cleans nothing up, and a child that
// gives up root, as socksd does, loses its parent death signal.
func startWarden() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asWarden+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not ended by Ctrl-C
	// Its standard input ends with this process: nobody else has the other end.
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	return cmd.Start()
}
