package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/router"
)

// boardFile names the board that the image was built for.
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
		// What fails here fails for lack of something in the image.
		log.Printf(kmsg.Error, "start: %v", err)
	}

	how := console.Reboot
	select {
	case how = <-requests:
		// Who asked for it is to read that it comes.
		time.Sleep(farewell)
	case s := <-signals:
		if s == unix.SIGUSR2 {
			how = console.Shutdown
		}
	}
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

// farewell is from the word that the router restarts, on its way to a console, to the end
// of the consoles.
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

// mountAll mounts the kernel's file systems, each bounded.
func mountAll() error {
	var failed []error
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		data         string
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
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

// startRouter brings the router up. A router is returned also with an error, as
// far as it came.
func startRouter(ctx context.Context, log *kmsg.Logger, dog *watchdog, requests chan<- console.Request) (*router.Router, error) {
	// The kernel would otherwise drop our lines when there are many.
	setSysctl(log, "kernel/printk_devkmsg", "on\n")
	sizeTables(log)
	// Who is of group 0, as PID 1 is, may open a ping socket.
	setSysctl(log, "net/ipv4/ping_group_range", "0 0\n")
	name, err := os.ReadFile(boardFile)
	if err != nil {
		return nil, fmt.Errorf("which board this is: %w", err)
	}
	b, err := board.ByName(strings.TrimSpace(string(name)))
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
	// Ahead of the start, which may hang.
	go dog.watch(r.Alive)
	r.Start(ctx)
	return r, nil
}

// timer is where the kernel is told which timer not to wake the first processor by
// (unbind_device_store in kernel/time/clockevents.c).
const timer = "/sys/devices/system/clockevents/clockevent0/unbind_device"

// leaveTimer has the kernel use another timer than the one of that name.
func leaveTimer(log *kmsg.Logger, name string) {
	if err := os.WriteFile(timer, []byte(name+"\n"), 0o200); err != nil {
		log.Printf(kmsg.Warning, "take another timer than %s: %v", name, err)
	}
}

// sizeTables sets what the kernel, by itself, sizes for another kind of machine
// than a router with little memory.
func sizeTables(log *kmsg.Logger) {
	// One that is large enough for 500 connections through SOCKS, each of which has
	// two entries, and for as many that have ended: by itself it is 1024 with 32 MB.
	setSysctl(log, "net/netfilter/nf_conntrack_max", "4096\n")
	// Packets are cut from single pages, not from pieces of 32 kB, each of which
	// lives as long as the last packet of it waits for a slow receiver.
	setSysctl(log, "net/core/high_order_alloc_disable", "1\n")
}

// setSysctl sets a kernel parameter; a kernel without it is told of and lived with.
func setSysctl(log *kmsg.Logger, name, value string) {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		log.Printf(kmsg.Warning, "sysctl %s: %v", name, err)
	}
}
