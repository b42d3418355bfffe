package ping

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/resolve"
)

// socketFD is where Main finds its socket.
const socketFD = 3

// Arguments are those of Main for a ping of host, an address or a name.
func Arguments(host string, count int, interval time.Duration, size int, servers []netip.Addr) []string {
	return withServers([]string{fmt.Sprintf("--count=%d", count), fmt.Sprintf("--interval=%v", interval), fmt.Sprintf("--size=%d", size)}, host, servers)
}

// TraceArguments are those of Main for a traceroute.
func TraceArguments(host string, maxHops int, timeout time.Duration, servers []netip.Addr) []string {
	return withServers([]string{"--trace", fmt.Sprintf("--max-hops=%d", maxHops), fmt.Sprintf("--timeout=%v", timeout)}, host, servers)
}

func withServers(arguments []string, host string, servers []netip.Addr) []string {
	return append(append(arguments, resolve.ServersAt(servers...).Arguments()...), "--", host)
}

// Main is the process: it takes the arguments that Arguments or TraceArguments made,
// and an open ping socket as descriptor 3, and writes to its standard output. SIGINT
// ends it in order. It returns the exit status.
func Main(arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, arguments, os.NewFile(socketFD, "ping")); err != nil {
		fmt.Println("failure:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, arguments []string, socket *os.File) error {
	flags := pflag.NewFlagSet("ping", pflag.ContinueOnError)
	trace := flags.Bool("trace", false, "show the routers on the way")
	var r Request
	flags.IntVar(&r.Count, "count", 0, "how many requests; 0 is without end")
	flags.DurationVar(&r.Interval, "interval", time.Second, "time between requests")
	flags.IntVar(&r.Size, "size", 64, "size of the packet, its headers included")
	var t TraceRequest
	flags.IntVar(&t.MaxHops, "max-hops", 30, "how many routers at most")
	flags.DurationVar(&t.Timeout, "timeout", time.Second, "time to wait for an answer")
	var servers resolve.Servers
	flags.Var(&servers, resolve.Flag, "who is asked for the address of a name")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%d hosts, expected one", flags.NArg())
	}
	host, err := resolve.New(resolve.Options{}).LookupOne(ctx, flags.Arg(0), servers)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if *trace {
		t.Host = host
		return Trace(ctx, socket, t, os.Stdout)
	}
	r.Host = host
	return Run(ctx, socket, r, os.Stdout)
}
