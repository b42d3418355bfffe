package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// division is who runs on which of the machine's processors. A server has one that it
// shares with nobody, and the clients and what they connect to have the others: else the
// scheduler would be measured, which gives a server the more of the processors that its load
// needs the more threads it has. A router's processor has no clients to run, and is often
// the only one.
type division struct{ server, load unix.CPUSet }

// divide divides the processors that this process may run on, and keeps it to those of the
// load, with what it starts from now on. Two are needed.
func divide() (division, error) {
	var d division
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return d, fmt.Errorf("processors: %w", err)
	}
	if all.Count() < 2 {
		return d, fmt.Errorf("there is %d processor, and server and load need one each: --shared has them share it", all.Count())
	}
	d.load = all
	for cpu := 0; d.server.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			d.server.Set(cpu)
			d.load.Clear(cpu)
		}
	}
	// A new thread has the processors of the one that makes it.
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return d, fmt.Errorf("processors: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return d, fmt.Errorf("processors: thread %q: %w", t.Name(), err)
		}
		if err := unix.SchedSetaffinity(id, &d.load); err != nil && err != unix.ESRCH {
			return d, fmt.Errorf("processors: %w", err)
		}
	}
	return d, nil
}

// apart returns the servers, each to be started on the processor of its own. That is to be
// done from the thread of divide.
func (d division) apart(kinds []kind) []kind {
	var all []kind
	for _, k := range kinds {
		if start := k.start; start != nil {
			k.start = func(ctx context.Context, dir string, addr netip.AddrPort) (_ []*program, err error) {
				if err := unix.SchedSetaffinity(0, &d.server); err != nil {
					return nil, fmt.Errorf("processors: %w", err)
				}
				started, err := start(ctx, dir, addr)
				if err := unix.SchedSetaffinity(0, &d.load); err != nil {
					return nil, fmt.Errorf("processors: %w", err)
				}
				return started, err
			}
		}
		all = append(all, k)
	}
	return all
}
