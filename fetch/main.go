package fetch

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Resolve finds the IPv4 address of a host, an address or a name, of which it asks
// servers. If ctx ends there is no error, and no address.
type Resolve func(ctx context.Context, host string, servers []string) (netip.Addr, error)

// Arguments are those of Main.
func Arguments(url string, servers []netip.Addr) []string {
	var arguments []string
	for _, s := range servers {
		arguments = append(arguments, "--name-server="+s.String())
	}
	return append(arguments, "--", url)
}

// Main is the process: it writes the file to its standard output, and why there is none
// to its standard error. SIGINT ends it. It returns the exit status.
func Main(arguments []string, resolve Resolve) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, arguments, resolve, os.Stdout); err != nil {
		if ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "failure:", err)
		}
		return 1
	}
	return 0
}

func run(ctx context.Context, arguments []string, resolve Resolve, out io.Writer) error {
	flags := pflag.NewFlagSet("fetch", pflag.ContinueOnError)
	servers := flags.StringArray("name-server", nil, "who is asked for the address of a name")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%d URLs, expected one", flags.NArg())
	}
	u, err := ParseURL(flags.Arg(0))
	if err != nil {
		return err
	}
	host, err := resolve(ctx, u.Host, *servers)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	dialer := net.Dialer{Timeout: connectTime}
	conn, err := dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(host, u.Port).String())
	if err != nil {
		return err
	}
	// What waits for the server ends with ctx.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if err := get(conn, u, out); err != nil {
		return fmt.Errorf("get %s: %w", flags.Arg(0), err)
	}
	return nil
}
