// These tests run socksd as a program: with the clients of a Linux distribution, compared
// with Dante as the oracle, with 200,000 connections, and with all kinds of failures.
//
// Each test has its own network of namespaces (see lab), so that nothing depends on the
// ports or programs of the machine. They need root, and the programs in debianPackages.
package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/socks/daemon"
)

// patience is how long a test waits for what must happen. Nothing takes as long
// on an idle machine.
const patience = 30 * time.Second

// The environment variables that make this binary another program.
const (
	asSocksd = "POSTERN_TEST_SOCKSD"
	asSoak   = "POSTERN_TEST_SOAK"
)

// TestMain runs socksd, or the load of the soak test, if this program is started as that.
// socksd is this binary so that -race checks it too. For measurements it is built without.
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
	if !e2e.Enabled {
		os.Exit(m.Run()) // all of them are skipped
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the tests of socksd need root: it gives its uid up, and vsftpd and danted theirs")
		os.Exit(1)
	}
	testnet.Main(m)
}
