package socks

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// never is later than any time of the clock.
const never = time.Duration(math.MaxInt64)

// batch is how many events the loop takes, and how many connections it accepts,
// before all others have their turn.
const batch = 64

// role is what a descriptor is for.
type role uint64

const (
	ofClient role = iota // the client's connection
	ofRemote             // the connection with the server, or with a BIND's caller
	ofCall               // the listener of a BIND
	ofServer             // the server's own: its listener, and what ends a wait
	roles
)

// poller tells which descriptors have changed (epoll(7), edge-triggered).
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
	if err := p.add(event, ofServer, 0); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// add watches fd, which is the connection's of that number.
func (p *poller) add(fd int, is role, number uint64) error {
	// The kernel gives these 64 bits back with each event. The number, unlike the
	// descriptor, is never used again: an event that is late finds nobody.
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

// remove ends the watch of fd. Closing does so too, but not as long as another
// process has the same socket.
func (p *poller) remove(fd int) { unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// origin is what add was told.
func origin(e unix.EpollEvent) (is role, number uint64) {
	tag := uint64(uint32(e.Pad))<<32 | uint64(uint32(e.Fd))
	return role(tag % uint64(roles)), tag / uint64(roles)
}

// wait waits for events, so many milliseconds at most or without end if that is -1,
// and returns how many there are.
func (p *poller) wait(events *[batch]unix.EpollEvent, milliseconds int) int {
	if milliseconds != 0 {
		// What the loop waits for is mostly what another thread is about to do on the
		// same processor. To give that its turn (sched_yield(2)) costs less than to sleep
		// and be woken, and next to nothing where nobody wants a turn.
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
		panic(fmt.Sprintf("socks: wait for events: %v", errno)) // else it would spin
	}
	return int(n)
}

// wake ends the wait of the loop, now or the next.
func (p *poller) wake() {
	one := [8]byte{0: 1, 7: 1} // more than 0 in either byte order
	unix.Write(p.event, one[:])
}

func (p *poller) close() {
	unix.Close(p.epoll)
	unix.Close(p.event)
}

// loop is the server at work, until Shutdown.
func (s *Server) loop() {
	if runtime.NumCPU() > 1 {
		// A thread of its own: it waits in the kernel, not in Go's scheduler. With one
		// processor that costs two changes of thread each time that the scheduler looks
		// whether anybody else wants a turn.
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
		s.turn(events[:n])
		wait = s.wait()
		s.mu.Unlock()
	}
}

// turn does all that can be done without waiting. A connection that has more takes
// some steps: none waits for the end of another's stream.
func (s *Server) turn(events []unix.EpollEvent) {
	// A part of them at a time: whoever asks the server something has to wait for
	// the end of the turn.
	const conns = 4
	for range min(conns, len(s.ready)) {
		c := s.ready[0]
		s.ready[0], s.ready = nil, s.ready[1:]
		c.queued = false
		if !c.over {
			s.relay(c)
		}
	}
	for _, e := range events {
		is, number := origin(e)
		if c, ok := s.conns[number]; ok {
			s.event(c, is, e.Events)
		} else if is == ofServer {
			var count [8]byte
			unix.Read(s.poller.event, count[:])
			if s.acceptAt == never {
				s.acceptAt = s.now
			}
		}
	}
	if s.listener != none && s.acceptAt <= s.now {
		s.accept()
	}
	s.spare()
	if s.checkAt <= s.now {
		s.check()
	}
}

// wait returns how long the loop may wait for events, in milliseconds; -1 is
// for ever.
func (s *Server) wait() int {
	s.asked = 0
	if len(s.ready) > 0 {
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

// check ends the connections whose time is over, and finds out when to check
// again. Nothing is done for that when bytes move: a check that comes too early
// finds how much later it should have been.
func (s *Server) check() {
	s.checkAt = never
	for _, c := range s.conns {
		at := c.overAt(s.cfg.ConnectionIdleTimeout)
		if at <= s.now {
			s.timeout(c)
			continue
		}
		s.checkAt = min(s.checkAt, at)
		s.attend(c)
		s.shrink(c, &c.tx, c.client, c.remote)
		s.shrink(c, &c.rx, c.remote, c.client)
	}
}

// release gives back what the loop has, at its end.
func (s *Server) release() {
	s.poller.close()
	for _, p := range s.pipes {
		p.close()
	}
	s.pipes, s.ready = nil, nil
	s.probe.close()
}

// queue holds tasks of one kind: work that waits, outside of the loop, so many
// at a time.
type queue struct {
	free  int // how many more may run
	tasks []*task
}

type task struct {
	run    func()
	cancel context.CancelFunc
	drop   func() // called instead of run if that has become needless; may be nil
}

// begin has run done for c, which waits for nothing else.
func (s *Server) begin(c *conn, q *queue, run func(context.Context), drop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{cancel: cancel, run: func() { defer cancel(); run(ctx) }, drop: drop}
	c.attempt.task, c.attempt.queue = t, q
	q.tasks = append(q.tasks, t)
	s.employ(q)
}

// later has run done before what waits in q: it gives back what that takes.
func (s *Server) later(q *queue, run func()) {
	q.tasks = append([]*task{{run: run}}, q.tasks...)
	s.employ(q)
}

// giveUp takes t out of its queue, or if it runs tells it to end.
func (s *Server) giveUp(q *queue, t *task) {
	t.cancel()
	if i := slices.Index(q.tasks, t); i >= 0 {
		q.tasks = slices.Delete(q.tasks, i, i+1)
		if t.drop != nil {
			t.drop()
		}
	}
}

// employ has the tasks of q run.
func (s *Server) employ(q *queue) {
	if q.free == 0 {
		return
	}
	q.free--
	s.running.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for len(q.tasks) > 0 {
			t := q.tasks[0]
			q.tasks = q.tasks[1:]
			s.mu.Unlock()
			t.run()
			s.mu.Lock()
			if !s.closed {
				s.poller.wake() // there may be more to do, and another time to wait
			}
		}
		q.free++
	})
}
