package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// blockSize is how much the source writes, and a sink reads, at once.
	blockSize = 256 << 10
	// checkSize is how much is compared each way before measuring.
	checkSize = 4 << 20
	// patience is how long any step of a connection may take.
	patience = 10 * time.Second
	// addresses is how many addresses of loopback the servers and the target have, from
	// 127.0.0.2 on. The ports towards one address would not suffice for the connections of
	// a round, each of which the kernel remembers for a minute.
	addresses = 16
)

// address returns one of them.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + n%addresses)})
}

// target is the process that the connections go to.
type target struct {
	program *program
	source  uint16 // the port that sends blocks without end, after it got a byte
	echo    uint16 // the port that sends back what it gets
}

func startTarget(ctx context.Context, dir string) (*target, error) {
	source, err := freePort()
	if err != nil {
		return nil, err
	}
	echo, err := freePort()
	if err != nil {
		return nil, err
	}
	t := &target{source: source.Port(), echo: echo.Port()}
	ports := fmt.Sprintf("%d,%d", t.source, t.echo)
	if t.program, err = startProgram(dir, "/proc/self/exe", targetCommand, ports); err != nil {
		return nil, err
	}
	for n := range addresses {
		for _, port := range []uint16{t.source, t.echo} {
			if err := accepts(ctx, netip.AddrPortFrom(address(n), port), t.program); err != nil {
				t.program.stop()
				out, _ := os.ReadFile(t.program.log)
				return nil, fmt.Errorf("target: %w\n%s", err, out)
			}
		}
	}
	return t, nil
}

// serveTarget runs the target, on the ports "SOURCE,ECHO".
func serveTarget(ports string) error {
	source, echo, ok := strings.Cut(ports, ",")
	if !ok {
		return fmt.Errorf("target: %q are not two ports", ports)
	}
	data := block()
	listen := net.ListenConfig{KeepAlive: -1}
	failed := make(chan error)
	for n := range addresses {
		for port, serve := range map[string]func(net.Conn){
			source: func(c net.Conn) { sendBlocks(c, data) },
			echo:   sendBack,
		} {
			l, err := listen.Listen(context.Background(), "tcp4", net.JoinHostPort(address(n).String(), port))
			if err != nil {
				return fmt.Errorf("target: %w", err)
			}
			go func() { failed <- acceptAll(l, serve) }()
		}
	}
	return <-failed
}

func acceptAll(l net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// sendBlocks sends from the other side's first byte until the other side closes.
func sendBlocks(conn net.Conn, data []byte) {
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return
	}
	for {
		if _, err := conn.Write(data); err != nil {
			return
		}
	}
}

// echoBuffers spares thousands of short connections a new buffer each.
var echoBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// sendBack is not io.Copy, which would take a pipe for each connection.
func sendBack(conn net.Conn) {
	buf := echoBuffers.Get().(*[16 << 10]byte)
	defer echoBuffers.Put(buf)
	for {
		n, err := conn.Read(buf[:])
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// block returns what the source sends again and again. It is the same in all processes.
func block() []byte {
	data := make([]byte, blockSize)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// connect opens a connection through a server, with the deadline of patience. The
// number chooses the addresses at which the server and the target are reached.
func (s *server) connect(n int, port uint16) (*net.TCPConn, error) {
	to := netip.AddrPortFrom(address(n), port)
	d := net.Dialer{
		Timeout:   patience,
		KeepAlive: -1, // as it costs four system calls a connection
	}
	dialed, err := d.Dial("tcp4", s.reachedAt(n, to).String())
	if err != nil {
		return nil, err
	}
	conn := dialed.(*net.TCPConn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		conn.Close()
		return nil, err
	}
	if err := take(conn, s.turns(to)...); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// startSources asks the sources of connections to send. That is done for all at the end: it
// would take a minute to open 500 connections while the first of them flow through ssh.
func startSources(conns ...*net.TCPConn) error {
	for _, c := range conns {
		if _, err := c.Write([]byte{1}); err != nil {
			return fmt.Errorf("ask for data: %w", err)
		}
	}
	return nil
}

// connectMany opens connections, some at a time, calls with each if it is not nil
// and returns all, without a deadline.
func (s *server) connectMany(ctx context.Context, count int, port uint16, with func(*net.TCPConn) error) ([]*net.TCPConn, error) {
	conns := make([]*net.TCPConn, count)
	errs := make([]error, addresses)
	var workers sync.WaitGroup
	for w := range addresses {
		workers.Go(func() {
			for n := w; n < count && errs[w] == nil; n += addresses {
				if errs[w] = ctx.Err(); errs[w] != nil {
					return
				}
				if conns[n], errs[w] = s.connect(n, port); errs[w] == nil && with != nil {
					errs[w] = with(conns[n])
				}
				if errs[w] == nil {
					errs[w] = conns[n].SetDeadline(time.Time{})
				}
			}
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(conns)
		return nil, err
	}
	return conns, nil
}

func closeAll(conns []*net.TCPConn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// check compares what a server relays, in both directions, with what was sent.
func check(ctx context.Context, s *server, t *target) error {
	down, err := s.connect(0, t.source)
	if err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	defer down.Close()
	if err := startSources(down); err != nil {
		return err
	}
	want, got := block(), make([]byte, blockSize)
	for range checkSize / blockSize {
		if _, err := io.ReadFull(down, got); err != nil {
			return fmt.Errorf("download: %w", err)
		}
		if !bytes.Equal(want, got) {
			return errors.New("download: the data was changed")
		}
	}
	both, err := s.connect(1, t.echo)
	if err != nil {
		return fmt.Errorf("connect to the echo: %w", err)
	}
	defer both.Close()
	stop := context.AfterFunc(ctx, func() { both.Close() })
	defer stop()
	sent, back := make([]byte, checkSize), make([]byte, checkSize)
	random := rand.NewChaCha8([32]byte{})
	random.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := both.Write(sent)
		written <- err
	}()
	if _, err := io.ReadFull(both, back); err != nil {
		both.Close()
		return fmt.Errorf("echo: %w", errors.Join(err, <-written))
	}
	if err := <-written; err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	if !bytes.Equal(sent, back) {
		return errors.New("echo: the data was changed")
	}
	return nil
}
