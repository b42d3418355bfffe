package e2e

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
)

// outcome is a testing.TB that notes how the test ends.
type outcome struct {
	testing.TB
	skipped, failed string
}

func (o *outcome) Helper() {}

func (o *outcome) Skipf(format string, args ...any) {
	o.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (o *outcome) Fatalf(format string, args ...any) {
	o.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func run(mark func(testing.TB)) *outcome {
	o := &outcome{}
	done := make(chan bool)
	go func() {
		defer close(done)
		mark(o)
	}()
	<-done
	return o
}

// TestMarks has the same cases with and without the tag: `make test` runs it with.
func TestMarks(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		name          string
		mark          func(testing.TB)
		without, with outcome
	}{
		{"boots", Boots, outcome{skipped: "left out: it boots machines in QEMU, as root; -tags e2e runs it"}, outcome{}},
		{"needs root", Root, outcome{skipped: "left out: it needs root; -tags e2e runs it"}, outcome{}},
		{"builds", Builds, outcome{skipped: "left out: it builds an image, a kernel at worst; -tags e2e runs it"}, outcome{}},
		{"has what it needs", func(t testing.TB) { Needs(t, "sh", "/bin/sh") }, outcome{}, outcome{}},
		{"lacks a program", func(t testing.TB) { Needs(t, "sh", "no-such-program") },
			outcome{skipped: "left out: exec: \"no-such-program\": executable file not found in $PATH; `make setup` installs it"},
			outcome{failed: "exec: \"no-such-program\": executable file not found in $PATH; `make setup` installs it"}},
		{"lacks a file", func(t testing.TB) { Needs(t, missing) },
			outcome{skipped: "left out: stat " + missing + ": no such file or directory; `make setup` installs it"},
			outcome{failed: "stat " + missing + ": no such file or directory; `make setup` installs it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.without
			if Enabled {
				want = c.with
			}
			assert.Equal(t, want, *run(c.mark))
		})
	}
}
