// The tests of socksd from outside: clients as they are installed, Dante beside
// it as the oracle, 200,000 connections, and all that goes wrong.
//
// Each test has a network of namespaces of its own (see lab), so that nothing
// depends on ports or programs of the machine. They need root, and the programs
// of debianPackages.
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

// TestMain is socksd or the load of the soak when it is started as that. socksd is
// this binary so that -race watches it too; what is measured is built plain.
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
