package ping

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// TraceRequest says to which host the way is to be found.
type TraceRequest struct {
	Host    netip.Addr
	MaxHops int           // 1..255
	Timeout time.Duration // of each request
	Probes  int           // how many requests there are for each hop, 1..MaxProbes
}

// MaxProbes is how many requests there can be for each hop.
const MaxProbes = 100

const (
	// traceSize is the size of the packets in bytes, headers included.
	traceSize   = 56
	traceFormat = "%3s %-15s %4s %4s %8s %8s %8s %8s %s\n"
)

// Trace sends requests with a time to live of 1, 2 and so on, and writes a line for each of
// these hops. It ends at the host itself, or at a router that says that there is no way.
// When ctx is done, it ends early, without an error.
func Trace(ctx context.Context, socket *os.File, r TraceRequest, out io.Writer) error {
	p, err := newPinger(socket, traceSize)
	if err != nil {
		return err
	}
	defer p.conn.Close()
	fmt.Fprintf(out, traceFormat, "#", "ADDRESS", "LOSS", "SENT", "LAST", "AVG", "BEST", "WORST", "STATUS")
	for hop := 1; hop <= r.MaxHops; hop++ {
		if err := p.set(unix.IP_TTL, hop); err != nil {
			return err
		}
		var sum summary
		var who echo // the last answer, of the host or a router
		for range r.Probes {
			e, err := p.ask(ctx, r.Host, r.Timeout)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			sum.add(e)
			if e.from.IsValid() || !who.from.IsValid() {
				who = e
			}
		}
		if err := sum.writeHop(out, hop, who); err != nil {
			return err
		}
		onTheWay := who.status == icmpStatus(icmpExceeded, 0) || who.status == timedOut
		if !onTheWay {
			return nil
		}
	}
	return nil
}

// writeHop writes the line of one hop.
func (s *summary) writeHop(out io.Writer, hop int, who echo) error {
	address, status := "", who.status
	if who.from.IsValid() {
		address = who.from.String()
	}
	if status == icmpStatus(icmpExceeded, 0) { // as expected
		status = ""
	}
	times := make([]string, 4)
	if s.received > 0 {
		for i, d := range []time.Duration{s.lastTime, s.average(), s.min, s.max} {
			times[i] = fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
		}
	}
	line := fmt.Sprintf(traceFormat, fmt.Sprint(hop), address, fmt.Sprintf("%d%%", s.loss()), fmt.Sprint(s.sent),
		times[0], times[1], times[2], times[3], status)
	_, err := io.WriteString(out, strings.TrimRight(line, " \n")+"\n")
	return err
}
