package ping

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Lookup returns the addresses of a host, asked of servers.
type Lookup func(ctx context.Context, host string, servers []netip.Addr) ([]netip.Addr, error)

// lookupTime bounds what a name may take.
const lookupTime = 20 * time.Second

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
	for _, s := range servers {
		arguments = append(arguments, "--name-server="+s.String())
	}
	return append(arguments, "--", host)
}

// Main is the process: it takes the arguments that Arguments or TraceArguments made,
// and an open ping socket as descriptor 3, and writes to its standard output. SIGINT
// ends it in order. It returns the exit status.
func Main(arguments []string, lookup Lookup) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, arguments, lookup, os.NewFile(socketFD, "ping")); err != nil {
		fmt.Println("failure:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, arguments []string, lookup Lookup, socket *os.File) error {
	flags := pflag.NewFlagSet("ping", pflag.ContinueOnError)
	trace := flags.Bool("trace", false, "show the routers on the way")
	var r Request
	flags.IntVar(&r.Count, "count", 0, "how many requests; 0 is without end")
	flags.DurationVar(&r.Interval, "interval", time.Second, "time between requests")
	flags.IntVar(&r.Size, "size", 64, "size of the packet, its headers included")
	var t TraceRequest
	flags.IntVar(&t.MaxHops, "max-hops", 30, "how many routers at most")
	flags.DurationVar(&t.Timeout, "timeout", time.Second, "time to wait for an answer")
	servers := flags.StringArray("name-server", nil, "who is asked for the address of a name")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%d hosts, expected one", flags.NArg())
	}
	host, err := Resolve(ctx, flags.Arg(0), *servers, lookup)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if *trace {
		t.Host = host
		return Trace(ctx, socket, t, os.Stdout)
	}
	r.Host = host
	return Run(ctx, socket, r, os.Stdout)
}

// Resolve finds the IPv4 address of a host, an address or a name, of which it asks
// servers. If ctx ends the address is the zero Addr, without an error.
func Resolve(ctx context.Context, host string, servers []string, lookup Lookup) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return a, nil
	}
	var asked []netip.Addr
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("name-server=%s: %w", s, err)
		}
		asked = append(asked, a)
	}
	if len(asked) == 0 {
		return netip.Addr{}, fmt.Errorf("address of %s: no name server is set, see /ip dns", host)
	}
	limited, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := lookup(limited, host, asked)
	if ctx.Err() != nil {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address of %s: %w", host, err)
	}
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("address of " + host + ": it has none of IPv4")
}
