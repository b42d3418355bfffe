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

	"github.com/postern-router/postern/service"
)

// idleTime is how long the process stays when nobody is connected, callTime how long a question of its own
// to PID 1 waits for its answer. Tests change them.
var (
	idleTime = time.Minute
	callTime = 20 * time.Second
)

// child is the process.
type child struct {
	process  *service.Child
	acceptor *service.Acceptor

	mu     sync.Mutex
	config configuration
	// strange counts the connections that have not logged in, strangers those of each address.
	strange   int
	strangers map[netip.Addr]int
	// verdicts are where those are waited for, by the numbers of the logins. last is the last number.
	last     uint64
	verdicts map[uint64]chan verdict
}

// verdict is PID 1's about a password.
type verdict uint64

const (
	wrong verdict = iota
	right         // there is a login now
	full          // it is right, and there are too many connections
)

// runProcess is the process.
func runProcess(p *service.Child) error {
	c := &child{process: p, strangers: map[netip.Addr]int{}, verdicts: map[uint64]chan verdict{}}
	c.acceptor = p.NewAcceptor(idleTime, c.admit)
	served := make(chan error, 1)
	go func() { served <- p.Serve(c.handle) }()
	c.acceptor.Wait()
	p.Stop()
	return <-served
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
		number, v := r.Uint(maxID), verdict(r.Uint(uint64(full)))
		if r.End() != nil {
			break
		}
		c.mu.Lock()
		waiting := c.verdicts[number]
		delete(c.verdicts, number)
		c.mu.Unlock()
		if waiting != nil {
			waiting <- v
		} else if v == right {
			go c.logout(number) // the client has gone
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
	c.config = config
	c.mu.Unlock()
	c.acceptor.Listen(tcp)
	return nil
}

// admit takes a connection, unless its address may not connect or there are too many that have not logged in.
func (c *child) admit(conn *net.TCPConn) (serve func()) {
	peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.config.Allows(peer) || c.strange >= maxStrangers || c.strangers[peer] >= maxStrangersOf {
		return nil
	}
	c.strange++
	c.strangers[peer]++
	config := c.config
	return func() { c.serve(conn, peer, config) }
}

// forgetStranger makes room for another stranger, after one has logged in or has gone.
func (c *child) forgetStranger(peer netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strange--
	if c.strangers[peer]--; c.strangers[peer] == 0 {
		delete(c.strangers, peer)
	}
}

// call asks PID 1.
func (c *child) call(op byte, e service.Encoder, decode func(*service.Decoder)) error {
	ctx, cancel := service.WithTimeout(c.process.Context(), callTime)
	defer cancel()
	return c.process.Call(ctx, op, e.Bytes(), decode)
}

// checkPassword asks PID 1 whether a password is right. If it is, there is a login of that number.
func (c *child) checkPassword(ctx context.Context, from Login, secret string) (number uint64, v verdict, err error) {
	answer := make(chan verdict, 1)
	c.mu.Lock()
	c.last++
	number = c.last
	c.verdicts[number] = answer
	c.mu.Unlock()
	err = c.callLogin(opPassword, number, from, secret)
	if err == nil {
		select {
		case v = <-answer:
			return number, v, nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	// Nobody waits any more, so no login may stay. The verdict may still come: see handle.
	c.mu.Lock()
	delete(c.verdicts, number)
	c.mu.Unlock()
	go c.logout(number)
	return 0, wrong, err
}

func (c *child) callLogin(op byte, number uint64, from Login, secret string) error {
	var e service.Encoder
	e.Uint(number)
	encodeLogin(&e, from)
	e.String(secret)
	return c.call(op, e, nil)
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
	c.mu.Lock()
	c.last++
	number = c.last
	c.mu.Unlock()
	if err = c.callLogin(opKeyLogin, number, from, key); err != nil {
		go c.logout(number) // the answer may be late
		return 0, err
	}
	return number, nil
}

// logout ends a login, if there is one of that number.
func (c *child) logout(number uint64) {
	var e service.Encoder
	e.Uint(number)
	// Not with callTime: a login that stayed would have its place until the process ends, when PID 1 forgets all.
	_ = c.process.Call(c.process.Context(), opLogout, e.Bytes(), nil)
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
	ctx, cancel := service.WithTimeout(c.process.Context(), callTime)
	defer cancel()
	var e service.Encoder
	e.Uint(number)
	return c.process.Connect(ctx, opSession, e.Bytes())
}
