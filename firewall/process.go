package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockSeconds is how long a process waits for the lock file of xtables while another
	// program holds it.
	lockSeconds = 5
	// processTime is how long a process may take in all. On the slowest board it needs a
	// fraction of a second. The time is counted in steps: see bounded.
	processTime = 30 * time.Second
	// steps is in how many steps processTime is counted.
	steps = 30
	// countSteps is how many steps a count may take while a change waits.
	countSteps = 2
	// countTries is how often a count that gave way is tried.
	countTries = 3
)

// errGaveWay is the failure of a count whose process was killed for a change.
var errGaveWay = errors.New("a change of the rules came first")

// bounded calls run, which starts a process of f.program or f.restoreProgram and waits
// for it. It kills a process that takes longer than f.processTime, and the process's
// children; the error says so. The time is counted in steps. A step that takes longer,
// because the whole machine stands still, counts as one. What only counts is killed after
// countSteps if a change waits, with errGaveWay.
//
// The process is found by way of /proc, because run does not tell its id. run
// stays in the goroutine of the caller, which may be in a network namespace of its own.
func (f *Firewall) bounded(run func() error) error {
	ended, killed := make(chan struct{}), make(chan error)
	counting := f.counting
	go func() {
		tick := time.NewTicker(f.processTime / steps) // it drops ticks that come too fast
		defer tick.Stop()
		var cause error
		for n := 1; ; n++ {
			select {
			case <-ended:
				killed <- cause
				return
			case <-tick.C:
				switch {
				case n >= steps:
					cause = fmt.Errorf("killed, as it had not ended after %v", f.processTime)
				case counting && n >= countSteps && f.changes.Load() > 0:
					cause = errGaveWay
				default:
					continue
				}
				killProgram(f.program, f.restoreProgram)
			}
		}
	}()
	err := run()
	close(ended)
	if cause := <-killed; cause != nil && err != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// killProgram kills the children of this process that run one of the programs, and their
// descendants: as long as one of them holds a pipe open, the pipe's reader waits. They are
// stopped first, because a process that is just being made would be left. One can also be made
// between the look at /proc and the look at its parent: so they are complete when two
// looks one after the other find as many, all stopped.
func killProgram(programs ...string) {
	const tries = 100 // one in an uninterruptible wait (state D) does not stop
	var found []process
	for n, stopped := 0, false; n < tries; n++ {
		before, wereStopped := len(found), stopped
		found, stopped = findProgram(programs...), true
		for _, p := range found {
			if !p.cannotFork() {
				stopped = false
				_ = unix.Kill(p.id, unix.SIGSTOP) // it may have ended
			}
		}
		if stopped && (wereStopped && len(found) == before || len(found) == 0) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for _, p := range found {
		_ = unix.Kill(p.id, unix.SIGKILL)
	}
}

// process is one of /proc. state is a letter of proc_pid_stat(5).
type process struct {
	id, parent int
	state      string
}

// cannotFork says that p is stopped or has ended.
func (p process) cannotFork() bool { return strings.Contains("TtZXx", p.state) }

// findProgram returns the children of this process that run one of the programs, and their
// descendants. It finds nothing without /proc.
func findProgram(programs ...string) []process {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all, found []process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		// "pid (name) state ppid ...", and the name may hold anything (proc_pid_stat(5)).
		stat, err := os.ReadFile("/proc/" + dir.Name() + "/stat")
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if err != nil || len(fields) < 2 {
			continue // it has just ended
		}
		p := process{id: pid, state: fields[0]}
		p.parent, _ = strconv.Atoi(fields[1])
		all = append(all, p)
		if p.parent != os.Getpid() {
			continue
		}
		arguments, _ := os.ReadFile("/proc/" + dir.Name() + "/cmdline")
		for word := range strings.SplitSeq(string(arguments), "\x00") {
			if slices.Contains(programs, word) {
				found = append(found, p)
				break
			}
		}
	}
	for i := 0; i < len(found); i++ {
		for _, p := range all {
			if p.parent == found[i].id {
				found = append(found, p)
			}
		}
	}
	return found
}
