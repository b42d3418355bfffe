package fetch

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

// Spec is the process. It downloads one file.
var Spec = service.Spec{Name: "fetch", Start: service.Task, Main: runProcess, Calls: service.Client()}

const (
	opFetch    = 1 // the only request
	maxServers = 64
)

// Job returns the job of a download of url. A name in it is resolved by servers. The file
// goes to body, which is a pipe or a file; the caller closes it.
func Job(url string, servers []netip.Addr, body *os.File) service.Job {
	var e service.Encoder
	e.String(url)
	e.Addrs(servers)
	return service.Job{Spec: Spec, Op: opFetch, Body: e.Bytes(), Files: []*os.File{body}}
}

func runProcess(c *service.Child) error {
	return c.Serve(func(ctx context.Context, r *service.Request) ([]byte, error) {
		url, servers := r.String(maxURL), r.Addrs(maxServers)
		body := r.TakeFile()
		if body != nil {
			defer body.Close()
		}
		if r.Op != opFetch || body == nil || r.End() != nil {
			return nil, fmt.Errorf("%w: a request that is not whole", service.ErrBreach)
		}
		return nil, run(ctx, url, resolve.ServersAt(servers...), body)
	})
}

// run writes the file at url to out.
func run(ctx context.Context, url string, servers resolve.Servers, out io.Writer) error {
	u, err := ParseURL(url)
	if err != nil {
		return err
	}
	host, err := resolve.New(resolve.Options{}).LookupOne(ctx, u.Host, servers)
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: connectTime}
	server := netip.AddrPortFrom(host, u.Port)
	conn, err := dialer.DialTCP(ctx, "tcp4", netip.AddrPort{}, server)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", server, resolve.Reason(err))
	}
	// When ctx is done, reads and writes of the connection end.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if err := get(conn, u, out); err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	return nil
}
