package main

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// busyCommand is the argument with which this program starts itself as a busy program.
const busyCommand = "busy"

// busyPeriod is the time over which a busy program takes its share of a processor.
const busyPeriod = 50 * time.Millisecond

// startBusy keeps that many processors busy: with 1.2, one program computes without a pause and
// another one for a fifth of the time. Each has a session of its own, as other people's
// programs have.
func startBusy(dir string, processors float64) (stop func(), err error) {
	var all []*program
	stop = func() {
		for _, p := range all {
			p.stop()
		}
	}
	for left := processors; left > 1e-9; left-- {
		p, err := startProgram(dir, "/proc/self/exe", busyCommand, strconv.FormatFloat(min(left, 1), 'f', -1, 64))
		if err != nil {
			stop()
			return nil, err
		}
		all = append(all, p)
	}
	return stop, nil
}

// keepBusy computes for that part of a processor's time, without end. What it does not get
// in a period it does not make up for.
func keepBusy(part string) error {
	share, err := strconv.ParseFloat(part, 64)
	if err != nil || math.IsNaN(share) || share <= 0 || share > 1 {
		return fmt.Errorf("busy: %q is no part of a processor, more than 0 and at most 1", part)
	}
	budget := time.Duration(share * float64(busyPeriod))
	for {
		begin, used := time.Now(), ownTime()
		for share == 1 || ownTime()-used < budget && time.Since(begin) < busyPeriod {
		}
		time.Sleep(busyPeriod - time.Since(begin))
	}
}

// ownTime is the CPU time of this process.
func ownTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(fmt.Sprintf("the process's CPU time: %v", err)) // every Linux has it
	}
	return time.Duration(t.Nano())
}
