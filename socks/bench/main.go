// Command bench compares socksd with the SOCKS servers that Debian has, and with no proxy
// at all, on this machine's loopback. It prints the figures of one run as tables, and which
// goals socksd met.
//
// Synopsis:
//
//	bench [--rounds N] [--only NAME,...] [--socksd FILE] [--baseline FILE] [--busy PROCESSORS]
//	      [--page FILE] [--svg FILE]
//
// All servers get the same load from the same two processes: this one is the clients, and a
// second one is what they connect to. (Of new connections, one loop in this process is both
// ends.) A round starts all servers anew. It takes one measure of all servers, one after
// another, before it takes the next measure, so that a machine that is slow for a while is
// slow for all. A figure is the median of the rounds; a ratio is the median of the rounds'
// ratios. Before a server is measured, what it relays is compared with what was sent: so a
// password has been checked, too, before its user's connections are counted.
// Nothing is left out: connections that failed are a row, and any other failure ends the
// run.
//
// Two measures are also taken while other programs compute (see startBusy). Between all
// measures this program stands still and looks how busy the machine is by itself. It warns if
// the machine was not quiet.
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

Measures socksd beside other SOCKS servers on this machine's loopback: tables
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

// othersTime is how long other work of the machine is measured before each measure.
const othersTime = 300 * time.Millisecond

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

// portRange is where the kernel takes the ports of connections from. Dante needs one of its own for
// each, and the kernel remembers it for a minute; the usual 28,000 are a few seconds of a fast
// machine.
const portRange = "10000 65535"

