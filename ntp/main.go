package ntp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/resolve"
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

// String is the line that the process writes; ParseSample reads it.
func (s Sample) String() string {
	return fmt.Sprintf("%s %d %d", s.Server, s.Stratum, s.Offset.Nanoseconds())
}

// ParseSample reads a line of the process. Whoever sets the clock by it believes that
// process nothing else.
func ParseSample(line string) (Sample, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || len(fields[0]) > 253 {
		return Sample{}, errors.New("time client: expected a line of three words")
	}
	stratum, err := strconv.ParseUint(fields[1], 10, 8)
	if err != nil || stratum < 1 || stratum > maxStratum {
		return Sample{}, fmt.Errorf("time client: stratum %q, expected 1 to %d", fields[1], maxStratum)
	}
	offset, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return Sample{}, fmt.Errorf("time client: offset: %w", err)
	}
	return Sample{fields[0], int(stratum), time.Duration(offset)}, nil
}

// Arguments are those of Main.
func Arguments(c Config, nameServers []netip.Addr) []string {
	return append(append(resolve.ServersAt(nameServers...).Arguments(), "--"), c.Servers...)
}

// Main is the process: it writes a Sample for each good answer to its standard output, and
// what goes wrong to its standard error. SIGINT ends it. It returns the exit status.
func Main(arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	flags := pflag.NewFlagSet("ntp", pflag.ContinueOnError)
	var names resolve.Servers
	flags.Var(&names, resolve.Flag, "who is asked for the address of a name")
	if err := flags.Parse(arguments); err != nil || flags.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "time client: no server:", err)
		return 1
	}
	c := client{servers: flags.Args(), names: names, lookup: resolve.New(resolve.Options{}).LookupOne, port: port, out: os.Stdout, errors: os.Stderr}
	c.run(ctx)
	return 0
}

// client asks servers in turn.
type client struct {
	servers     []string
	names       resolve.Servers
	lookup      func(ctx context.Context, host string, servers resolve.Servers) (netip.Addr, error)
	port        uint16
	out, errors io.Writer
}

// run asks until ctx is done. It keeps to a server that answers, and asks it more rarely
// then. When none has answered it asks more rarely too: it may not be their fault.
func (c *client) run(ctx context.Context) {
	turn := turn{pause: minPoll, dead: make([]bool, len(c.servers))}
	for {
		host := c.servers[turn.server]
		s, err := c.ask(ctx, host)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if _, err := fmt.Fprintln(c.out, s); err != nil {
				return // nobody listens
			}
		} else {
			fmt.Fprintf(c.errors, "time server %s: %v\n", host, err)
		}
		pause := turn.next(err)
		if pause < 0 {
			fmt.Fprintln(c.errors, "all time servers have said that they do not want to be asked")
			return
		}
		select {
		case <-ctx.Done():
			return
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
