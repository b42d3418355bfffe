package pppoe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/service"
)

// Spec is the process. PID 1 hands it the socket for the discovery of each client, and the control
// channels of each session; it tells PID 1 what each client does, which session the kernel is to
// have, and what the server has given.
var Spec = service.Spec{
	Name: "pppoe", Main: runProcess,
	Calls: service.Calls{Any: []uint32{unix.SYS_RECVMSG, unix.SYS_SENDTO}},
	// Three descriptors for each client, and as many of a session that ends, and what Go needs.
	Limits: service.Limits{Files: 6*MaxClients + 32},
}

// MaxClients is how many clients there can be.
const MaxClients = 4

// The requests: of PID 1, and of the process.
const (
	opStart  = 1
	opEnd    = 2
	opLinkUp = 3
	opAttach = 4
	opReport = 5
)

const (
	// maxName is how many bytes the name of a client has, which is that of its interface, and
	// MaxService how many the name of a service or of an access concentrator.
	maxName    = 15
	MaxService = 64
	maxReason  = 200
)

// Report is what a client does.
type Report struct {
	Name   string
	Status Status
	// Reason is why the last connection has ended, "" if there was none since the last one that works.
	Reason string
	// AC and Service are the names of the access concentrator and of the service.
	AC, Service string
	// Session is what the kernel is to have; the zero Session is none.
	Session Session
	// Link is what the server has given; nil if there is no connection.
	Link *Link
}

// Process is PID 1's end of the process.
type Process struct {
	link *service.Link
	take func(Report) error
}

// NewProcess is for service.Options. take gets each Report, which has been checked; its error ends the
// session of the report.
func NewProcess(link *service.Link, take func(Report) error) *Process { return &Process{link, take} }

// Start has the process run a client of that name, with a socket of OpenDiscovery, in the place of one
// that it runs.
func (p *Process) Start(ctx context.Context, name string, s Settings, socket *os.File) error {
	var e service.Encoder
	e.String(name)
	e.String(string(s.MAC[:]))
	for _, text := range []string{s.Service, s.AC, s.User, s.Password} {
		e.String(text)
	}
	e.Uint(uint64(s.MTU))
	e.Uint(uint64(s.MRU))
	e.Uint(uint64(s.Allow))
	e.Int(int64(s.Keepalive))
	e.Bool(s.NameServers)
	encodeSession(&e, s.Previous)
	return p.link.Call(ctx, opStart, e.Bytes(), nil, socket)
}

// End ends a client, and its connection in order.
func (p *Process) End(ctx context.Context, name string) error {
	var e service.Encoder
	e.String(name)
	return p.link.Call(ctx, opEnd, e.Bytes(), nil)
}

// LinkUp tells a client that the link of its interface came up.
func (p *Process) LinkUp(ctx context.Context, name string) error {
	var e service.Encoder
	e.String(name)
	return p.link.Call(ctx, opLinkUp, e.Bytes(), nil)
}

// Attach gives a client a descriptor for the control packets of a session: the first is its
// Channel's, which it sends by, and the second its interface's.
func (p *Process) Attach(ctx context.Context, name string, s Session, f *os.File) error {
	var e service.Encoder
	e.String(name)
	encodeSession(&e, s)
	return p.link.Call(ctx, opAttach, e.Bytes(), nil, f)
}

// Handle takes a Report.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	report := decodeReport(r.Decoder)
	if err := r.End(); r.Op != opReport || err != nil {
		return nil, fmt.Errorf("%w: no report", service.ErrBreach)
	}
	return nil, p.take(report)
}

// Ended has nothing to tidy up.
func (p *Process) Ended() {}

func encodeSession(e *service.Encoder, s Session) {
	e.String(string(s.Server[:]))
	e.Uint(uint64(s.ID))
}

// decodeSession reads a session that is one, or none.
func decodeSession(d *service.Decoder) Session {
	var s Session
	if mac := d.String(len(s.Server)); len(mac) == len(s.Server) {
		copy(s.Server[:], mac)
	}
	s.ID = uint16(d.Uint(0xFFFF))
	if s != (Session{}) && !s.valid() {
		d.Fail(errors.New("no session"))
	}
	return s
}