func logic(ctx context.Context, args []string) error {
	if len(args) == 2 {
		// This program has started itself as one of its parts.
		switch args[0] {
		case targetCommand:
			return serveTarget(args[1])
		case ioCopyCommand:
			return serveIOCopy(args[1])
		case busyCommand:
			return keepBusy(args[1])
		}
	}
	var o options
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.SortFlags = false
	flags.IntVar(&o.rounds, "rounds", 3, "how often each figure is measured")
	flags.StringSliceVar(&o.only, "only", nil, "measure these servers alone, `NAME,...`")
	flags.StringVar(&o.socksd, "socksd", "", "measure this `FILE` instead of a socksd built from here")
	flags.StringVar(&o.baseline, "baseline", "", "measure this `FILE` of an earlier socksd too, and compare")
	flags.Float64Var(&o.busy, "busy", 1.2, "how many `PROCESSORS` other programs keep busy in the measures of a busy machine")
	flags.StringVar(&o.page, "page", "", "put the tables into this `FILE`, such as docs/SOCKS.md, where its comments say")
	flags.StringVar(&o.picture, "svg", "", "draw the picture into this `FILE`")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		fmt.Printf(help, strings.Join(names(kinds("", "")), ", "), flags.FlagUsagesWrapped(80))
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q (--help tells more)", flags.Arg(0))
	}
	if err := o.check(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root, as sshd and danted do")
	}
	limit := syscall.Rlimit{Cur: descriptors, Max: descriptors}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit descriptors to %d: %w", descriptors, err)
	}
	if o.socksd == "" && !testnet.Inside() {
		// Modules that are not on this machine yet are fetched now.
		if err := build(ctx, os.DevNull); err != nil {
			return err
		}
	}
	// So that the machine's packet filter, ports and TCP settings are not measured. In the
	// process outside, which waits for the one inside, err stays nil.
	var err error
	if status := testnet.Isolate(func() int {
		if err = inside(ctx, o); err != nil {
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

// options are the command line.
type options struct {
	rounds                          int
	only                            []string
	socksd, baseline, page, picture string
	busy                            float64
}

// check returns an error that names the first option with a wrong value.
func (o options) check() error {
	if o.rounds < 1 {
		return fmt.Errorf("--rounds %d: want 1 or more", o.rounds)
	}
	if most := float64(runtime.NumCPU()); !(o.busy > 0 && o.busy <= most) {
		return fmt.Errorf("--busy %v: want more than 0 and at most %v, the processors of this machine", o.busy, most)
	}
	for _, name := range o.only {
		if all := names(kinds("", o.baseline)); !slices.Contains(all, name) {
			return fmt.Errorf("--only %q: want some of %s", name, strings.Join(all, ", "))
		}
	}
	if o.page == "" {
		return nil
	}
	// Not after a run of minutes.
	if text, err := os.ReadFile(o.page); err != nil {
		return fmt.Errorf("--page: %w", err)
	} else if _, err := replaceTables(string(text), ""); err != nil {
		return fmt.Errorf("--page %s: %w", o.page, err)
	}
	return nil
}

// inside measures in the namespaces of this process.
func inside(ctx context.Context, o options) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(congestionControl), 0); err != nil {
		return fmt.Errorf("congestion control %s: %w", congestionControl, err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(portRange), 0); err != nil {
		return fmt.Errorf("ports %s: %w", portRange, err)
	}
	dir, err := os.MkdirTemp("", "socks-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.socksd == "" {
		o.socksd = filepath.Join(dir, "socksd")
		if err := build(ctx, o.socksd); err != nil {
			return err
		}
	}
	chosen := kinds(o.socksd, o.baseline)
	if len(o.only) > 0 {
		chosen = slices.DeleteFunc(chosen, func(k kind) bool { return !slices.Contains(o.only, k.name) })
	}
	found, err := run(ctx, dir, chosen, o)
	if err != nil {
		return err
	}
	return o.show(found, names(chosen))
}

// show prints what was found, and writes the files that were asked for.
func (o options) show(found results, servers []string) error {
	report := found.report(servers)
	load, isQuiet := found.load()
	report.caption = about(o.rounds, time.Now())
	if !isQuiet {
		report.caption += " The machine was not quiet."
	}
	report.notes = load + fmt.Sprintf(" On the busy machine programs of bench took %v processors, as far as they got them.", o.busy)
	var text strings.Builder
	if err := report.markdown(&text); err != nil {
		return err
	}
	fmt.Print(text.String())
	if o.baseline != "" {
		fmt.Print("\n" + found.compare(postern4, baseline4))
	}
	if !isQuiet {
		fmt.Fprintln(os.Stderr, "bench: warning:", load)
	}
	if o.page != "" {
		page, err := os.ReadFile(o.page)
		if err != nil {
			return err
		}
		changed, err := replaceTables(string(page), text.String())
		if err != nil {
			return fmt.Errorf("%s: %w", o.page, err)
		}
		if err := os.WriteFile(o.page, []byte(changed), 0o644); err != nil {
			return err
		}
	}
	if o.picture == "" {
		return nil
	}
	var picture strings.Builder
	if err := report.draw(&picture); err != nil {
		return err
	}
	return os.WriteFile(o.picture, []byte(picture.String()), 0o644)
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

// run measures the servers.
func run(ctx context.Context, dir string, kinds []kind, o options) (results, error) {
	t, err := startTarget(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer t.program.stop()
	found := results{}
	for i := range o.rounds {
		// Each round begins with another server, so that none always follows the same one.
		first := i % len(kinds)
		order := slices.Concat(kinds[first:], kinds[:first])
		r := round{dir: dir, target: t, busy: o.busy, found: found, note: func(format string, a ...any) {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", i+1, o.rounds, fmt.Sprintf(format, a...))
		}}
		due := measures()
		if i > 0 {
			due = slices.DeleteFunc(due, func(m measure) bool { return m.once })
		}
		if err := r.run(ctx, order, due); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// round is a turn of all servers and measures.
type round struct {
	dir    string
	target *target
	busy   float64 // processors
	found  results
	note   func(format string, a ...any)
}

// run starts the servers, takes each measure of all of them, and ends them.
func (r round) run(ctx context.Context, kinds []kind, due []measure) error {
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for _, k := range kinds {
		s, err := start(ctx, r.dir, k)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		servers = append(servers, s)
		if err := check(ctx, s, r.target); err != nil {
			return fmt.Errorf("%s: %w%s", k.name, err, s.said())
		}
	}
	for _, m := range due {
		busy, err := others(ctx, othersTime)
		if err != nil {
			return err
		}
		r.found.add(machine, othersBusy, busy)
		if err := r.take(ctx, m, servers); err != nil {
			return err
		}
	}
	return nil
}

// take takes a measure of all servers.
func (r round) take(ctx context.Context, m measure, servers []*server) error {
	if m.busy {
		stop, err := startBusy(r.dir, r.busy)
		if err != nil {
			return err
		}
		defer stop()
	}
	for _, s := range servers {
		r.note("%s: %s", m.name, s.name)
		if err := m.take(ctx, s, r.target, r.found); err != nil {
			return fmt.Errorf("%s: %s: %w%s", s.name, m.name, err, s.said())
		}
	}
	return nil
}
