package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/service"
)

// Spec is the process. PID 1 hands it the sockets of each interface; it tells PID 1 what each
// client does, and its lease. PID 1 ends it while none of the clients has anything to do, and its next
// process goes on with the leases.
var Spec = service.Spec{
	Name: "dhcpc", Topic: "dhcp", Main: runProcess,
	Calls: service.Calls{Any: []uint32{unix.SYS_RECVMSG, unix.SYS_SENDTO}},
	// Two sockets for each interface, and what Go needs.
	Limits: service.Limits{Files: 2*MaxClients + 32},
}

// MaxClients is how many interfaces can have a client.
const MaxClients = 8

// The requests: of PID 1, and of the process.
const (
	opStart  = 1
	opEnd    = 2
	opEvent  = 3
	opReport = 4
)

const (
	maxName     = 15 // of an interface
	maxHostName = 64
)

// Report is what a client does. Lease is nil if it has none; then Keep says that the lease which
// PID 1 has still holds.
type Report struct {
	Interface string
	Status    Status
	Lease     *Lease
	Keep      bool
	// Seen is how many events the client has taken since its start: the report is what came of them.
	Seen uint64
}

// Process is PID 1's end of the process.
type Process struct {
	link *service.Link
	take func(Report) error
}

// NewProcess is for service.Options. take gets each Report, which has been checked.
func NewProcess(link *service.Link, take func(Report) error) *Process { return &Process{link, take} }

// Start has the process run a client on an interface, with the sockets of dhcp.OpenUDP and
// dhcp.OpenARP, in the place of one that it runs there.
func (p *Process) Start(ctx context.Context, name string, s Settings, udp, arp *os.File) error {
	var e service.Encoder
	e.String(name)
	e.String(string(s.MAC[:]))
	e.String(s.HostName)
	e.Bool(s.ClientID)
	e.Addr(s.Previous)
	e.Bool(s.Lease != nil)
	if s.Lease != nil {
		s.Lease.encode(&e)
	}
	return p.link.Call(ctx, opStart, e.Bytes(), nil, udp, arp)
}

// End ends the client of an interface. It gives its lease back if wanted.
func (p *Process) End(ctx context.Context, name string, giveBack bool) error {
	var e service.Encoder
	e.String(name)
	e.Bool(giveBack)
	return p.link.Call(ctx, opEnd, e.Bytes(), nil)
}

// Tell tells the client of an interface something. It returns a service.RemoteError if the client was
// not told, because too much that it was told waits.
func (p *Process) Tell(ctx context.Context, name string, what Event) error {
	var e service.Encoder
	e.String(name)
	e.Uint(uint64(what))
	return p.link.Call(ctx, opEvent, e.Bytes(), nil)
}

// Handle takes a Report.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	report := Report{Interface: r.String(maxName), Status: statuses[r.Uint(uint64(len(statuses)-1))], Keep: r.Bool(), Seen: r.Uint(math.MaxUint64)}
	if r.Bool() {
		report.Lease = decodeLease(r.Decoder)
	}
	if err := r.End(); r.Op != opReport || err != nil {
		return nil, fmt.Errorf("%w: no report", service.ErrBreach)
	}
	return nil, p.take(report)
}

// Ended has nothing to tidy up.
func (p *Process) Ended() {}

// process is what the process has.
type process struct {
	child   *service.Child
	mu      sync.Mutex
	clients map[string]*running
}

// running is a client that runs.
type running struct {
	client  *client
	events  chan Event
	stop    context.CancelFunc
	done    chan struct{}
	sockets []*ether.Conn
}

func runProcess(child *service.Child) error {
	p := &process{child: child, clients: map[string]*running{}}
	err := child.Serve(p.handle)
	child.Stop()
	for name := range p.clients {
		p.end(name, false)
	}
	return err
}

