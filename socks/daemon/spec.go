package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/machine"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// Spec is socksd under PID 1.
var Spec = service.Spec{
	Name:  "socksd",
	Topic: "socks",
	Main:  runChild,
	Calls: service.Calls{
		// Those that relaying takes come first.
		Any: []uint32{
			unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_SPLICE, unix.SYS_GETSOCKOPT, unix.SYS_EPOLL_PWAIT,
			unix.SYS_SCHED_YIELD, unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_SYSINFO,
			unix.SYS_SETSOCKOPT, unix.SYS_EPOLL_CTL, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_CLOSE, unix.SYS_SHUTDOWN,
			unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_PPOLL, unix.SYS_PIPE2,
		},
		Checked: []service.Check{
			service.Equals(unix.SYS_SOCKET, 0, unix.AF_INET),
			service.Equals(unix.SYS_IOCTL, 1, unix.SIOCINQ), service.Equals(unix.SYS_IOCTL, 1, unix.SIOCOUTQ),
		},
	},
	Limits: service.Limits{Files: descriptors(socks.MaxMaxConnections, true), Memory: memoryLimit},
	// The largest configuration: socks.MaxUserBytes, and as many rules as a menu can have.
	MaxMessage: 256 << 10,
	EndLast:    true, // with all connections
	// What counts is whether the server answers, not only the process around it.
	Alive: func(ctx context.Context, p service.Parent) error {
		_, err := p.(*Client).Hits(ctx)
		return err
	},
}

// Bounds of the memory that Go manages, under PID 1: on a router with 32 MB,
// collect early rather than grow. With 500 connections that all stream to slow
// receivers it was about 11 MB on amd64; 32-bit machines need less.
const (
	memoryLimit = 12 << 20 // bytes
	gcPercent   = 25
)

// runChild is socksd under PID 1.
func runChild(process *service.Child) error {
	debug.SetGCPercent(gcPercent)
	// The server's loop has a thread of its own, which may be busy for long. With a
	// processor of Go's for others too, it is the kernel that shares out the time.
	runtime.GOMAXPROCS(max(2, runtime.NumCPU()))
	c := &child{process: process}
	c.changes = changes{
		call: func(ctx context.Context, body []byte, decode func(*service.Decoder), files ...*os.File) error {
			return process.Call(ctx, opFirewall, body, decode, files...)
		},
		logf: process.Logf,
	}
	c.server = socks.New(socks.Options{Logf: process.Logf, Open: c.changes.open, SocketMemory: socketMemory()})
	err := process.Serve(c.handle)
	return errors.Join(err, shutdown(c.server))
}

// socketMemory returns what socket buffers may take on a router's small machine:
// a part in 20 of what its programs leave, 1.1 MB with 32 MB, a third of it for
// connections that are not fast: pages are never full, and the kernel needs as much
// again. A larger machine is left to the kernel.
func socketMemory() int {
	_, memory := machine.Memory()
	if memory > 256<<20 {
		return 0
	}
	return int((memory - min(memory, ownMemory)) / 20)
}

// ownMemory is what the router's own programs take, in bytes.
const ownMemory = 8 << 20

// callTime is how long PID 1 may take to change the firewall.
const callTime = 10 * time.Second

// child is socksd's end of the link.
type child struct {
	process *service.Child
	server  *socks.Server
	changes changes
	// listed are the connections that the parent was not told yet of those that
	// it asked for; long is that they do not fit one reply. handle alone uses them.
	listed []socks.Connection
	long   bool
}

// connectionsAtOnce is how many connections a reply holds.
const connectionsAtOnce = 32

// handle serves a request of PID 1.
func (c *child) handle(_ context.Context, r *service.Request) ([]byte, error) {
	var reply service.Encoder
	switch r.Op {
	case opConfigure:
		return nil, c.configure(decodeConfig(r.Decoder), r)
	case opConnections:
		after := r.Uint(maxNumber)
		// One look at the server for all parts of a list: each may have to wait.
		if after == 0 {
			c.listed = c.server.Connections()
			c.long = len(c.listed) > connectionsAtOnce
		}
		for len(c.listed) > 0 && c.listed[0].Number <= after {
			c.listed = c.listed[1:]
		}
		n := min(connectionsAtOnce, len(c.listed))
		encodeConnections(&reply, c.listed[:n])
		c.listed = c.listed[n:]
		if n == 0 && c.long {
			c.listed, c.long = nil, false
			debug.FreeOSMemory() // more is left of 500 than the connections take
		}
	case opRemove:
		for _, n := range decodeNumbers(r.Decoder, maxListed) {
			c.server.CloseConnection(n) // if it is still there
		}
	case opLeave:
		c.server.Leave(r.Addrs(maxGone))
	case opHits:
		encodeNumbers(&reply, c.server.Hits())
	default:
		return nil, fmt.Errorf("%w: no request %d", service.ErrBreach, r.Op)
	}
	return reply.Bytes(), nil
}

func (c *child) configure(cfg socks.Config, r *service.Request) error {
	var l *net.TCPListener
	if file := r.TakeFile(); file != nil {
		var err error
		if l, err = listenerOf(file); err != nil {
			return err
		}
	}
	return c.server.Configure(cfg, l)
}
