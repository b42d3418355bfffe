package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat: 100 on every
// machine that Linux runs on but old Alphas.
const ticksPerSecond = 100

// process is what /proc/PID/stat says about a process.
type process struct {
	id, parent int
	started    uint64 // ticks after the boot
	// cpu is the time used by all its threads, those that have ended too, and by the
	// children that have ended and that it has waited for.
	cpu time.Duration
}

func readProcess(id int) (process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return process{}, err
	}
	return parseStat(id, string(text))
}

// parseStat reads proc_pid_stat(5).
func parseStat(id int, text string) (process, error) {
	p := process{id: id}
	// The name, in brackets, may hold anything. The field behind it is number 3.
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const first, parent, utime, cstime, start = 3, 4, 14, 17, 22
	if len(f) <= start-first {
		return p, fmt.Errorf("/proc/%d/stat: %q is too short", id, text)
	}
	var err error
	if p.parent, err = strconv.Atoi(f[parent-first]); err != nil {
		return p, fmt.Errorf("/proc/%d/stat: parent: %w", id, err)
	}
	if p.started, err = strconv.ParseUint(f[start-first], 10, 64); err != nil {
		return p, fmt.Errorf("/proc/%d/stat: start: %w", id, err)
	}
	for _, s := range f[utime-first : cstime-first+1] {
		ticks, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return p, fmt.Errorf("/proc/%d/stat: CPU time: %w", id, err)
		}
		p.cpu += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return p, nil
}

// tree returns the processes with these ids and all their descendants.
func tree(roots ...int) ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]process{}
	var all []process
	for _, file := range files {
		id, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			continue
		}
		p, err := readProcess(id)
		if gone(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		children[p.parent] = append(children[p.parent], p)
		for _, root := range roots {
			if root == id {
				all = append(all, p)
			}
		}
	}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].id]...)
	}
	return all, nil
}

// gone reports whether reading a file in /proc failed because the process has ended.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// cpuTime returns the user and system time that the server has used so far: that of all its
// processes and threads, and of those that have ended. (The time of a process is lost if its
// parent does not wait for it. All servers here do.) What the kernel does for the server in
// interrupts, such as the receiving half of loopback, is counted for the process that
// happens to run then, or for none.
func (s *server) cpuTime() (time.Duration, error) {
	all, err := tree(s.ids()...)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, p := range all {
		sum += p.cpu
	}
	return sum, nil
}

// memory is the memory and descriptors of a server.
type memory struct {
	pss         int // bytes: its own pages, and its share of those that it shares
	descriptors int
}

// memory returns the sum of the server's processes.
func (s *server) memory() (memory, error) {
	all, err := tree(s.ids()...)
	if err != nil {
		return memory{}, err
	}
	var sum memory
	for _, p := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.id))
		if gone(err) {
			continue
		} else if err != nil {
			return memory{}, err
		}
		pss, err := field(text, "Pss:")
		if err != nil {
			return memory{}, fmt.Errorf("/proc/%d/smaps_rollup: %w", p.id, err)
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.id))
		if err != nil && !gone(err) {
			return memory{}, err
		}
		sum.pss += pss * 1024
		sum.descriptors += len(open)
	}
	return sum, nil
}

// sockets are the machine's TCP sockets.
type sockets struct {
	inUse  int // not counting TIME_WAIT
	memory int // bytes of kernel memory in their queues
}

func readSockets() (sockets, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return sockets{}, err
	}
	var s sockets
	if s.inUse, err = field(text, "TCP:", "inuse"); err != nil {
		return s, fmt.Errorf("/proc/net/sockstat: %w", err)
	}
	pages, err := field(text, "TCP:", "mem")
	if err != nil {
		return s, fmt.Errorf("/proc/net/sockstat: %w", err)
	}
	s.memory = pages * os.Getpagesize()
	return s, nil
}

// field returns the number after the last of words, which must be on one line in this order,
// the first one at its start.
func field(text []byte, words ...string) (int, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		want := words
		for i, word := range f[:max(0, len(f)-1)] {
			if i == 0 && word != want[0] {
				break
			}
			if word == want[0] {
				want = want[1:]
			}
			if len(want) == 0 {
				return strconv.Atoi(f[i+1])
			}
		}
	}
	return 0, fmt.Errorf("no %q in %q", strings.Join(words, " "), text)
}

// others measures for a time how many processors are busy while this program does nothing.
// What a hypervisor takes away counts too.
func others(ctx context.Context, d time.Duration) (float64, error) {
	before, err := busyTime()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := wait(ctx, d); err != nil {
		return 0, err
	}
	after, err := busyTime()
	if err != nil {
		return 0, err
	}
	return (after - before).Seconds() / time.Since(start).Seconds(), nil
}

// busyTime returns how long the processors have not been idle since the boot, in sum.
func busyTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// user nice system idle iowait irq softirq steal, proc_stat(5).
	first, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(first)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat: %q is not the time of the processors", first)
	}
	var sum time.Duration
	for i, s := range f[1:9] {
		ticks, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if idle := i == 3 || i == 4; !idle {
			sum += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	return sum, nil
}
