package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/dhcp"
)

const (
	// startedTime is how long after the first answers a router has given back what it took at its start, while its DHCP
	// processes are still there: half a minute without a message ends the server, and a client half a minute behind its lease.
	startedTime = 10 * time.Second
	// asleepTime is from then until they have ended for sure.
	asleepTime = time.Minute
)

// askTime is the pause between two questions of a host that waits for the first answer.
const askTime = 10 * time.Millisecond

// benchHome boots a board with its defaults in a household, and prints the seconds from the
// kernel's start until the network is ready, until the first offer of an address in the LAN, and
// until the first name of the provider is answered there; and the memory that is left then, and when nobody has
// asked for an address for a while.
func benchHome(ctx context.Context, b board.Board, images string) error {
	return inNetwork(func(n network, dir string) error { return benchHomeIn(ctx, n, dir, b, images) })
}

func benchHomeIn(ctx context.Context, n network, dir string, b board.Board, images string) error {
	h, err := startHousehold(n, filepath.Join(dir, "household"))
	if err != nil {
		return err
	}
	defer h.close()
	if err := n[other].IP("addr add " + otherAddress + "/24 dev eth0"); err != nil {
		return err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	offered, err := n.ask(asking, client, "0.0.0.0:68", "255.255.255.255:67", discover, offers)
	if err != nil {
		return err
	}
	named, err := n.ask(asking, other, otherAddress+":0", lanAddress+":53", question, answers)
	if err != nil {
		return err
	}

	m, err := startMachine(b, n, dir, machineOptions{image: filepath.Join(images, b.Name)})
	if err != nil {
		return err
	}
	defer m.kill()
	defer context.AfterFunc(ctx, m.kill)()
	said, err := m.expect("network is ready after ")
	if err != nil {
		return err
	}
	now := time.Now()
	rest, err := m.expect("> ")
	if err != nil {
		return err
	}
	network, err := find(said+rest, `network is ready after (\S+)`)
	if err != nil {
		return err
	}
	ready, err := time.ParseDuration(network)
	if err != nil {
		return err
	}
	kernel := now.Add(-ready)
	var after [2]time.Duration
	for i, first := range []<-chan time.Time{offered, named} {
		select {
		case at := <-first:
			after[i] = at.Sub(kernel)
		case <-time.After(patience):
			return fmt.Errorf("%s: no answer within %v; the screen:\n%s", b.Name, patience, m.screen.tail(30))
		}
	}
	var free [2]string
	for i, pause := range []time.Duration{startedTime, asleepTime} {
		time.Sleep(pause)
		out, err := m.command("/system resource print")
		if err != nil {
			return err
		}
		if free[i], err = find(out, `free-memory: (\S+)`); err != nil {
			return err
		}
	}
	fmt.Printf("%-12s %14s %14s %14s %16s %16s\n", b.Name, ready, after[0].Round(time.Millisecond), after[1].Round(time.Millisecond), free[0], free[1])
	return nil
}

// ask has a host send a question again and again, until there is an answer that is right or ctx is
// done. The channel tells when the answer came.
func (n network) ask(ctx context.Context, from host, local, remote string, question []byte, right func([]byte) bool) (<-chan time.Time, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if controlErr := c.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err == nil {
				err = unix.BindToDevice(int(fd), "eth0") // a host without an address has no route
			}
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	var c net.PacketConn
	if err := n[from].Do(func() (err error) {
		c, err = lc.ListenPacket(ctx, "udp4", local)
		return err
	}); err != nil {
		return nil, err
	}
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(remote))
	first := make(chan time.Time, 1)
	go func() {
		defer c.Close()
		b := make([]byte, 1500)
		for ctx.Err() == nil {
			c.WriteTo(question, to) // until the router is there, nothing comes of it
			c.SetReadDeadline(time.Now().Add(askTime))
			if size, _, err := c.ReadFrom(b); err == nil && right(b[:size]) {
				first <- time.Now()
				return
			}
		}
	}()
	return first, nil
}

// discover asks for an address, and for the answer as a broadcast.
var discover = func() []byte {
	m := dhcp.Message{Op: dhcp.BootRequest, XID: 1, Flags: dhcp.FlagBroadcast, HardwareType: 1, Hardware: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	m.Options.SetByte(dhcp.OptionType, byte(dhcp.Discover))
	b, err := m.Marshal(dhcp.MaxMessage)
	if err != nil {
		panic(err)
	}
	return b
}()

func offers(b []byte) bool {
	m, err := dhcp.Parse(b)
	return err == nil && m.Op == dhcp.BootReply && m.Options.Type() == dhcp.Offer
}

// question asks for the address of the provider's web server.
var question = questionFor(pageName, 1)

// questionFor asks for the address of a name.
func questionFor(name string, id uint16) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func answers(b []byte) bool {
	var m dnsmessage.Message
	return m.Unpack(b) == nil && m.Response && len(m.Answers) == 1
}
