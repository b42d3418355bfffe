package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
)

// Spec is the process. PID 1 hands it the sockets of the interfaces, the leases of before the start
// and a Plan; it tells PID 1 each Change. A message to a server starts it, and it ends when nobody
// has sent anything for restTime: that saves 0.6 MB where hosts ask a few times an hour.
var Spec = service.Spec{
	Name: "dhcpd", Topic: "dhcp", Start: service.OnConnection, Main: runProcess,
	Calls: service.Calls{Any: []uint32{unix.SYS_RECVMSG, unix.SYS_SENDTO}},
	// Two sockets for each interface, and what Go needs.
	Limits: service.Limits{Files: 2*MaxLinks + 32},
	// All leases, or a Plan.
	MaxMessage: 512 << 10,
}

// MaxLinks is how many interfaces can have servers.
const MaxLinks = 32

// The requests: of PID 1, and of the process.
const (
	opLink    = 1
	opPlan    = 2
	opRestore = 3
	opRemove  = 4
	opChanges = 5
	opTell    = 6
)

// updateTime is the least time between two messages with changes. They tell of all that has changed
// meanwhile.
const updateTime = 200 * time.Millisecond

// Process is PID 1's end of the process.
type Process struct {
	link *service.Link
	take func([]Change) error
}

// NewProcess is for service.Options. take gets changes, of which only the form has been checked.
func NewProcess(link *service.Link, take func([]Change) error) *Process {
	return &Process{link, take}
}

// Link hands the process the sockets of dhcp.OpenUDP and dhcp.OpenARP of an interface, or takes it
// away if there are none.
func (p *Process) Link(ctx context.Context, index int, mac ether.MAC, sockets ...*os.File) error {
	var e service.Encoder
	e.Uint(uint64(index))
	e.String(string(mac[:]))
	return p.link.Call(ctx, opLink, e.Bytes(), nil, sockets...)
}

// Plan has the process serve plan.
func (p *Process) Plan(ctx context.Context, plan Plan) error {
	var e service.Encoder
	plan.encode(&e)
	return p.link.Call(ctx, opPlan, e.Bytes(), nil)
}

// Restore tells the process of leases that there are already.
func (p *Process) Restore(ctx context.Context, all []Binding) error {
	var e service.Encoder
	encodeBindings(&e, all)
	return p.link.Call(ctx, opRestore, e.Bytes(), nil)
}

// Remove has the process forget leases.
func (p *Process) Remove(ctx context.Context, all []netip.Addr) error {
	var e service.Encoder
	e.Addrs(all)
	return p.link.Call(ctx, opRemove, e.Bytes(), nil)
}

// Tell returns when the process has told of all that it has done, as PID 1 else learns of it a moment later.
func (p *Process) Tell(ctx context.Context) error { return p.link.Call(ctx, opTell, nil, nil) }

// Handle takes changes of the process.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	all := decodeBindings(r.Decoder)
	if r.Op != opChanges || r.End() != nil {
		return nil, fmt.Errorf("%w: no leases", service.ErrBreach)
	}
	return nil, p.take(all)
}

// Ended has nothing to tidy up.
func (p *Process) Ended() {}

// runProcess is the process.
func runProcess(child *service.Child) error {
	p := &process{child: child, news: make(chan struct{}, 1), conns: map[int][]*ether.Conn{}}
	p.core = newCore(child.Logf, func() {
		select {
		case p.news <- struct{}{}:
		default:
		}
	})
	var telling sync.WaitGroup
	telling.Go(p.tell)
	telling.Go(func() { p.endAtRest(child.Context(), child.Stop) })
	err := child.Serve(p.handle)
	child.Stop()
	p.core.stop()
	for index := range p.conns {
		p.unlink(index)
	}
	telling.Wait()
	p.reading.Wait()
	return err
}

type process struct {
	child   *service.Child
	core    *core
	news    chan struct{} // has an element when something has changed
	conns   map[int][]*ether.Conn
	reading sync.WaitGroup
	heard   atomic.Bool // a message came since endAtRest looked
	// telling is held while PID 1 is told, so that it hears of changes in their order.
	telling sync.Mutex
}

