package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// used is how much processor time each test's machines took, which most of the time of CI goes into.
var used = processorTime{tests: map[string]string{}, machines: map[string]int{}, time: map[string]time.Duration{}}

type processorTime struct {
	mu sync.Mutex
	// tests are the names of tests, by the folders of their machines.
	tests map[string]string
	// machines and time are how many machines each test had, and what they took.
	machines map[string]int
	time     map[string]time.Duration
}

// begin says whose the machines are that have their files in dir.
func (p *processorTime) begin(dir, test string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tests[dir] = test
}

// add is for machineEnded.
func (p *processorTime) add(dir string, of *os.ProcessState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	test := cmp.Or(p.tests[dir], "others")
	p.machines[test]++
	p.time[test] += of.UserTime() + of.SystemTime()
}

// print writes the tests whose machines took most, what all took, and what this process did.
func (p *processorTime) print() {
	p.mu.Lock()
	defer p.mu.Unlock()
	const most = 40
	var all time.Duration
	for _, d := range p.time {
		all += d
	}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		fmt.Println("processor time:", err)
	}
	fmt.Printf("processor time: QEMU %v, the tests' own process %v; most of QEMU's:\n",
		all.Round(time.Second), time.Duration(own.Utime.Nano()+own.Stime.Nano()).Round(time.Second))
	tests := slices.SortedFunc(maps.Keys(p.time), func(a, b string) int { return cmp.Compare(p.time[b], p.time[a]) })
	for _, test := range tests[:min(most, len(tests))] {
		fmt.Printf("%7.1f s %3d machines %s\n", p.time[test].Seconds(), p.machines[test], test)
	}
}
