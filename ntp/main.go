package ntp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

const (
	// port is the port of time servers.
	port = 123
	// answerTime is how long the client waits for an answer.
	answerTime = 5 * time.Second
	// minPoll and maxPoll are the shortest and the longest pause between requests, as in
	// RFC 5905.
	minPoll = 64 * time.Second
	maxPoll = 1024 * time.Second
)

// Sample is the outcome of one answer.
type Sample struct {
	Server  string
	Stratum int
	// Offset is the time by which the clock is behind.
	Offset time.Duration
}

// Spec is the process. It asks the servers of its configuration and sends PID 1 a Sample of
// each answer. When there is nobody to ask for a minute or more it asks for a Rest.
var Spec = service.Spec{
	Name: "ntp", Main: runProcess, Calls: service.Client(),
	AskEvery: 5 * time.Minute,
	// It ends by itself when no server wants to be asked.
	LeastPause: time.Minute,
}

// The requests: PID 1 sends a configuration, the process Samples and a Rest.
const (
	opConfigure = 1
	opSample    = 2
	opRest      = 3
)

// Rest is the wish of a process to be ended, and started again after a pause.
type Rest struct {
	// Run is the number of the configuration that it follows, see Process.Configure.
	Run uint64
	// Pause is 64 s to 1024 s.
	Pause time.Duration
	// State is what the next process is to know of this one, whatever that is: maxState bytes at most.
	State string
}

const (
	maxServers = 64
	maxName    = 253 // RFC 1035
	maxState   = 64
)

// Process is PID 1's end of the process.
type Process struct {
	link *service.Link
	take func(Sample) error
	rest func(Rest) error
}

// NewProcess is for service.Options. take gets each Sample, and rest each Rest, of which only the form
// has been checked. The process logs the error of take. After one of rest it goes on without a rest.
func NewProcess(link *service.Link, take func(Sample) error, rest func(Rest) error) *Process {
	return &Process{link, take, rest}
}

// Configure has the process ask the servers of c, whose names the servers in names resolve. run is a number
// by which a Rest tells that it is one of this configuration, and state is that of the last Rest, or empty.
func (p *Process) Configure(ctx context.Context, c Config, names []netip.Addr, run uint64, state string) error {
	var e service.Encoder
	e.Strings(c.Servers)
	e.Addrs(names)
	e.Uint(run)
	e.String(state)
	return p.link.Call(ctx, opConfigure, e.Bytes(), nil)
}

// Handle takes a Sample or a Rest of the process.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	if r.Op == opRest {
		rest := Rest{Run: r.Uint(math.MaxUint64), Pause: r.Duration(), State: r.String(maxState)}
		if rest.Pause < minPoll || rest.Pause > maxPoll || r.End() != nil {
			return nil, fmt.Errorf("%w: no rest", service.ErrBreach)
		}
		return nil, p.rest(rest)
	}
	s := Sample{Server: r.String(maxName), Stratum: int(r.Uint(maxStratum)), Offset: r.Duration()}
	if r.Op != opSample || s.Stratum == 0 || r.End() != nil {
		return nil, fmt.Errorf("%w: no sample", service.ErrBreach)
	}
	return nil, p.take(s)
}

// Ended has nothing to tidy up.
func (p *Process) Ended() {}