// handle serves PID 1.
func (p *process) handle(_ context.Context, r *service.Request) ([]byte, error) {
	switch r.Op {
	case opLink:
		index, mac := int(r.Uint(1<<31-1)), r.String(6)
		if r.End() != nil || len(mac) != 6 {
			break
		}
		return nil, p.setLink(index, ether.MAC([]byte(mac)), r.TakeFile(), r.TakeFile())
	case opPlan:
		plan := decodePlan(r.Decoder)
		if r.End() != nil {
			break
		}
		p.core.setPlan(plan)
		return nil, nil
	case opRestore:
		all := decodeBindings(r.Decoder)
		if r.End() != nil {
			break
		}
		p.core.restore(all)
		return nil, nil
	case opRemove:
		all := r.Addrs(MaxLeases)
		if r.End() != nil {
			break
		}
		p.core.remove(all)
		return nil, nil
	case opTell:
		p.tellChanges()
		return nil, nil
	}
	return nil, fmt.Errorf("%w: no request", service.ErrBreach)
}

func (p *process) unlink(index int) {
	for _, c := range p.conns[index] {
		c.Close()
	}
	delete(p.conns, index)
	p.core.setLink(&link{index: index})
}

// setLink takes over the sockets of an interface, in the place of those that it had.
func (p *process) setLink(index int, mac ether.MAC, udp, arp *os.File) error {
	p.unlink(index)
	if udp == nil || arp == nil {
		return nil
	}
	var conns []*ether.Conn
	for _, f := range []*os.File{udp, arp} {
		c, err := ether.NewConn(f)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	p.conns[index] = conns
	// What cannot be sent is lost, as on a cable: the client asks again.
	p.core.setLink(&link{index: index, mac: mac,
		udp: func(frame []byte) { _ = conns[0].Write(frame) }, arp: func(frame []byte) { _ = conns[1].Write(frame) }})
	p.reading.Go(func() {
		conns[0].ReadAll(func(frame []byte, sumReady bool) {
			p.heard.Store(true)
			if packet, err := dhcp.ParsePacket(frame, sumReady); err == nil {
				p.core.receive(index, packet)
			}
		})
	})
	p.reading.Go(func() {
		conns[1].ReadAll(func(frame []byte, _ bool) {
			if a, err := dhcp.ParseARP(frame); err == nil {
				p.core.receiveARP(index, a)
			}
		})
	})
	return nil
}

// endAtRest calls stop when the process has had nothing to do for restTime.
func (p *process) endAtRest(ctx context.Context, stop func()) {
	looks := time.NewTicker(restTime / restLooks)
	defer looks.Stop()
	for left := restLooks; left > 0; left-- {
		select {
		case <-ctx.Done():
			return
		case <-looks.C:
		}
		if p.heard.Swap(false) || !p.core.atRest() {
			left = restLooks
		}
	}
	stop()
}

// restTime is how long nobody sends a message before the process ends. It looks restLooks times.
const (
	restTime  = 30 * time.Second
	restLooks = 3
)

// tell tells PID 1 what has changed.
func (p *process) tell() {
	for {
		select {
		case <-p.child.Context().Done():
			return
		case <-p.news:
		}
		if !p.tellChanges() {
			continue
		}
		select {
		case <-p.child.Context().Done():
			return
		case <-time.After(updateTime):
		}
	}
}

// tellChanges tells PID 1 what has changed since it was last told, and reports whether there was anything.
func (p *process) tellChanges() bool {
	p.telling.Lock()
	defer p.telling.Unlock()
	all := p.core.changes()
	if len(all) == 0 {
		return false
	}
	var e service.Encoder
	encodeBindings(&e, all)
	var refused service.RemoteError
	if err := p.child.Call(p.child.Context(), opChanges, e.Bytes(), nil); errors.As(err, &refused) {
		p.child.Logf("%v", err)
	}
	return true
}

// maxBindings is how many there can be in a message: all addresses of the table, and as many that
// have left it.
const maxBindings = 16 * MaxLeases

func encodeBindings(e *service.Encoder, all []Binding) {
	all = all[:min(len(all), maxBindings)]
	e.Uint(uint64(len(all)))
	for _, b := range all {
		e.Addr(b.Address)
		e.Uint(uint64(b.Status))
		if b.Status == 0 {
			continue
		}
		e.String(string(b.MAC[:]))
		e.String(b.ClientID)
		e.String(b.HostName)
		e.String(b.Server)
		e.Int(int64(b.Left))
	}
}

func decodeBindings(d *service.Decoder) []Binding {
	var all []Binding
	for range d.Count(maxBindings) {
		b := Binding{Address: addr4(d), Status: Status(d.Uint(uint64(Conflict)))}
		if b.Status != 0 {
			b.MAC, b.ClientID, b.HostName, b.Server, b.Left = decodeMAC(d), d.String(MaxClientID), d.String(maxHostName), d.String(MaxName), d.Duration()
		}
		all = append(all, b)
	}
	return all
}

// addr4 reads an address of IPv4.
func addr4(d *service.Decoder) netip.Addr {
	a := d.Addr()
	if !a.Is4() {
		d.Fail(errors.New("expected an address of IPv4"))
	}
	return a
}

func decodeMAC(d *service.Decoder) (m ether.MAC) {
	s := d.String(len(m))
	if len(s) != len(m) {
		d.Fail(errors.New("expected a MAC address"))
		return m
	}
	return ether.MAC([]byte(s))
}

func encodePrefix(e *service.Encoder, p netip.Prefix) {
	e.Addr(p.Addr())
	e.Uint(uint64(p.Bits()))
}

func decodePrefix(d *service.Decoder) netip.Prefix {
	return netip.PrefixFrom(addr4(d), int(d.Uint(32)))
}

func encodeOptions(e *service.Encoder, all []PlanOption) {
	e.Uint(uint64(len(all)))
	for _, o := range all {
		e.Uint(uint64(o.Code))
		e.Bool(o.Force)
		e.String(string(o.Value))
	}
}

func decodeOptions(d *service.Decoder) []PlanOption {
	var all []PlanOption
	for range d.Count(maxItems) {
		all = append(all, PlanOption{byte(d.Uint(254)), d.Bool(), []byte(d.String(maxOptionValue))})
	}
	return all
}

// maxItems is more than a menu or a list has.
const maxItems = 1024

func (p Plan) encode(e *service.Encoder) {
	e.Uint(uint64(len(p.Servers)))
	for _, s := range p.Servers {
		e.String(s.Name)
		e.Uint(uint64(s.Link))
		e.Uint(uint64(len(s.Prefixes)))
		for _, p := range s.Prefixes {
			encodePrefix(e, p)
		}
		e.Uint(uint64(len(s.Ranges)))
		for _, r := range s.Ranges {
			e.Addr(r.From)
			e.Addr(r.To)
		}
		e.Int(int64(s.LeaseTime))
		e.Int(int64(s.Delay))
		e.Int(int64(s.After))
		e.Bool(s.Probe)
		e.Bool(s.Broadcast)
		e.Addr(s.Relay)
		e.Addr(s.Address)
	}
	e.Uint(uint64(len(p.Networks)))
	for _, n := range p.Networks {
		encodePrefix(e, n.Prefix)
		e.Addr(n.Next)
		encodeOptions(e, n.Options)
	}
	e.Uint(uint64(len(p.Leases)))
	for _, l := range p.Leases {
		e.Addr(l.Address)
		e.String(string(l.MAC[:]))
		e.String(l.ClientID)
		e.String(l.Server)
		e.Int(int64(l.LeaseTime))
		e.Bool(l.Block)
		e.Bool(l.Broadcast)
		encodeOptions(e, l.Options)
	}
}

func decodePlan(d *service.Decoder) Plan {
	var p Plan
	for range d.Count(maxItems) {
		s := PlanServer{Name: d.String(MaxName), Link: int(d.Uint(1<<31 - 1))}
		for range d.Count(maxItems) {
			s.Prefixes = append(s.Prefixes, decodePrefix(d))
		}
		for range d.Count(maxItems) {
			s.Ranges = append(s.Ranges, match.Addresses{From: addr4(d), To: addr4(d)})
		}
		s.LeaseTime, s.Delay, s.After, s.Probe, s.Broadcast, s.Relay, s.Address = d.Duration(), d.Duration(), d.Duration(), d.Bool(), d.Bool(), d.Addr(), d.Addr()
		if len(s.Prefixes) == 0 {
			d.Fail(errors.New("a server without addresses"))
		}
		p.Servers = append(p.Servers, s)
	}
	for range d.Count(maxItems) {
		p.Networks = append(p.Networks, PlanNetwork{decodePrefix(d), d.Addr(), decodeOptions(d)})
	}
	for range d.Count(maxItems) {
		p.Leases = append(p.Leases, PlanLease{d.Addr(), decodeMAC(d), d.String(MaxClientID), d.String(MaxName), d.Duration(), d.Bool(), d.Bool(), decodeOptions(d)})
	}
	return p
}
