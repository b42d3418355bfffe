package main

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// stuckWords has words of 4 bytes of a machine's memory read as 0, whatever was written to them, as worn cells of a
// chip do: QEMU's chips never wear. The machine stops before it reads such a word, as for a debugger, the word is
// made 0, and the machine goes on. So it never reads anything else, however busy this host is.
//
// QEMU speaks the remote protocol of GDB: packets of text, and a byte by itself that stops a machine that runs
// (https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html).
type stuckWords struct {
	conn net.Conn
	in   *bufio.Reader
	// ended is closed when the machine has ended, or has not answered as expected: err says which.
	ended chan struct{}
	err   error

	mu     sync.Mutex
	wanted []wantedWord // at the next stop
	reads  int          // of words that are stuck
}

type wantedWord struct {
	address uint64
	done    chan struct{} // is closed when it is stuck
}

// newStuckWords is for a machine that was started with the option debugged.
func newStuckWords(t *testing.T, m *machine) *stuckWords {
	t.Helper()
	conn, err := m.dial("gdb") // the machine stands still from here until serve
	require.NoError(t, err)
	s := &stuckWords{conn: conn, in: bufio.NewReader(conn), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = s.serve()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-s.ended
	})
	return s
}

// add makes the word at an address of the processor's virtual memory stuck, and returns when it is.
func (s *stuckWords) add(t *testing.T, address uint64) {
	t.Helper()
	done := make(chan struct{})
	s.mu.Lock()
	s.wanted = append(s.wanted, wantedWord{address, done})
	// A machine that stands still takes no notice: it is about to go on, which needs mu, and then this is seen.
	_, err := s.conn.Write([]byte{3})
	s.mu.Unlock()
	require.NoError(t, err)
	select {
	case <-done:
	case <-s.ended:
		t.Fatalf("the word at %#x is not stuck: %v", address, s.err)
	}
}

// count returns how often the machine has read words that are stuck.
func (s *stuckWords) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// aboutToRead is what QEMU says of a machine that has stopped before it reads a word that is watched.
var aboutToRead = regexp.MustCompile(`^T05.*rwatch:([0-9a-f]+);`)

// serve lets the machine go on, stop after stop.
func (s *stuckWords) serve() error {
	// Some versions of QEMU say by themselves that the machine has stopped (T02). All do when they are asked (T05).
	if err := s.send("?"); err != nil {
		return err
	}
	for answer := ""; !strings.HasPrefix(answer, "T05"); {
		var err error
		if answer, err = s.receive(); err != nil {
			return err
		}
	}
	for {
		if err := s.resume(); err != nil {
			return err
		}
		stop, err := s.receive()
		if err != nil {
			return err
		}
		found := aboutToRead.FindStringSubmatch(stop)
		if found == nil {
			continue // it was stopped by add
		}
		at, err := strconv.ParseUint(found[1], 16, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", stop, err)
		}
		for _, command := range []struct{ send, want string }{
			{fmt.Sprintf("M%x,4:00000000", at&^3), "OK"},
			{fmt.Sprintf("z3,%x,4", at&^3), "OK"},
			{"s", "T05"}, // the read itself
			{fmt.Sprintf("Z3,%x,4", at&^3), "OK"},
		} {
			if err := s.ask(command.send, command.want); err != nil {
				return err
			}
		}
		s.mu.Lock()
		s.reads++
		s.mu.Unlock()
	}
}

// resume makes the words stuck that are wanted, and lets the machine go on.
func (s *stuckWords) resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wanted {
		if err := s.ask(fmt.Sprintf("Z3,%x,4", w.address), "OK"); err != nil {
			return err
		}
		close(w.done)
	}
	s.wanted = nil
	return s.send("c")
}

// ask sends a packet and expects an answer that begins so.
func (s *stuckWords) ask(packet, want string) error {
	if err := s.send(packet); err != nil {
		return err
	}
	answer, err := s.receive()
	if err == nil && !strings.HasPrefix(answer, want) {
		err = fmt.Errorf("QEMU answers %q to %q, not %q", answer, packet, want)
	}
	return err
}

func (s *stuckWords) send(packet string) error {
	_, err := fmt.Fprintf(s.conn, "$%s#%02x", packet, sumOf(packet))
	return err
}

// receive reads a packet, and says that it was read.
func (s *stuckWords) receive() (string, error) {
	if _, err := s.in.ReadString('$'); err != nil { // '+' before it is for what was sent
		return "", err
	}
	packet, err := s.in.ReadString('#')
	if err != nil {
		return "", err
	}
	if _, err := s.in.Discard(2); err != nil { // the sum: nothing is lost on a socket
		return "", err
	}
	_, err = s.conn.Write([]byte{'+'})
	return packet[:len(packet)-1], err
}

// sumOf is a packet's checksum.
func sumOf(packet string) (sum byte) {
	for i := range len(packet) {
		sum += packet[i]
	}
	return sum
}
