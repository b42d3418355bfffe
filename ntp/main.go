package ntp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

const (
	// port is that of time servers.
	port = 123
	// answerTime is how long an answer is waited for.
	answerTime = 5 * time.Second
	// minPoll and maxPoll are the pauses between requests, as in RFC 5905.
	minPoll = 64 * time.Second
	maxPoll = 1024 * time.Second
)

// Sample is what one answer tells.
type Sample struct {
	Server  string
	Stratum int
	// Offset is what the clock is behind.
	Offset time.Duration
}

// Spec is the process. It asks the servers of its configuration, and tells PID 1 what they say.
var Spec = service.Spec{
	Name: "ntp", Main: runProcess, Calls: service.Client(),
	AskEvery: 5 * time.Minute,
	// It ends by itself when no server wants to be asked.
	LeastPause: time.Minute,
}

// The requests: a configuration for the process, and a Sample for PID 1.
const (
	opConfigure = 1
	opSample    = 2
)

const (
	maxServers = 64
	maxName    = 253 // RFC 1035
)

// Process is PID 1's view of the process.
type Process struct {
	link *service.Link
	take func(Sample) error
}

// NewProcess is for service.Options. take gets each good answer; what it says is checked for
// form alone. Its error is told to the process, which does nothing about it but log it.
func NewProcess(link *service.Link, take func(Sample) error) *Process { return &Process{link, take} }

// Configure has the process ask those servers, and look names up by names.
func (p *Process) Configure(ctx context.Context, c Config, names []netip.Addr) error {
	var e service.Encoder
	e.Strings(c.Servers)
	e.Addrs(names)
	return p.link.Call(ctx, opConfigure, e.Bytes(), nil)
}

// Handle takes a Sample.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	s := Sample{Server: r.String(maxName), Stratum: int(r.Uint(maxStratum)), Offset: r.Duration()}
	if r.Op != opSample || s.Stratum == 0 || r.End() != nil {
		return nil, fmt.Errorf("%w: no sample", service.ErrBreach)
	}
	return nil, p.take(s)
}

// Ended has nothing to tidy up.
func (p *Process) Ended() {}

// runProcess is the process: it asks as its newest configuration says.
func runProcess(c *service.Child) error {
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	stop := func() {} // ends the client of the configuration before
	err := c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) {
		servers, names := r.Strings(maxServers, maxName), r.Addrs(maxServers)
		if r.Op != opConfigure || len(servers) == 0 || r.End() != nil {
			return nil, fmt.Errorf("%w: no configuration", service.ErrBreach)
		}
		stop()
		asking, end := context.WithCancel(ctx)
		done := make(chan struct{})
		stop = func() { end(); <-done }
		asker := client{servers: servers, names: resolve.ServersAt(names...), lookup: resolve.New(resolve.Options{}).LookupOne, port: port,
			logf: c.Logf, report: func(ctx context.Context, s Sample) error { return report(ctx, c, s) }}
		go func() {
			defer close(done)
			if err := asker.run(asking); err != nil {
				cancel(err)
				c.Stop()
			}
		}()
		return nil, nil
	})
	stop()
	if cause := context.Cause(ctx); errors.Is(cause, errUnwanted) {
		return cause
	}
	return err
}

// report tells PID 1 of a sample.
func report(ctx context.Context, c *service.Child, s Sample) error {
	var e service.Encoder
	e.String(s.Server)
	e.Uint(uint64(s.Stratum))
	e.Int(int64(s.Offset))
	return c.Call(ctx, opSample, e.Bytes(), nil)
}

// client asks servers in turn.
type client struct {
	servers []string
	names   resolve.Servers
	lookup  func(ctx context.Context, host string, servers resolve.Servers) (netip.Addr, error)
	port    uint16
	report  func(context.Context, Sample) error
	logf    func(format string, args ...any)
}

// errUnwanted is why a client ends by itself.
var errUnwanted = errors.New("all time servers have said that they do not want to be asked")

// run asks until ctx is done, or nobody is left to ask. It keeps to a server that answers, and asks it more rarely
// then. When none has answered it asks more rarely too: it may not be their fault.
func (c *client) run(ctx context.Context) error {
	turn := turn{pause: minPoll, dead: make([]bool, len(c.servers))}
	for {
		host := c.servers[turn.server]
		s, err := c.ask(ctx, host)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			// A time that PID 1 does not believe is as good as none.
			if err = c.report(ctx, s); err != nil {
				c.logf("%v", err)
			}
		} else {
			c.logf("time server %s: %v", host, err)
		}
		pause := turn.next(err)
		if pause < 0 {
			return errUnwanted
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// turn is whose turn it is, and when.
type turn struct {
	server int
	pause  time.Duration
	// dead are the servers that are asked no more.
	dead []bool
	// failed are the requests in a row that came to nothing.
	failed int
}

// next takes how a request went and returns the pause before the next one, or -1 if there
// is nobody left to ask.
func (t *turn) next(err error) time.Duration {
	if err == nil {
		t.failed = 0
		pause := t.pause
		t.pause = min(2*t.pause, maxPoll)
		return pause
	}
	var k kiss
	switch {
	case errors.As(err, &k) && k != "RATE":
		t.dead[t.server] = true
	case errors.As(err, &k):
		t.pause = maxPoll
	}
	t.failed++
	for range t.dead {
		if t.server = (t.server + 1) % len(t.dead); !t.dead[t.server] {
			break
		}
	}
	if t.dead[t.server] {
		return -1
	}
	// Each server once, and soon; then slowly.
	if t.failed%len(t.dead) != 0 {
		return time.Second * 2
	}
	pause := max(t.pause, minPoll<<min(t.failed/len(t.dead)-1, 4))
	return min(pause, maxPoll)
}

// ask asks one server once.
func (c *client) ask(ctx context.Context, host string) (Sample, error) {
	address, err := c.lookup(ctx, host, c.names)
	if err != nil {
		return Sample{}, err
	}
	// A connected socket takes packets of the server alone, from a port of chance.
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, c.port)))
	if err != nil {
		return Sample{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var bits [8]byte
	if _, err := rand.Read(bits[:]); err != nil {
		return Sample{}, err
	}
	random := stamp(binary.BigEndian.Uint64(bits[:]))
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return Sample{}, err
	}
	sent := time.Now()
	if _, err := conn.Write(request(random)); err != nil {
		return Sample{}, err
	}
	b := make([]byte, 512)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return Sample{}, err
		}
		a, err := parseAnswer(b[:n], random, sent, time.Since(sent))
		if errors.Is(err, errForeign) {
			continue // the right one may be on its way, until the deadline
		}
		if err != nil {
			return Sample{}, err
		}
		return Sample{Server: host, Stratum: a.stratum, Offset: a.offset}, nil
	}
}
