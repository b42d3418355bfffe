package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
)

const (
	soakConnections = 200_000
	// soakWarmUp is how many connections it takes until the program's allocator and page
	// tables have grown to what that many connections at once need.
	soakWarmUp = 20_000
	soakAtOnce = 24
	// soakTolerance is in kB. Go gives memory back at its own time: the memory of an idle
	// socksd varied by 700 kB. The least that each connection could leave behind, one
	// allocation of 16 bytes, would be 3,100 kB in sum.
	soakTolerance = 2048
	// soakAddresses is how many addresses socksd has, and the server: enough that no
	// connection has the addresses and ports of one that is still in TIME_WAIT.
	soakAddresses = 16
)

// TestSoak opens and closes connections by the hundred thousand, which end in every possible
// way, and checks that nothing of them is left.
func TestSoak(t *testing.T) {
	e2e.Root(t)
	l := newLab(t, serverAddress)
	// All on the proxy's loopback, with many addresses.
	s := l.socksdOn(t, build(t), "0.0.0.0:"+socksdPort, "--allow-own-addresses", "--max-connections=500")
	load := func(connections int) time.Duration {
		start := time.Now()
		cmd := l.command(t, proxyHost, self(t))
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", asSoak, connections))
		var failure bytes.Buffer
		cmd.Stdout, cmd.Stderr = os.Stdout, &failure // to show progress at once
		require.NoError(t, cmd.Run(), "%s", failure.String())
		s.awaitQuiet(t)
		return time.Since(start).Round(time.Second)
	}

	took := load(soakWarmUp)
	memory := s.memory(t)
	descriptors, _ := s.descriptors(t)
	t.Logf("%d connections in %v: %d kB, %d descriptors", soakWarmUp, took, memory, descriptors)
	took = load(soakConnections)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		all, _ := s.descriptors(t)
		assert.LessOrEqual(c, all, descriptors, "descriptors")
		assert.LessOrEqual(c, s.memory(t), memory+soakTolerance, "kB of memory")
	}, patience, 100*time.Millisecond)
	all, _ := s.descriptors(t)
	t.Logf("%d more in %v: %d kB, %d descriptors; %v of CPU", soakConnections, took, s.memory(t), all, s.cpu(t))
}

// soak is the load. It is a process of its own because it has many goroutines: only if the
// whole process is in the namespace, they need no thread each.
type soak struct {
	echo []string
	next atomic.Int64
}

// soakMain runs that process. number is how many connections it makes.
func soakMain(number string) error {
	connections, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return err
	}
	k := &soak{}
	for i := range soakAddresses {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(context.Background(), "tcp4", fmt.Sprintf("127.1.0.%d:0", i+1))
		if err != nil {
			return err
		}
		go serveEcho(l.(*net.TCPListener))
		k.echo = append(k.echo, l.Addr().String())
	}
	start := time.Now()
	failed := make(chan error, soakAtOnce)
	for range soakAtOnce {
		go func() { failed <- k.work(connections) }()
	}
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for working := soakAtOnce; working > 0; {
		select {
		case err := <-failed:
			if err != nil {
				return err
			}
			working--
		case <-tick.C:
			done := k.next.Load()
			fmt.Printf("soak: %d of %d connections, %.0f a second\n", done, connections, float64(done)/time.Since(start).Seconds())
		}
	}
	return nil
}

// work makes connections until there have been n.
func (k *soak) work(n int64) error {
	for {
		i := k.next.Add(1)
		if i > n {
			return nil
		}
		if err := k.connection(i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
}

// soakText is what the connections carry.
var soakText = bytes.Repeat([]byte("postern "), 250)

// connection makes a connection of the load. Most end well, the others in each way in which a
// client can fail.
func (k *soak) connection(i int64) error {
	c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 2, 0, byte(1+i%soakAddresses)), Port: 1080})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	to := k.echo[i/soakAddresses%soakAddresses]
	switch i % 10 {
	case 0: // abandoned in the handshake
		_, err := io.WriteString(c, ask(commandConnect, to, "soak")[:i/10%12])
		if i/100%2 == 0 {
			c.SetLinger(0)
		}
		return err
	case 1: // nothing listens there
		if _, err := io.WriteString(c, ask(commandConnect, "127.1.0.1:1", "soak")); err != nil {
			return err
		}
		return expect(c, 91)
	}
	request := []byte(ask(commandConnect, to, "soak"))
	urgent := 0 // bytes of the request, the last of which is urgent
	if i%10 == 8 {
		urgent = int(i/10) % len(request)
	}
	if err := testnet.WriteUrgent(c, request[:urgent]); err != nil {
		return err
	}
	if _, err := c.Write(request[urgent:]); err != nil {
		return err
	}
	if err := expect(c, 90); err != nil {
		return err
	}
	text := soakText[:1+int(i)*37%len(soakText)]
	urgent = 0
	if i%10 == 7 {
		urgent = int(i/10) % (len(text) + 1)
	}
	if err := testnet.WriteUrgent(c, text[:urgent]); err != nil {
		return err
	}
	if _, err := c.Write(text[urgent:]); err != nil {
		return err
	}
	switch i % 10 {
	case 2: // reset with data on its way
		return c.SetLinger(0)
	case 3: // closed with data on its way
		return nil
	case 4, 5, 7: // half-closed: the echo comes, and then its end
		if err := c.CloseWrite(); err != nil {
			return err
		}
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return errors.New("the echo differs")
	}
	switch i % 10 {
	case 4, 5, 7:
		if n, err := c.Read(got); n != 0 || err != io.EOF {
			return fmt.Errorf("%d bytes and %v behind the echo", n, err)
		}
	case 6: // reset after everything
		return c.SetLinger(0)
	}
	return nil
}

// expect reads a reply, which must have that code.
func expect(c *net.TCPConn, code byte) error {
	var b [8]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if b[0] != 0 || b[1] != code {
		return fmt.Errorf("reply %q where %d was due", b, code)
	}
	return nil
}