func (r Report) encode() []byte {
	var e service.Encoder
	e.String(r.Name)
	for i, s := range statuses {
		if s == r.Status {
			e.Uint(uint64(i))
		}
	}
	e.String(r.Reason[:min(len(r.Reason), maxReason)])
	e.String(r.AC)
	e.String(r.Service)
	encodeSession(&e, r.Session)
	e.Bool(r.Link != nil)
	if l := r.Link; l != nil {
		e.Addr(l.Local)
		e.Addr(l.Remote)
		e.Addrs(l.NameServers)
		e.Uint(uint64(l.MTU))
		e.Uint(uint64(l.MRU))
	}
	return e.Bytes()
}

// decodeReport reads what encode wrote. Whoever wrote it need not be believed.
func decodeReport(d *service.Decoder) Report {
	r := Report{Name: d.String(maxName), Status: statuses[d.Uint(uint64(len(statuses)-1))],
		Reason: clean([]byte(d.String(maxReason))), AC: printable([]byte(d.String(maxText))), Service: printable([]byte(d.String(maxText))),
		Session: decodeSession(d)}
	if d.Bool() {
		r.Link = &Link{Local: d.Addr(), Remote: d.Addr(), NameServers: d.Addrs(2), MTU: int(d.Uint(MaxMTU)), MRU: int(d.Uint(1500))}
		if !r.Link.valid() || r.Session == (Session{}) {
			d.Fail(errors.New("no link"))
		}
	}
	return r
}

// process is what the process has.
type process struct {
	child   *service.Child
	mu      sync.Mutex
	clients map[string]*loop
}

