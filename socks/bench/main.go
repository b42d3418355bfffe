// Command bench compares socksd with the SOCKS servers that Debian has, and with no proxy
// at all, on this machine's loopback. It prints one table of one run, and which goals
// socksd met.
//
// Synopsis:
//
//	bench [--rounds N] [--only NAME,...] [--socksd FILE]
//
// All servers get the same load from the same two processes: this one is the clients, and a
// second one is what they connect to. (Of new connections, one loop in this process is both
// ends.) A round starts all servers anew. It takes one measure of all servers, one after
// another, before it takes the next measure, so that a machine that is slow for a while is
// slow for all. A figure is the median of the rounds; a ratio is the median of the rounds'
// ratios. Before a server is measured, what it relays is compared with what was sent.
// Nothing is left out: connections that failed are a column, and any other failure ends the
// run.
//
// Everything runs in a network namespace, with Reno's congestion control, and ends with this
// program. It needs root, as sshd and danted do.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-router/postern/internal/testnet"
)

const help = `Usage: go run ./socks/bench [FLAGS]

Measures socksd beside other SOCKS servers on this machine's loopback: a table
on standard output, what is being measured on standard error.

Servers: %s

Flags:
%s
It needs root, and the Debian packages dante-server, microsocks, openssh-client
and openssh-server.
`

// descriptors is the limit of each program: 500 connections of both sides in
// the process of the clients, and 6 descriptors a connection in a server.
const descriptors = 8192

// othersTime is how long other work of the machine is measured before a round.
const othersTime = time.Second

func main() {
	// A child gets PDEATHSIG when the thread that started it ends. So children are started
	// from the thread that lasts as long as the process.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := logic(ctx, os.Args[1:])
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	stop()
	if errors.Is(err, errTold) {
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// congestionControl is one that every kernel has and every namespace may use. Nothing is
// lost on loopback, where it does the same as cubic, Linux' default. The administrator may
// have chosen another one, which a namespace may not be allowed to use. Some would hide what
// a server costs: BBR sets a timer for most packets, which takes longer on a virtual machine
// than relaying them.
const congestionControl = "reno"

func logic(ctx context.Context, args []string) error {
	if len(args) == 2 {
		// This program has started itself as one of its parts.
		switch args[0] {
		case targetCommand:
			return serveTarget(args[1])
		case ioCopyCommand:
			return serveIOCopy(args[1])
		}
	}
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	flags.Usage = func() {}
	rounds := flags.Int("rounds", 3, "how often each figure is measured")
	only := flags.StringSlice("only", nil, "measure these servers alone, `NAME,...`")
	socksd := flags.String("socksd", "", "measure this `FILE` instead of a socksd built from here")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		fmt.Printf(help, strings.Join(names(kinds("")), ", "), flags.FlagUsages())
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q (--help tells more)", flags.Arg(0))
	}
	if *rounds < 1 {
		return fmt.Errorf("--rounds %d: want 1 or more", *rounds)
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root, as sshd and danted do")
	}
	limit := syscall.Rlimit{Cur: descriptors, Max: descriptors}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit descriptors to %d: %w", descriptors, err)
	}
	for _, name := range *only {
		if all := names(kinds("")); !slices.Contains(all, name) {
			return fmt.Errorf("--only %q: want some of %s", name, strings.Join(all, ", "))
		}
	}
	// So that the machine's packet filter, ports and TCP settings are not measured. In the
	// process outside, which waits for the one inside, err stays nil.
	var err error
	if status := testnet.Isolate(func() int {
		if err = inside(ctx, *socksd, *only, *rounds); err != nil {
			return 1
		}
		return 0
	}); err == nil && status != 0 {
		return errTold
	}
	return err
}

// errTold says that the process inside has written what went wrong.
var errTold = errors.New("the measurement failed")

// inside measures in the namespaces of this process.
func inside(ctx context.Context, socksd string, only []string, rounds int) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(congestionControl), 0); err != nil {
		return fmt.Errorf("congestion control %s: %w", congestionControl, err)
	}
	dir, err := os.MkdirTemp("", "socks-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if socksd == "" {
		socksd = filepath.Join(dir, "socksd")
		if err := build(ctx, socksd); err != nil {
			return err
		}
	}
	chosen := kinds(socksd)
	if len(only) > 0 {
		chosen = slices.DeleteFunc(chosen, func(k kind) bool { return !slices.Contains(only, k.name) })
	}
	found, err := run(ctx, dir, chosen, rounds)
	if err != nil {
		return err
	}
	return found.print(os.Stdout, names(chosen))
}

// build builds socksd as it runs on a host. In an image it is compiled for size: functions
// are only inlined in the relay (package image).
func build(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file,
		"github.com/postern-router/postern/socks/socksd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build socksd: %w\n%s", err, out)
	}
	return nil
}

// run measures the servers for that many rounds.
func run(ctx context.Context, dir string, kinds []kind, rounds int) (results, error) {
	t, err := startTarget(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer t.program.stop()
	found := results{}
	for i := range rounds {
		// Each round begins with another server, so that none always follows the same one.
		first := i % len(kinds)
		order := slices.Concat(kinds[first:], kinds[:first])
		note := func(format string, a ...any) {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", i+1, rounds, fmt.Sprintf(format, a...))
		}
		busy, err := others(ctx, othersTime)
		if err != nil {
			return nil, err
		}
		found.add(machine, othersBusy, busy)
		due := measures()
		if i > 0 {
			due = slices.DeleteFunc(due, func(m measure) bool { return m.once })
		}
		if err := round(ctx, dir, t, order, due, found, note); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// round starts the servers, takes each measure of all of them, and ends them.
func round(ctx context.Context, dir string, t *target, kinds []kind, due []measure, found results, note func(string, ...any)) error {
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for _, k := range kinds {
		s, err := start(ctx, dir, k)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		servers = append(servers, s)
		if err := check(ctx, s, t); err != nil {
			return fmt.Errorf("%s: %w%s", k.name, err, s.said())
		}
	}
	for _, m := range due {
		for _, s := range servers {
			note("%s: %s", m.name, s.name)
			if err := m.take(ctx, s, t, found); err != nil {
				return fmt.Errorf("%s: %s: %w%s", s.name, m.name, err, s.said())
			}
		}
	}
	return nil
}
