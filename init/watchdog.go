package main

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"time"

	uroot "github.com/u-root/u-root/pkg/watchdog"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/kmsg"
)

const (
	// watchdogTimeout is when the hardware resets a machine whose PID 1 does not answer. QEMU's
	// MIPS may stand still for 26 s while the kernel starts (board.Board.LossyTimer), which must
	// not be a reason.
	watchdogTimeout = 45 * time.Second
	watchdogBeat    = 5 * time.Second
	// askBeat is from one question whether the router is well to the next, as long as it is:
	// each takes 30 ms of malta's processor.
	askBeat = 15 * time.Second
	// patience is how long the router may be unwell before the hardware is no longer told that
	// all is well: to apply a configuration may take long, and to start socksd again too.
	patience = time.Minute
)

// watchdogDevice is what PID 1 tells the hardware once it runs.
type watchdogDevice interface {
	// KeepAlive starts the hardware's countdown again.
	KeepAlive() error
	// MagicClose stops it.
	MagicClose() error
}

// watchdog is the hardware that resets the machine when nobody tells it that all is well
// (Documentation/watchdog/watchdog-api.rst).
type watchdog struct {
	log            *kmsg.Logger
	device         watchdogDevice // nil if the board has none
	beat, patience time.Duration
	ask            time.Duration
	// uptime is the time since the start.
	uptime func() time.Duration
	// well is when the router was last well, in nanoseconds of uptime.
	well    atomic.Int64
	stopped atomic.Bool
}

// openWatchdog starts the watchdog, if the board has one.
func openWatchdog(log *kmsg.Logger) *watchdog {
	w := &watchdog{log: log, beat: watchdogBeat, patience: patience, ask: askBeat, uptime: kmsg.Uptime}
	f, err := uroot.Open(uroot.Dev)
	if errors.Is(err, fs.ErrNotExist) {
		log.Printf(kmsg.Info, "there is no watchdog: what hangs hangs")
		return w
	}
	if err != nil {
		log.Printf(kmsg.Error, "watchdog: %v", err)
		return w
	}
	// By these and not by u-root's SetTimeout and Timeout (v0.16.0): the ioctl numbers there
	// are not those of MIPS, and SetTimeout hands over nanoseconds instead of seconds.
	timeout := int(watchdogTimeout / time.Second)
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, timeout); err != nil {
		log.Printf(kmsg.Warning, "watchdog: its timeout stays as it is: %v", err)
	}
	if n, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT); err == nil {
		timeout = n
	}
	log.Printf(kmsg.Info, "the watchdog resets the router when it is not well for %v", time.Duration(timeout)*time.Second+patience)
	w.device = f
	w.well.Store(int64(w.uptime()))
	go w.run()
	return w
}

// run tells the hardware that all is well, as long as that is so. Time in which the machine
// stood still does not count: nobody could say then that the router is well.
func (w *watchdog) run() {
	told := false
	for last := w.uptime(); ; time.Sleep(w.beat) {
		if w.stopped.Load() {
			return
		}
		now := w.uptime()
		if late := now - last - w.beat; late > w.beat {
			w.well.Add(int64(late))
		}
		last = now
		if ill := now - time.Duration(w.well.Load()); ill > w.patience {
			if !told {
				w.log.Printf(kmsg.Critical, "the router has not been well for %v: the watchdog will reset it", ill.Round(time.Second))
			}
			told = true
			continue
		}
		told = false
		if err := w.device.KeepAlive(); err != nil {
			w.log.Printf(kmsg.Error, "watchdog: %v", err)
		}
	}
}

// watch asks now and then whether the router is well, until leave, and on a board without
// a watchdog too: the log then says why it is not. A question that is not answered is an
// answer too.
func (w *watchdog) watch(well func() error) {
	said := ""
	for !w.stopped.Load() {
		pause := w.beat
		switch err := well(); {
		case err == nil:
			pause = w.ask
			w.well.Store(int64(w.uptime()))
			said = ""
		case err.Error() != said:
			said = err.Error()
			w.log.Printf(kmsg.Warning, "the router is not well: %v", err)
		}
		time.Sleep(pause)
	}
}

// leave ends the watching. If the end of the router hangs, the hardware resets the machine. If
// the machine shall stay off, the hardware is stopped instead.
func (w *watchdog) leave(off bool) {
	w.stopped.Store(true)
	if w.device == nil {
		return
	}
	if off {
		_ = w.device.MagicClose()
		return
	}
	_ = w.device.KeepAlive()
}