func runProcess(child *service.Child) error {
	p := &process{child: child, clients: map[string]*loop{}}
	err := child.Serve(p.handle)
	child.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.clients { // all at once
		l.tell(input{what: leave})
	}
	for name := range p.clients {
		p.end(name)
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
		s := Settings{Service: r.String(MaxService), AC: r.String(MaxService), User: r.String(MaxUser), Password: r.String(MaxPassword),
			MTU: int(r.Uint(MaxMTU)), MRU: int(r.Uint(MaxMTU)), Allow: Methods(r.Uint(uint64(PAP | CHAP | MSCHAP1 | MSCHAP2))),
			Keepalive: r.Duration(), NameServers: r.Bool(), Previous: decodeSession(r.Decoder)}
		socket := r.TakeFile()
		if r.End() != nil || len(mac) != len(s.MAC) || socket == nil {
			break
		}
		copy(s.MAC[:], mac)
		p.end(name)
		return nil, p.start(name, s, socket)
	case opEnd:
		if r.End() != nil {
			break
		}
		p.end(name)
		return nil, nil
	case opLinkUp:
		if r.End() != nil {
			break
		}
		if l := p.clients[name]; l != nil {
			l.tell(input{what: linkUp})
		}
		return nil, nil
	case opAttach:
		in := input{what: attach, session: decodeSession(r.Decoder), file: r.TakeFile()}
		if r.End() != nil || in.file == nil {
			break
		}
		if l := p.clients[name]; l == nil || !l.tell(in) {
			in.file.Close()
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%w: no request", service.ErrBreach)
}

func (p *process) start(name string, s Settings, socket *os.File) error {
	// Reports go out until the process ends, those of a client that ends too.
	l, err := startLoop(s, socket, func(format string, args ...any) { p.child.Logf(name+": "+format, args...) }, func(r Report) error {
		r.Name = name
		ctx, cancel := context.WithTimeout(context.Background(), reportTime)
		defer cancel()
		return p.child.Call(ctx, opReport, r.encode(), nil)
	})
	if err == nil {
		p.clients[name] = l
	}
	return err
}

const (
	// reportTime is how long PID 1 may take for a report.
	reportTime = 30 * time.Second
	// endTime is how long a client may take to end its connection.
	endTime = 3 * time.Second
)

// end ends a client, if there is one.
func (p *process) end(name string) {
	l := p.clients[name]
	if l == nil {
		return
	}
	delete(p.clients, name)
	l.tell(input{what: leave})
	select {
	case <-l.done:
	case <-time.After(endTime):
	}
	l.stop()
	<-l.done
}

// input is something that a loop is told.
type input struct {
	what    int
	frame   []byte
	session Session
	file    *os.File
}

const (
	discovered = iota // a frame of the discovery
	received          // a packet of a session
	lost              // nothing comes any more by a session
	attach            // PID 1 has opened a session
	linkUp
	leave
)

// loop runs a client.
type loop struct {
	client *client
	socket *ether.Conn
	in     chan input
	stop   context.CancelFunc
	ctx    context.Context
	done   chan struct{}
	// files are the control channels of session.
	files   []*os.File
	session Session
	readers sync.WaitGroup
}

// queue is how many inputs wait. Frames of the discovery that find no room are lost, as on a cable.
const queue = 16

// startLoop runs a client with the socket, which it takes over.
func startLoop(s Settings, socket *os.File, logf func(string, ...any), report func(Report) error) (*loop, error) {
	conn, err := ether.NewConn(socket)
	if err != nil {
		return nil, err
	}
	l := &loop{socket: conn, in: make(chan input, queue), done: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.client = newClient(s, wires{
		discover: func(frame []byte) { _ = conn.Write(frame) }, // lost as on a cable
		control: func(frame []byte) {
			if len(l.files) > 0 {
				_, _ = l.files[0].Write(frame)
			}
		},
		report: report, logf: logf,
	})
	l.readers.Go(func() {
		conn.ReadAll(func(frame []byte, _ bool) {
			if d, err := parseDiscovery(frame); err != nil || d.to != s.MAC {
				return
			}
			select {
			case l.in <- input{what: discovered, frame: append([]byte(nil), frame...)}:
			default:
			}
		})
	})
	go l.run()
	return l, nil
}

// tell tells the loop something, unless it has ended.
func (l *loop) tell(in input) bool {
	select {
	case l.in <- in:
		return true
	case <-l.ctx.Done():
	case <-l.done:
	}
	return false
}

func (l *loop) run() {
	defer close(l.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	l.client.start(time.Now())
	for l.client.phase != left {
		if l.client.session != l.session || l.client.phase != running && l.client.phase != opening && l.client.phase != leaving {
			l.detach()
		}
		if at := l.client.next(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case <-l.ctx.Done():
			l.client.finish(time.Now())
		case <-timer.C:
			l.client.tick(time.Now())
		case in := <-l.in:
			l.take(time.Now(), in)
		}
	}
	l.stop()
	l.detach()
	l.socket.Close()
	l.readers.Wait()
	for {
		select {
		case in := <-l.in:
			if in.file != nil {
				in.file.Close()
			}
		default:
			return
		}
	}
}

func (l *loop) take(now time.Time, in input) {
	switch in.what {
	case discovered:
		l.client.takeDiscovery(now, in.frame)
	case received:
		if in.session == l.session {
			l.client.takeControl(now, in.frame)
		}
	case lost:
		l.client.lost(now, in.session)
	case linkUp:
		l.client.linkUp(now)
	case leave:
		l.client.leave(now)
	case attach:
		if in.session != l.client.session || len(l.files) == 2 {
			in.file.Close()
			return
		}
		l.session = in.session
		l.files = append(l.files, in.file)
		l.readers.Go(func() { l.read(in.session, in.file) })
		if len(l.files) == 1 {
			l.client.opened(now, in.session)
		}
	}
}

// detach closes the control channels.
func (l *loop) detach() {
	for _, f := range l.files {
		f.Close()
	}
	l.files, l.session = nil, Session{}
}

// read reads the control packets of a session, until its file is closed or the kernel has ended it.
func (l *loop) read(s Session, f *os.File) {
	b := make([]byte, 2048)
	for {
		n, err := f.Read(b)
		switch {
		case errors.Is(err, unix.EOVERFLOW): // longer than any packet of ours: the kernel drops it
		case err != nil:
			if !errors.Is(err, os.ErrClosed) {
				l.tell(input{what: lost, session: s})
			}
			return
		case n < 2 || binary.BigEndian.Uint16(b) == protocolIP: // of before there is an interface
		default:
			l.tell(input{what: received, session: s, frame: append([]byte(nil), b[:n]...)})
		}
	}
}
