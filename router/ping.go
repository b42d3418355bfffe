package router

import (
	"context"
	"fmt"
	"io"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ping"
	"github.com/postern-router/postern/service"
)

// maxPings is how many pings and traceroutes there may be at once: each is a process.
const maxPings = 8

// stream does what takes its time and shows how it goes. The requests of ping or traceroute
// are sent by a process of its own, which has nothing but the socket for it. It ends with ctx.
func (r *Router) stream(ctx context.Context, result console.Result, out io.Writer) error {
	switch result.Request {
	case console.Upgrade:
		return r.upgradeTo(ctx, result.Upgrade, out)
	case console.CheckForUpdates:
		return r.checkForUpdates(ctx, out)
	}
	select {
	case r.pings <- struct{}{}:
		defer func() { <-r.pings }()
	default:
		return fmt.Errorf("failure: %d pings and traceroutes run, and there can be no more at once", maxPings)
	}
	servers := r.effective(r.snapshot()).Resolvers()
	from := ping.From{Address: result.Ping.From, TTL: result.Ping.TTL, Interface: result.Ping.Interface}
	if result.Request == console.Traceroute {
		from = ping.From{Address: result.Traceroute.From}
	}
	socket, err := ping.Open(from)
	if err != nil {
		return fmt.Errorf("failure: %w", err)
	}
	defer socket.Close()
	var job service.Job
	if t := result.Traceroute; result.Request == console.Traceroute {
		job = ping.TraceJob(t.Address, ping.TraceRequest{MaxHops: t.MaxHops, Timeout: t.Timeout, Probes: t.Count}, servers, socket, out)
	} else {
		p := result.Ping
		job = ping.Job(p.Address, ping.Request{Count: p.Count, Interval: p.Interval, Size: p.Size, Rows: p.Rows}, servers, socket, out)
	}
	if err := r.supervisor.Run(ctx, job); err != nil && ctx.Err() == nil {
		return fmt.Errorf("failure: %w", err)
	}
	return nil
}