// runProcess is the process. It follows the newest configuration.
func runProcess(c *service.Child) error {
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	stop := func() {} // ends the client of the last configuration
	err := c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) {
		servers, names, run, state := r.Strings(maxServers, maxName), r.Addrs(maxServers), r.Uint(math.MaxUint64), r.String(maxState)
		if r.Op != opConfigure || len(servers) == 0 || r.End() != nil {
			return nil, fmt.Errorf("%w: no configuration", service.ErrBreach)
		}
		stop()
		asking, end := context.WithCancel(ctx)
		done := make(chan struct{})
		stop = func() { end(); <-done }
		asker := client{servers: servers, names: resolve.ServersAt(names...), lookup: resolve.New(resolve.Options{}).LookupOne, port: port,
			logf: c.Logf, report: func(ctx context.Context, s Sample) error { return report(ctx, c, s) },
			state: state, rest: func(ctx context.Context, pause time.Duration, state string) error {
				return askForRest(ctx, c, Rest{run, pause, state})
			}}
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

// report sends PID 1 a sample.
func report(ctx context.Context, c *service.Child, s Sample) error {
	var e service.Encoder
	e.String(s.Server)
	e.Uint(uint64(s.Stratum))
	e.Int(int64(s.Offset))
	return c.Call(ctx, opSample, e.Bytes(), nil)
}

// askForRest sends PID 1 a rest.
func askForRest(ctx context.Context, c *service.Child, r Rest) error {
	var e service.Encoder
	e.Uint(r.Run)
	e.Int(int64(r.Pause))
	e.String(r.State)
	return c.Call(ctx, opRest, e.Bytes(), nil)
}

// client asks time servers in turn.
type client struct {
	servers []string
	names   resolve.Servers
	lookup  func(ctx context.Context, host string, servers resolve.Servers) (netip.Addr, error)
	port    uint16
	report  func(context.Context, Sample) error
	logf    func(format string, args ...any)
	// rest asks for the end of the process until the pause is over. If it returns nil that end follows.
	rest func(_ context.Context, pause time.Duration, state string) error
	// state is the turn of the process that rested, or empty.
	state string
}

// errUnwanted says why a client has ended by itself.
var errUnwanted = errors.New("all time servers have said that they do not want to be asked")

// run asks until ctx is done or no server is left to ask. As long as a server answers, it
// asks no other, and that one less and less often. It also asks less often when none has
// answered, since the fault may be on this side.
func (c *client) run(ctx context.Context) error {
	turn := newTurn(len(c.servers), c.state)
	for {
		host := c.servers[turn.server]
		s, err := c.ask(ctx, host)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			// A time that PID 1 refuses counts as no answer.
			if err = c.report(ctx, s); err != nil {
				c.logf("%v", err)
			}
		} else {
			c.logf("time server %s: %v", host, resolve.Reason(err))
		}
		pause := turn.next(err)
		if pause < 0 {
			return errUnwanted
		}
		if pause >= minPoll && c.rest(ctx, pause, turn.state()) == nil {
			<-ctx.Done()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// turn decides which server is asked next, and when.
type turn struct {
	server int
	pause  time.Duration
	// dead marks the servers that are never asked again.
	dead []bool
	// failed counts the failed requests since the last answer.
	failed int
}

// newTurn returns the turn of so many servers, where another was when it was in that state.
func newTurn(servers int, state string) turn {
	t := turn{pause: minPoll, dead: make([]bool, servers)}
	d := service.NewDecoder([]byte(state))
	server, pause, failed, dead := d.Uint(maxServers), d.Duration(), d.Uint(math.MaxInt32), d.Uint(math.MaxUint64)
	if d.End() != nil || server >= uint64(servers) || pause < minPoll || pause > maxPoll {
		return t // the first
	}
	t.server, t.pause, t.failed = int(server), pause, int(failed)
	for i := range t.dead {
		t.dead[i] = dead>>i&1 != 0
	}
	return t
}

// state returns what newTurn makes the same turn of.
func (t *turn) state() string {
	var dead uint64
	for i, d := range t.dead {
		if d {
			dead |= 1 << i
		}
	}
	var e service.Encoder
	e.Uint(uint64(t.server))
	e.Int(int64(t.pause))
	e.Uint(uint64(t.failed))
	e.Uint(dead)
	return string(e.Bytes())
}

// next takes the error of a request and returns the pause before the next one, or -1 if no
// server is left to ask.
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
	// Each server is asked once, soon after the last one; then the pauses get longer.
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
	// A connected socket gets only packets of this server. The kernel chooses a random port.
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
			continue // the answer may still come before the deadline
		}
		if err != nil {
			return Sample{}, err
		}
		return Sample{Server: host, Stratum: a.stratum, Offset: a.offset}, nil
	}
}
