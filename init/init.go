package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
)

// Files of the image.
const (
	programPath       = "/bin/postern"
	boardFile         = "/etc/board"
	configurationFile = "/etc/default.rsc" // unless flash has one
	sessionSocket     = "/run/init.sock"
	resolverFile      = "/etc/resolv.conf"
	commandLineFile   = "/proc/cmdline"
	iptablesProgram   = "/sbin/iptables"
	debugShell        = "/bbin/gosh"
	debugShellWord    = "postern.shell"
	socksdRoot        = "/run/socksd" // socksd's root folder
	socksdProgram     = "/socksd"     // the program, in there
)

// The users of the processes that PID 1 starts. There is no file of them: only
// the numbers matter.
const (
	nobodyID  = 65534 // socksd: whom nothing belongs to
	consoleID = 65533 // console: who may connect to the session socket
)

// runInit is the life of PID 1. It returns never: it ends with reboot(2).
func runInit() {
	if err := mountAll(); err != nil {
		// Without /dev there is no log; the kernel shows what its console is told.
		fmt.Fprintln(os.Stderr, "postern:", err)
	}
	log, err := openLog()
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern:", err)
		log = &logger{kmsg: os.Stderr, topic: "system"}
	}
	dog := openWatchdog(log)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGUSR2)

	ctx, stop := context.WithCancel(context.Background())
	requests := make(chan console.Request, 1)
	r, err := startRouter(ctx, log, dog, requests)
	if err != nil {
		// What fails here fails for lack of something in the image.
		log.printf(levelError, "start: %v", err)
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
		r.upgrades.end()
	}
	dog.leave(false)
	if r != nil {
		r.shutdown()
	}
	dog.leave(how == console.Shutdown)
	end(log, how)
}

// farewell is from the word that the router restarts, on its way to a console, to the end
// of the consoles.
const farewell = time.Second

// end syncs and leaves the machine.
func end(log *logger, how console.Request) {
	command, name := unix.LINUX_REBOOT_CMD_RESTART, "restart"
	if how == console.Shutdown {
		command, name = unix.LINUX_REBOOT_CMD_POWER_OFF, "power off"
	}
	log.printf(levelNotice, "%s", name)
	unix.Sync()
	if err := unix.Reboot(command); err != nil {
		log.printf(levelError, "%s: %v", name, err)
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
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
			failed = append(failed, fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err))
		}
	}
	if err := makeCell(); err != nil {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// makeCell makes the folder that socksd has for a root: it holds the program and
// nothing else, so that there is no file to open and no socket to call.
func makeCell() error {
	program := socksdRoot + socksdProgram
	if err := os.Mkdir(socksdRoot, 0o555); err != nil {
		return fmt.Errorf("root of socksd: %w", err)
	}
	if err := os.WriteFile(program, nil, 0o444); err != nil {
		return fmt.Errorf("root of socksd: %w", err)
	}
	if err := unix.Mount(programPath, program, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("root of socksd: bind %s: %w", program, err)
	}
	return nil
}

// startRouter brings the router up. A router is returned also with an error, as
// far as it came.
func startRouter(ctx context.Context, log *logger, dog *watchdog, requests chan<- console.Request) (*router, error) {
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
	awaitDisk(b.Flash, "/sys", lateDisk)
	state := openState(log)
	state.startSeed()
	state.startClock(time.Now())
	r, err := newRouter(b, log, state, requests)
	if err != nil {
		return nil, err
	}
	// Ahead of the start, which may hang.
	go r.prove(ctx)
	go dog.watch(r.alive)
	go state.keepTime(ctx.Done())
	r.start(ctx)
	if err := r.serveSessions(); err != nil {
		log.printf(levelError, "%v", err)
	}
	r.startConsoles(ctx)
	return r, nil
}

// timer is where the kernel is told which timer not to wake the first processor by
// (unbind_device_store in kernel/time/clockevents.c).
const timer = "/sys/devices/system/clockevents/clockevent0/unbind_device"

// leaveTimer has the kernel use another timer than the one of that name.
func leaveTimer(log *logger, name string) {
	if err := os.WriteFile(timer, []byte(name+"\n"), 0o200); err != nil {
		log.printf(levelWarning, "take another timer than %s: %v", name, err)
	}
}

// sizeTables sets what the kernel, by itself, sizes for another kind of machine
// than a router with little memory.
func sizeTables(log *logger) {
	// One that is large enough for 500 connections through SOCKS, each of which has
	// two entries, and for as many that have ended: by itself it is 1024 with 32 MB.
	setSysctl(log, "net/netfilter/nf_conntrack_max", "4096\n")
	// Packets are cut from single pages, not from pieces of 32 kB, each of which
	// lives as long as the last packet of it waits for a slow receiver.
	setSysctl(log, "net/core/high_order_alloc_disable", "1\n")
}

// serveSessions listens for consoles.
func (r *router) serveSessions() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sessionSocket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	// Whoever connects is admin: the consoles are, socksd is not.
	if err := errors.Join(os.Chown(sessionSocket, 0, consoleID), os.Chmod(sessionSocket, 0o660)); err != nil {
		l.Close()
		return fmt.Errorf("sessions: %w", err)
	}
	go func() {
		for {
			err := r.acceptSessions(l)
			r.log.printf(levelError, "sessions: %v", err)
			time.Sleep(time.Second)
		}
	}()
	return nil
}

// setSysctl sets a kernel parameter; a kernel without it is told of and lived with.
func setSysctl(log *logger, name, value string) {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		log.printf(levelWarning, "sysctl %s: %v", name, err)
	}
}
