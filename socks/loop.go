package socks

import (
	"fmt"
	"math"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// never is later than any time of the clock.
const never = time.Duration(math.MaxInt64)

// batch is how many events the loop takes in one turn.
const batch = 256

// role is the purpose of a descriptor.
type role uint64

const (
	ofClient role = iota // the client's connection
	ofRemote             // the connection with the server, or with a BIND's caller, or the datagrams of peers
	ofCall               // the listener of a BIND, or the datagrams of the client
	ofServer             // the server's listener
	ofWake               // the eventfd that ends a wait
	roles
)

// poller reports which descriptors have changed (epoll(7), edge-triggered).
type poller struct {
	epoll int
	event int // an eventfd, which ends a wait
}

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("poller: %w", err)
	}
	p := &poller{epoll: epoll, event: event}
	if err := p.add(event, ofWake, 0); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// add watches fd, which belongs to the connection with that number.
func (p *poller) add(fd int, is role, number uint64) error {
	// The kernel returns these 64 bits with each event. Unlike a descriptor, a number is
	// never used again: a late event cannot reach another connection.
	tag := number*uint64(roles) + uint64(is)
	e := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET,
		Fd:     int32(uint32(tag)), Pad: int32(uint32(tag >> 32)),
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.epoll), unix.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0); errno != 0 {
		return fmt.Errorf("watch a socket: %w", errno)
	}
	return nil
}

// remove stops watching fd. Closing fd does that too, but not while another process has the
// same socket open.
func (p *poller) remove(fd int) { unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// origin returns what add was told about the descriptor of an event.
func origin(e unix.EpollEvent) (is role, number uint64) {
	tag := uint64(uint32(e.Pad))<<32 | uint64(uint32(e.Fd))
	return role(tag % uint64(roles)), tag / uint64(roles)
}

// wait waits for events, for at most that many milliseconds or, if it is -1, without a
// limit. It returns how many there are.
func (p *poller) wait(events *[batch]unix.EpollEvent, milliseconds int) int {
	if milliseconds != 0 {
		// The loop mostly waits for what another thread is about to do on the same
		// processor. Letting that thread run (sched_yield(2)) costs less than sleeping and
		// being woken, and next to nothing if no other thread is ready.
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll),
			uintptr(unsafe.Pointer(events)), batch, 0, 0, 0); errno == 0 && n > 0 {
			return int(n)
		}
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll),
		uintptr(unsafe.Pointer(events)), batch, uintptr(milliseconds), 0, 0)
	if errno == unix.EINTR {
		return 0
	}
	if errno != 0 {
		panic(fmt.Sprintf("socks: wait for events: %v", errno)) // otherwise the loop would be busy for ever
	}
	return int(n)
}

// wake ends the loop's wait: the one that is under way, or else the next.
func (p *poller) wake() {
	one := [8]byte{0: 1, 7: 1} // more than 0 in either byte order
	unix.Write(p.event, one[:])
}

func (p *poller) close() {
	unix.Close(p.epoll)
	unix.Close(p.event)
}

// loop runs the server until Shutdown.
func (s *Server) loop() {
	if runtime.NumCPU() > 1 {
		// With a thread of its own the loop waits in the kernel, not in Go's scheduler. With
		// one processor that would cost two thread switches each time the scheduler lets
		// other goroutines run.
		runtime.LockOSThread()
	}
	var events [batch]unix.EpollEvent
	for wait := 0; ; {
		n := s.poller.wait(&events, wait)
		s.mu.Lock()
		if s.closed {
			s.release()
			s.mu.Unlock()
			return
		}
		s.tick()
		if s.stalled > 0 {
			s.excuseSilence()
		}
		s.turn(events[:n])
		wait = s.wait()
		s.mu.Unlock()
	}
}

// turn does everything that can be done without waiting. Each connection that has bytes to
// move takes a few steps, so that none waits for the end of another's stream.
func (s *Server) turn(events []unix.EpollEvent) {
	// Only some of them: callers of the server's methods wait for the end of the turn.
	const most = 4
	for range min(most, len(s.ready)) {
		c := s.ready[0]
		s.ready[0], s.ready = nil, s.ready[1:]
		c.queued = false
		switch {
		case c.over || c.state == ending:
		case c.state == associated:
			s.relayDatagrams(c)
		default:
			s.relay(c)
		}
	}
	for _, e := range events {
		is, number := origin(e)
		if c, ok := s.conns[number]; ok {
			s.note(c, is, e.Events)
		} else if is == ofWake {
			var count [8]byte
			unix.Read(s.poller.event, count[:])
		} else if is == ofServer && s.acceptAt == never {
			s.acceptAt = s.now
		}
	}
	done := s.serve(turnSize)
	if s.listener != none && s.acceptAt <= s.now {
		s.accept()
	}
	s.serve(turnSize - done)
	s.relieveMemory()
	if s.checkAt <= s.now {
		s.check()
	}
}

// wait returns how long the loop may wait for events, in milliseconds; -1 is without a
// limit.
func (s *Server) wait() int {
	s.asked = 0
	if len(s.ready) > 0 || s.line.len() > 0 {
		return 0
	}
	at := s.checkAt
	if s.listener != none {
		at = min(at, s.acceptAt)
	}
	if at == never {
		s.asked = never
		return -1
	}
	s.asked = max(0, at-s.now)
	if len(s.conns) > 0 {
		s.asked = min(s.asked, longestWait)
	}
	return int(min((s.asked+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// lookTime is how often the loop asks the kernel about sockets: which peers take what they are still sent, and which
// directions are quiet. No event tells that. When hundreds of connections reach their deadlines one after the other, asking
// each time would take most of a slow processor.
const lookTime = time.Second

// check ends the connections that have reached a deadline, and finds when to check again.
// Moving bytes does not update that time: a check that comes too early finds the later
// deadlines.
func (s *Server) check() {
	s.checkAt = never
	look := s.lookAt <= s.now
	if look {
		s.lookAt = s.now + lookTime
	}
	s.checkDismissed()
	for _, c := range s.conns {
		at := c.overAt(s.cfg.ConnectionIdleTimeout)
		if at <= s.now {
			s.timeout(c)
			continue
		}
		s.checkAt = min(s.checkAt, at)
		if c.state == ending {
			if look {
				s.deliver(c)
			} else if c.unsent > bothEnds {
				s.checkAt = min(s.checkAt, s.lookAt)
			}
			continue
		}
		s.watchPeers(c)
		if c.tx.grown() || c.rx.grown() {
			if s.checkAt = min(s.checkAt, s.lookAt); look {
				s.shrinkBoth(c)
			}
		}
		if c.state == associated {
			s.relayDatagrams(c)
			continue
		}
		s.relaySpent(c)
	}
	s.runTries()
}

// release closes what belongs to the loop, when it ends.
func (s *Server) release() {
	s.poller.close()
	s.dropCalls()
	for _, d := range s.dismissed {
		d.close()
	}
	for _, p := range s.pipes {
		p.close()
	}
	s.pipes, s.ready, s.dismissed = nil, nil, nil
	s.probe.close()
}
