package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/router"
)

// boardFile describes the board that the image was built for (board.Board.File).
const boardFile = "/etc/board"

// runInit is the life of PID 1. It never returns: it ends with reboot(2).
func runInit() {
	if err := mountAll(); err != nil {
		// Without /dev there is no log; the kernel shows what its console is told.
		fmt.Fprintln(os.Stderr, "postern:", err)
	}
	log, err := kmsg.Open()
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern:", err)
		log = kmsg.New(os.Stderr)
	}
	dog := openWatchdog(log)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGUSR2)

	ctx, stop := context.WithCancel(context.Background())
	requests := make(chan console.Request, 1)
	r, err := startRouter(ctx, log, dog, requests)
	if err != nil {
		// Something is missing in the image.
		log.Printf(kmsg.Error, "start: %v", err)
	}

	how := waitForEnd(requests, signals)
	stop()
	if r != nil {
		// While the watchdog is still told that all is well.
		r.EndUpgrade()
	}
	dog.leave(false)
	if r != nil {
		r.Shutdown()
	}
	dog.leave(how == console.Shutdown)
	end(log, how)
}

// waitForEnd waits until the router must end, and returns how. Meanwhile it gives memory back.
func waitForEnd(requests <-chan console.Request, signals <-chan os.Signal) console.Request {
	collect := time.NewTimer(startSettles)
	for {
		select {
		case how := <-requests:
			// The user who asked for it shall see the answer.
			time.Sleep(farewell)
			return how
		case s := <-signals:
			if s == unix.SIGUSR2 {
				return console.Shutdown
			}
			return console.Reboot
		case <-collect.C:
			debug.SetGCPercent(collectorPercent)
			debug.FreeOSMemory()
			collect.Reset(collectEvery)
		}
	}
}

// Go keeps 1 MB that PID 1 has used at the start, and later for a long list or a change of the
// configuration, of the 32 MB that a small machine has, and 0.6 MB in a minute in which hosts come and somebody looks. A collection takes it
// some 10 ms. The first is when the router has started, which it would hold up: until then there is memory.
const (
	startSettles = 5 * time.Second
	collectEvery = 15 * time.Second
)

// farewell is the pause before the consoles end: the answer that the router restarts is still
// on its way to one of them.
const farewell = time.Second

// end syncs and leaves the machine.
func end(log *kmsg.Logger, how console.Request) {
	command, name := unix.LINUX_REBOOT_CMD_RESTART, "restart"
	if how == console.Shutdown {
		command, name = unix.LINUX_REBOOT_CMD_POWER_OFF, "power off"
	}
	log.Printf(kmsg.Notice, "%s", name)
	unix.Sync()
	if err := unix.Reboot(command); err != nil {
		log.Printf(kmsg.Error, "%s: %v", name, err)
	}
	// A board that cannot power off stays here, closed.
	select {}
}

// mountAll mounts the kernel's file systems, each bounded. Of other users' processes proc shows
// nothing (hidepid of proc(5)) but to root.
func mountAll() error {
	var failed []error
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		data         string
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "hidepid=2"},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=0755,size=1m"},
		{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=4m"},
	} {
		if _, err := mount.Mount(m.kind, m.target, m.kind, m.data, m.flags); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// startRouter starts the router.
func startRouter(ctx context.Context, log *kmsg.Logger, dog *watchdog, requests chan<- console.Request) (*router.Router, error) {
	router.SetKernelParameters(log, "/")
	text, err := os.ReadFile(boardFile)
	if err != nil {
		return nil, fmt.Errorf("which board this is: %w", err)
	}
	b, err := board.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", boardFile, err)
	}
	if b.LossyTimer != "" {
		leaveTimer(log, b.LossyTimer)
	}
	r, err := router.Open(b, log, requests, func() { end(log, console.Reboot) })
	if err != nil {
		return nil, err
	}
	// Before the start, which may hang.
	go dog.watch(r.Alive)
	r.Start(ctx)
	return r, nil
}

// timer is the file that unbinds a timer from the first processor (unbind_device_store in
// kernel/time/clockevents.c).
const timer = "/sys/devices/system/clockevents/clockevent0/unbind_device"

// leaveTimer has the kernel use any timer but the one of that name.
func leaveTimer(log *kmsg.Logger, name string) {
	if err := os.WriteFile(timer, []byte(name+"\n"), 0o200); err != nil {
		log.Printf(kmsg.Warning, "take another timer than %s: %v", name, err)
	}
}
