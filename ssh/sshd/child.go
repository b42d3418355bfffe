package sshd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

const (
	// idleTime is how long the process stays when nobody is connected.
	idleTime = time.Minute
	// callTime is how long a question between PID 1 and the process waits for its answer.
	callTime = 20 * time.Second
	// acceptPause is from one attempt to accept a connection to the next, while the kernel lacks
	// something.
	acceptPause = time.Second
)

// child is the process.
type child struct {
	process *service.Child
	serving sync.WaitGroup

	mu       sync.Mutex
	config   configuration
	listener *net.TCPListener
	// connected counts the connections, and those of strangers, by their addresses, who have not
	// logged in.
	connected, strange int
	strangers          map[netip.Addr]int
	idle               *time.Timer
	ending             bool
	// verdicts are where those are waited for, by the numbers of the questions.
	asked    uint64
	verdicts map[uint64]chan verdict
}

// verdict is PID 1's about a password: the number of the login, 0 if it is wrong. full is set if there
// are too many connections.
type verdict struct {
	login uint64
	full  bool
}

// runProcess is the process.
func runProcess(p *service.Child) error {
	c := &child{process: p, strangers: map[netip.Addr]int{}, verdicts: map[uint64]chan verdict{}}
	c.idle = time.AfterFunc(idleTime, c.endIfIdle)
	defer c.idle.Stop()
	err := p.Serve(c.handle)
	c.mu.Lock()
	c.ending = true
	c.closeListener()
	c.mu.Unlock()
	p.Stop()
	c.serving.Wait()
	return err
}

// endIfIdle ends the process if nobody is connected. Who calls meanwhile waits in the queue of the
// listening socket, which PID 1 has too, for the next process.
func (c *child) endIfIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connected == 0 {
		c.ending = true
		c.closeListener()
		c.process.Stop()
	}
}

// closeListener closes the listening socket. The caller holds mu.
func (c *child) closeListener() {
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
}

// handle serves PID 1.
func (c *child) handle(_ context.Context, r *service.Request) ([]byte, error) {
	switch r.Op {
	case opConfigure:
		config, err := decodeConfiguration(r.Decoder)
		file := r.TakeFile()
		if err != nil || file == nil {
			break
		}
		return nil, c.configure(config, file)
	case opVerdict:
		number, v := r.Uint(maxID), verdict{login: r.Uint(maxID), full: r.Bool()}
		if r.End() != nil {
			break
		}
		c.mu.Lock()
		waiting := c.verdicts[number]
		delete(c.verdicts, number)
		c.mu.Unlock()
		if waiting != nil {
			waiting <- v
		} else if v.login != 0 {
			go c.logout(v.login) // the client has gone
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
}

// configure takes a configuration and accepts on the listening socket file.
func (c *child) configure(config configuration, file *os.File) error {
	l, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return errors.New("the listener is not of TCP")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		tcp.Close()
		return nil
	}
	c.closeListener()
	c.config, c.listener = config, tcp
	c.serving.Go(func() { c.accept(tcp) })
	return nil
}

// accept serves the connections of a listener until it is closed.
func (c *child) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Others stay in the queue. There is no event for when there is room again.
			c.process.Logf("accept: %v", err)
			select {
			case <-time.After(acceptPause):
				continue
			case <-c.process.Context().Done():
				return
			}
		}
		peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		config, ok := c.enter(peer)
		if !ok {
			conn.Close()
			continue
		}
		c.serving.Go(func() {
			defer c.leave()
			defer conn.Close()
			defer context.AfterFunc(c.process.Context(), func() { conn.Close() })()
			c.serve(conn, peer, config)
		})
	}
}

// enter takes a connection of a stranger, unless there are too many or its address may not connect.
func (c *child) enter(peer netip.Addr) (configuration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || !c.config.Allows(peer) || c.strange >= maxStrangers || c.strangers[peer] >= maxStrangersOf {
		return configuration{}, false
	}
	c.connected++
	c.strange++
	c.strangers[peer]++
	c.idle.Stop()
	return c.config, true
}

// known says that a stranger has logged in or has gone.
func (c *child) known(peer netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strange--
	if c.strangers[peer]--; c.strangers[peer] == 0 {
		delete(c.strangers, peer)
	}
}

func (c *child) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connected--; c.connected == 0 {
		c.idle.Reset(idleTime)
	}
}

// call asks PID 1.
func (c *child) call(op byte, e service.Encoder, decode func(*service.Decoder), files ...*os.File) error {
	ctx, cancel := service.WithTimeout(c.process.Context(), callTime)
	defer cancel()
	return c.process.Call(ctx, op, e.Bytes(), decode, files...)
}

// checkPassword asks PID 1 whether a password is right.
func (c *child) checkPassword(ctx context.Context, from Login, secret string) (verdict, error) {
	answer := make(chan verdict, 1)
	c.mu.Lock()
	c.asked++
	number := c.asked
	c.verdicts[number] = answer
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.verdicts[number] == nil {
			if v := <-answer; v.login != 0 {
				go c.logout(v.login)
			}
		}
		delete(c.verdicts, number)
	}
	var e service.Encoder
	e.Uint(number)
	encodeLogin(&e, from)
	e.String(secret)
	if err := c.call(opPassword, e, nil); err != nil {
		forget()
		return verdict{}, err
	}
	select {
	case v := <-answer:
		return v, nil
	case <-ctx.Done():
		forget()
		return verdict{}, context.Cause(ctx)
	}
}

// knows asks PID 1 whether a key is one of the user's.
func (c *child) knows(from Login, key string) (known bool, err error) {
	var e service.Encoder
	encodeLogin(&e, from)
	e.String(key)
	err = c.call(opKnown, e, func(d *service.Decoder) { known = d.Bool() })
	return known, err
}

// login says that a user has shown to have a key. It returns the number of the login.
func (c *child) login(from Login, key string) (number uint64, err error) {
	var e service.Encoder
	encodeLogin(&e, from)
	e.String(key)
	err = c.call(opKeyLogin, e, func(d *service.Decoder) { number = d.Uint(maxID) })
	return number, err
}

func (c *child) logout(number uint64) {
	var e service.Encoder
	e.Uint(number)
	_ = c.call(opLogout, e, nil) // PID 1 forgets all when the process ends
}

// sign has PID 1 sign with the host key.
func (c *child) sign(data []byte) (signature string, err error) {
	var e service.Encoder
	e.String(string(data))
	err = c.call(opSign, e, func(d *service.Decoder) { signature = d.String(maxSigned) })
	return signature, err
}

// session begins a session of a login.
func (c *child) session(number uint64) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "session"), os.NewFile(uintptr(fds[1]), "session")
	defer ours.Close()
	defer theirs.Close()
	var e service.Encoder
	e.Uint(number)
	if err := c.call(opSession, e, nil, theirs); err != nil {
		return nil, err
	}
	return net.FileConn(ours)
}