// handle serves PID 1.
func (p *process) handle(_ context.Context, r *service.Request) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := r.String(maxName)
	switch r.Op {
	case opStart:
		mac := r.String(len(ether.MAC{}))
		s := Settings{HostName: r.String(maxHostName), ClientID: r.Bool(), Previous: r.Addr()}
		if r.Bool() {
			s.Lease = decodeLease(r.Decoder)
		}
		udp, arp := r.TakeFile(), r.TakeFile()
		if r.End() != nil || len(mac) != len(s.MAC) || udp == nil || arp == nil {
			break
		}
		copy(s.MAC[:], mac)
		p.end(name, false)
		return nil, p.start(name, s, udp, arp)
	case opEnd:
		giveBack := r.Bool()
		if r.End() != nil {
			break
		}
		p.end(name, giveBack)
		return nil, nil
	case opEvent:
		what := Event(r.Uint(uint64(Release)))
		if r.End() != nil {
			break
		}
		if c := p.clients[name]; c != nil {
			select {
			case c.events <- what:
			default:
				return nil, errBusy
			}
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%w: no request", service.ErrBreach)
}

var errBusy = errors.New("failure: the DHCP client is busy")

// start starts a client.
func (p *process) start(name string, s Settings, udp, arp *os.File) error {
	r, err := run(p.child.Context(), s, udp, arp,
		func(format string, args ...any) { p.child.Logf("DHCP client on "+name+": "+format, args...) },
		func(ctx context.Context, r Report) {
			r.Interface = name
			if err := p.report(ctx, r); err != nil && ctx.Err() == nil {
				p.child.Logf("DHCP client on %s: %v", name, err)
			}
		})
	if err == nil {
		p.clients[name] = r
	}
	return err
}

// run runs a client with these sockets until ctx is done. Reports are without the interface's name.
func run(ctx context.Context, s Settings, udp, arp *os.File, logf func(string, ...any), report func(context.Context, Report)) (*running, error) {
	r := &running{events: make(chan Event, 4), done: make(chan struct{})}
	for _, f := range []*os.File{udp, arp} {
		c, err := ether.NewConn(f)
		if err != nil {
			return nil, err
		}
		r.sockets = append(r.sockets, c)
	}
	ctx, stop := context.WithCancel(ctx)
	r.stop = stop
	var xid atomic.Uint32
	in, over := make(chan received, 8), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		r.sockets[0].ReadAll(func(frame []byte, sumReady bool) {
			answer, ok := s.read(frame, sumReady, xid.Load())
			if !ok {
				return
			}
			// What comes meanwhile waits in the socket, whose room the kernel bounds: a right answer is not dropped for wrong ones before it.
			select {
			case in <- answer:
			case <-over:
			}
		})
	})
	prober := newProber(s.MAC, r.sockets[1])
	reading.Go(func() { r.sockets[1].ReadAll(func(frame []byte, _ bool) { prober.take(frame) }) })
	r.client = &client{
		settings: s, events: r.events,
		wires: wires{in: in, expect: xid.Store, probe: prober.probe, send: sender(s.MAC, r.sockets[0])},
		logf:  logf,
		report: func(st Status, l *Lease, keep bool, seen uint64) {
			report(ctx, Report{Status: st, Lease: l, Keep: keep, Seen: seen})
		},
	}
	go func() {
		defer close(r.done)
		r.client.run(ctx)
		close(over)
		for _, c := range r.sockets {
			c.Close()
		}
		reading.Wait()
	}()
	return r, nil
}

// end ends a client, if there is one.
func (p *process) end(name string, giveBack bool) {
	r := p.clients[name]
	if r == nil {
		return
	}
	delete(p.clients, name)
	if giveBack {
		select {
		case r.events <- leave:
		default:
		}
		select {
		case <-r.done:
		case <-time.After(leaveTime):
		}
	}
	r.stop()
	<-r.done
}

// leaveTime is how long a client may take to give its lease back.
const leaveTime = time.Second

// report tells PID 1.
func (p *process) report(ctx context.Context, r Report) error {
	var e service.Encoder
	e.String(r.Interface)
	for i, other := range statuses {
		if other == r.Status {
			e.Uint(uint64(i))
		}
	}
	e.Bool(r.Keep)
	e.Uint(r.Seen)
	e.Bool(r.Lease != nil)
	if r.Lease != nil {
		r.Lease.encode(&e)
	}
	return p.child.Call(ctx, opReport, e.Bytes(), nil)
}

// sender returns what sends messages by a socket. What cannot be sent is lost, as on a cable: it is
// sent again.
func sender(mac ether.MAC, c *ether.Conn) func(m *dhcp.Message, from netip.Addr, to *hop) {
	return func(m *dhcp.Message, from netip.Addr, to *hop) {
		payload, err := m.Marshal(dhcp.MaxMessage)
		if err != nil {
			return // a client's own messages are short
		}
		p := dhcp.Packet{FromMAC: mac, ToMAC: ether.Broadcast, From: netip.AddrPortFrom(from, dhcp.ClientPort),
			To: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcp.ServerPort), Payload: payload}
		if to != nil {
			p.ToMAC, p.To = to.mac, netip.AddrPortFrom(to.server, dhcp.ServerPort)
		}
		_ = c.Write(p.Append(nil))
	}
}

// prober asks who has an address.
type prober struct {
	mac  ether.MAC
	conn *ether.Conn
	mu   sync.Mutex
	// about is the address in question, the zero Addr if there is none; used is closed when
	// somebody has it.
	about netip.Addr
	used  chan struct{}
}

func newProber(mac ether.MAC, conn *ether.Conn) *prober { return &prober{mac: mac, conn: conn} }

// take takes an ARP packet.
func (p *prober) take(frame []byte) {
	a, err := dhcp.ParseARP(frame)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.about.IsValid() && a.Has(p.about, p.mac) {
		p.about = netip.Addr{}
		close(p.used)
	}
}

// probe reports whether somebody else has the address.
func (p *prober) probe(ctx context.Context, address netip.Addr) bool {
	used := make(chan struct{})
	p.mu.Lock()
	p.about, p.used = address, used
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.about = netip.Addr{}
		p.mu.Unlock()
	}()
	for range probes {
		_ = p.conn.Write(dhcp.Probe(p.mac, address).Append(nil)) // lost as on a cable
		select {
		case <-used:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(probeWait):
		}
	}
	return false
}
