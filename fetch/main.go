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

	"github.com/postern-router/postern/resolve"
)

// Arguments are those of Main.
func Arguments(url string, servers []netip.Addr) []string {
	return append(resolve.ServersAt(servers...).Arguments(), "--", url)
}

// Main is the process: it writes the file to its standard output, and why there is none
// to its standard error. SIGINT ends it. It returns the exit status.
func Main(arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, arguments, os.Stdout); err != nil {
		if ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "failure:", err)
		}
		return 1
	}
	return 0
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	flags := pflag.NewFlagSet("fetch", pflag.ContinueOnError)
	var servers resolve.Servers
	flags.Var(&servers, resolve.Flag, "who is asked for the address of a name")
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
	host, err := resolve.New(resolve.Options{}).LookupOne(ctx, u.Host, servers)
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: connectTime}
	conn, err := dialer.DialTCP(ctx, "tcp4", netip.AddrPort{}, netip.AddrPortFrom(host, u.Port))
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
