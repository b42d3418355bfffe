package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// say prints what a long run is doing to standard error; results go to standard output.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "image: "+format+"\n", args...)
}

// run runs a command in the folder dir; the error contains the end of its output.
func run(dir string, env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(string(out), 30))
	}
	return nil
}

// progress shows how much of a build is done: on a terminal in one line that changes, otherwise
// in a line every half minute.
type progress struct {
	what  string
	total int // about how many steps
	start time.Time

	n    int
	last time.Time
}

func (p *progress) step() {
	p.n++
	terminal := isTerminal(os.Stderr)
	every := 30 * time.Second
	if terminal {
		every = 200 * time.Millisecond
	}
	now := time.Now()
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	total := max(p.total, p.n)
	left := "?"
	if elapsed := now.Sub(p.start); p.n >= 20 {
		left = (elapsed * time.Duration(total-p.n) / time.Duration(p.n)).Round(time.Second).String()
	}
	line := fmt.Sprintf("%s: %d of about %d objects, %s left", p.what, p.n, total, left)
	if terminal {
		fmt.Fprintf(os.Stderr, "\r\x1b[Kimage: %s", line)
	} else {
		say("%s", line)
	}
}

func (p *progress) done() {
	if isTerminal(os.Stderr) {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	say("%s: built in %v (%d objects)", p.what, time.Since(p.start).Round(time.Second), p.n)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
