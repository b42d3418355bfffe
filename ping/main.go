package ping

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"time"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

// Spec is the process. It does one ping or traceroute, by a socket that PID 1 has opened.
var Spec = service.Spec{
	Name: "ping", Start: service.Task, Main: runProcess,
	Calls: service.Client(), // it resolves names; pings are sent like other packets
	// The time to write its last line.
	StopTime: time.Second,
}

// The requests that PID 1 sends to the process.
const (
	opPing       = 1
	opTraceroute = 2
)

// Bounds of the requests.
const (
	maxHost    = 253 // bytes, RFC 1035
	maxServers = 64
)

// Job returns the job of a ping of host, an IPv4 address or a name. Names are resolved by
// servers. The output goes to out. The socket is one of Open; the caller closes it. Host
// of the Request is ignored.
func Job(host string, r Request, servers []netip.Addr, socket *os.File, out io.Writer) service.Job {
	var e service.Encoder
	e.String(host)
	e.Addrs(servers)
	e.Uint(uint64(r.Count))
	e.Int(int64(r.Interval))
	e.Uint(uint64(r.Size))
	e.Bool(r.Rows)
	return service.Job{Spec: Spec, Op: opPing, Body: e.Bytes(), Files: []*os.File{socket}, Output: out}
}

// TraceJob returns the job of a traceroute, as Job does of a ping.
func TraceJob(host string, r TraceRequest, servers []netip.Addr, socket *os.File, out io.Writer) service.Job {
	var e service.Encoder
	e.String(host)
	e.Addrs(servers)
	e.Uint(uint64(r.MaxHops))
	e.Int(int64(r.Timeout))
	e.Uint(uint64(r.Probes))
	return service.Job{Spec: Spec, Op: opTraceroute, Body: e.Bytes(), Files: []*os.File{socket}, Output: out}
}

func runProcess(c *service.Child) error {
	return c.Serve(func(ctx context.Context, r *service.Request) ([]byte, error) {
		return nil, serve(ctx, r, c.Output())
	})
}

// serve does what r asks for. When ctx is done, it ends early, without an error.
func serve(ctx context.Context, r *service.Request, out io.Writer) error {
	name, servers := r.String(maxHost), r.Addrs(maxServers)
	var request Request
	var trace TraceRequest
	switch r.Op {
	case opPing:
		request = Request{Count: int(r.Uint(math.MaxInt32)), Interval: r.Duration(), Size: int(r.Uint(maxPacket)), Rows: r.Bool()}
	case opTraceroute:
		trace = TraceRequest{MaxHops: int(r.Uint(255)), Timeout: r.Duration(), Probes: int(r.Uint(MaxProbes))}
	default:
		return fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
	}
	socket := r.TakeFile()
	if err := r.End(); err != nil || socket == nil || r.Op == opPing && request.Size < headers || r.Op == opTraceroute && trace.Probes < 1 {
		return fmt.Errorf("%w: a request that is not whole", service.ErrBreach)
	}
	defer socket.Close()
	host, err := resolve.New(resolve.Options{}).LookupOne(ctx, name, resolve.ServersAt(servers...))
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case r.Op == opTraceroute:
		trace.Host = host
		return Trace(ctx, socket, trace, out)
	}
	request.Host = host
	return Run(ctx, socket, request, out)
}
