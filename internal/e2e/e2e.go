// Package e2e marks the tests that plain `go test ./...` leaves out: those that boot
// machines in QEMU, those that build kernels, and those that need root. They run with the build
// tag e2e, as in `make test`:
//
//	go test -tags e2e ./qemu -run TestKept
//
// They are skipped, not excluded from the build, so that `go vet ./...` and every
// refactoring sees them, and `go test -v` names each test that did not run.
package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Boots marks a test that boots a machine.
func Boots(t testing.TB) {
	t.Helper()
	only(t, "it boots machines in QEMU, as root")
}

// Root marks a test that needs to be the machine's root, for which that of a user
// namespace (package testnet) will not do.
func Root(t testing.TB) {
	t.Helper()
	only(t, "it needs root")
}

// Builds marks a test that builds an image or a part of one.
func Builds(t testing.TB) {
	t.Helper()
	only(t, "it builds an image, a kernel at worst")
}

func only(t testing.TB, why string) {
	t.Helper()
	if !Enabled {
		t.Skipf("left out: %s; -tags e2e runs it", why)
	}
}

// Needs marks a test that uses what `make setup` installs: programs, or files by their
// absolute paths. Without the tag e2e the test is skipped if one of them is missing; with
// the tag that is a failure.
func Needs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		err := find(name)
		switch {
		case err == nil:
		case Enabled:
			t.Fatalf("%v; `make setup` installs it", err)
		default:
			t.Skipf("left out: %v; `make setup` installs it", err)
		}
	}
}

func find(name string) error {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return err
	}
	_, err := exec.LookPath(name)
	return err
}
