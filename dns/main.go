package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

// The most that a Config can ask for: each takes a descriptor.
const (
	MaxQueries  = 250
	MaxSessions = 50
)

// Spec is the process. PID 1 hands it the sockets of Listen with its first Config.
var Spec = service.Spec{
	Name: "dnsd", Topic: "dns", Main: runProcess,
	Calls: service.Client().And(service.Calls{Any: []uint32{unix.SYS_ACCEPT4, unix.SYS_RECVMMSG, unix.SYS_SENDMMSG}}),
	// A socket for each question upstream, and for each that is asked besides.
	Limits:     service.Limits{Files: MaxQueries + MaxSessions + maxBesides + 32},
	MaxMessage: 256 << 10, // MaxStatic entries
}

// Requests of PID 1.
const (
	opConfigure = 1
	opNames     = 2
	opCache     = 3
	opFlush     = 4
	opUsed      = 5
)

// Process is PID 1's end of the process.
type Process struct{ link *service.Link }

// NewProcess is for service.Options.
func NewProcess(link *service.Link) *Process { return &Process{link} }

// Configure has the process answer by c and ask servers, at the sockets of Listen.
func (p *Process) Configure(ctx context.Context, c Config, servers []netip.Addr, udp, tcp *os.File) error {
	var e service.Encoder
	c.encode(&e, servers)
	return p.link.Call(ctx, opConfigure, e.Bytes(), nil, udp, tcp)
}

// Names has the process answer for the names of hosts that have a lease, in lower case, and for no
// others than these from then on. The cache stays as it is. Of more than MaxHosts names it takes the
// first in alphabetical order, and left is how many are left out.
func (p *Process) Names(ctx context.Context, hosts map[string]Host) (left int, err error) {
	var e service.Encoder
	left = len(hosts) - encodeHosts(&e, hosts)
	return left, p.link.Call(ctx, opNames, e.Bytes(), nil)
}

// Cache lists what the server knows: its static entries and what it has cached, at most
// MaxCacheEntries, and how many more there are.
func (p *Process) Cache(ctx context.Context) (list []CacheEntry, left int, err error) {
	err = p.link.Call(ctx, opCache, nil, func(d *service.Decoder) { list, left = decodeCache(d) })
	return list, left, err
}

// Flush empties the cache.
func (p *Process) Flush(ctx context.Context) error { return p.link.Call(ctx, opFlush, nil, nil) }

// Used returns how many bytes the cache takes.
func (p *Process) Used(ctx context.Context) (bytes int, err error) {
	err = p.link.Call(ctx, opUsed, nil, func(d *service.Decoder) { bytes = int(d.Uint(2 * MaxCacheSize << 10)) })
	return bytes, err
}

// Handle refuses everything: the process has nothing to say.
func (*Process) Handle(context.Context, *service.Request) ([]byte, error) {
	return nil, fmt.Errorf("%w: no request", service.ErrBreach)
}

// Ended has nothing to tidy up.
func (*Process) Ended() {}

// runProcess is the process.
func runProcess(c *service.Child) error {
	// One loop answers from the cache. A second processor of Go's would have spans of its own, half a MB, and
	// only pass work to and fro.
	runtime.GOMAXPROCS(1)
	// The cache has no pointers, so that looking for garbage costs little; and an answer from it leaves none.
	debug.SetGCPercent(10)
	s := newServer(c.Context())
	var udp *net.UDPConn
	var tcp *net.TCPListener
	configure := func(r *service.Request) error {
		config, servers := decodeConfig(r.Decoder)
		if r.End() != nil {
			return fmt.Errorf("%w: no configuration", service.ErrBreach)
		}
		first, second := r.TakeFile(), r.TakeFile()
		s.configure(config, servers)
		if udp != nil { // they are copies of those that there are
			first.Close()
			second.Close()
			return nil
		}
		var err error
		if udp, tcp, err = sockets(first, second); err != nil {
			return err
		}
		s.work.Go(func() { s.serveUDP(udp) })
		s.work.Go(func() { s.serveTCP(tcp) })
		return nil
	}
	err := c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) {
		if r.Op == opConfigure {
			return nil, configure(r)
		}
		return answerParent(s, r)
	})
	c.Stop()
	if udp != nil {
		udp.Close()
		tcp.Close()
	}
	s.work.Wait()
	return err
}

// keeper is what PID 1 asks of the server besides taking a configuration.
type keeper interface {
	snapshot() (list []CacheEntry, left int)
	flush()
	setNames(map[string]Host)
	used() int
}

// answerParent answers what PID 1 asks besides opConfigure.
func answerParent(s keeper, r *service.Request) ([]byte, error) {
	var reply service.Encoder
	switch r.Op {
	case opNames:
		if hosts := decodeHosts(r.Decoder); r.End() == nil {
			s.setNames(hosts)
		}
	case opCache:
		list, left := s.snapshot()
		encodeCache(&reply, list, left)
	case opFlush:
		s.flush()
	case opUsed:
		reply.Uint(uint64(s.used()))
	default:
		return nil, fmt.Errorf("%w: no such request: %d", service.ErrBreach, r.Op)
	}
	return reply.Bytes(), nil
}

// sockets takes over the files of Listen.
func sockets(first, second *os.File) (*net.UDPConn, *net.TCPListener, error) {
	if first == nil || second == nil {
		return nil, nil, errors.New("no sockets")
	}
	defer first.Close()
	defer second.Close()
	packets, err := net.FilePacketConn(first)
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.FileListener(second)
	if err != nil {
		packets.Close()
		return nil, nil, err
	}
	udp, ok1 := packets.(*net.UDPConn)
	tcp, ok2 := listener.(*net.TCPListener)
	if !ok1 || !ok2 {
		packets.Close()
		listener.Close()
		return nil, nil, errors.New("expected a UDP and a TCP socket")
	}
	return udp, tcp, nil
}
