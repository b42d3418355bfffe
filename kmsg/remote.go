package kmsg

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// syslogRetry is the pause after a line could not be sent. The kernel's log keeps what is
	// logged meanwhile.
	syslogRetry = 10 * time.Second
	// syslogComplaints is the least time between two log lines about an unreachable server.
	syslogComplaints = 10 * time.Minute
	// syslogPace is the least time between two lines: 100 a second.
	syslogPace = 10 * time.Millisecond
)

// Remote sends the log to a syslog server, by RFC 5424 over UDP (RFC 5426). The Journal is its
// queue: it takes no memory, and nobody who logs waits for it. The Journal's numbers tell how
// many lines were overwritten before they could be sent; the server is told that.
type Remote struct {
	log     *Logger
	journal *Journal
	// retry is syslogRetry, but in tests.
	retry time.Duration

	mu    sync.Mutex
	stop  context.CancelFunc // nil if nothing is sent
	ended chan struct{}
}

// Destination is who is sent the log.
type Destination struct {
	// Server is the syslog server's address and UDP port; the zero value is nobody.
	Server netip.AddrPort
	// Sends reports whether a line with these topics, with commas between, is sent, and what
	// stands before its message.
	Sends func(topics string) (prefix string, sends bool)
	// Host is what the router calls itself.
	Host string
	// Names are what users call ports, if not by their names.
	Names map[string]string
}

// NewRemote returns a Remote that sends the lines of a Journal, and nothing yet. It logs its
// problems to log.
func NewRemote(log *Logger, journal *Journal) *Remote {
	return &Remote{log: log, journal: journal, retry: syslogRetry}
}

// Set says who is sent the log from now on; with whole, also what was logged before goes
// there. It does not wait for the network.
func (l *Remote) Set(to Destination, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop()
		<-l.ended
		l.stop = nil
	}
	if !to.Server.IsValid() {
		return
	}
	next := uint64(0)
	if !whole {
		// Without an error: what cannot be read now is sent, which does no harm.
		_ = l.journal.catchUp()
		next = l.journal.end()
	}
	to.Host = syslogName(to.Host)
	s := syslogSender{log: l.log, journal: l.journal, next: next, to: to, retry: l.retry}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	l.stop, l.ended = stop, ended
	go func() {
		defer close(ended)
		s.run(ctx)
	}()
}

// syslogSender sends to one server.
type syslogSender struct {
	log     *Logger
	journal *Journal
	next    uint64 // number of the line that is sent next
	to      Destination
	retry   time.Duration

	conn       net.Conn // nil if there is none
	complained time.Time
}

// run sends lines until ctx is done.
func (s *syslogSender) run(ctx context.Context) {
	defer func() {
		if s.conn != nil {
			s.conn.Close()
		}
	}()
	for first := true; ; {
		if s.journal.await(ctx, s.next) != nil {
			return
		}
		rec, ok := s.journal.from(s.next, s.called)
		if !ok {
			continue // overwritten already
		}
		if lost := rec.sequence - s.next; !first && lost > 0 {
			told := record{level: Warning, at: rec.at, topics: "system,warning",
				message: fmt.Sprintf("%d lines of the log were overwritten before they could be sent", lost)}
			if !s.deliver(ctx, told) {
				return
			}
		}
		first, s.next = false, rec.sequence+1
		if rec.topics == "" {
			continue
		}
		prefix, sends := s.to.Sends(rec.topics)
		rec.message = prefix + rec.message
		if sends && !s.deliver(ctx, rec) {
			return
		}
	}
}

// called is what users call an interface.
func (s *syslogSender) called(name string) string { return cmp.Or(s.to.Names[name], name) }

// deliver sends a line, however often it has to be tried. It returns false when ctx is
// done.
func (s *syslogSender) deliver(ctx context.Context, rec record) bool {
	for {
		pause := syslogPace
		err := s.send(syslogMessage(rec, s.to.Host, ClockNow()))
		if err != nil {
			pause = s.retry
			if s.complained.IsZero() || time.Since(s.complained) > syslogComplaints {
				s.complained = time.Now()
				s.log.Printf(Warning, "remote log: %v; trying on", err)
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		if err == nil {
			return true
		}
	}
}

func (s *syslogSender) send(message string) error {
	if s.conn == nil {
		// It takes the address that the router has now.
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.to.Server))
		if err != nil {
			return err
		}
		s.conn = conn
	}
	if _, err := s.conn.Write([]byte(message)); err != nil {
		s.conn.Close()
		s.conn = nil
		return err
	}
	return nil
}

// syslogMessage is a line as RFC 5424 has it, section 6:
//
//	<PRIORITY>1 TIME HOST postern - TOPICS - MESSAGE
//
// The facility is daemon, as RouterOS' default. The time is "-" while it is not known.
func syslogMessage(rec record, host string, now Clock) string {
	const daemon = 3
	at := "-"
	if now.Set {
		at = now.time(rec.at).Format("2006-01-02T15:04:05.000Z")
	}
	topics := rec.topics[:min(len(rec.topics), 32)]
	return fmt.Sprintf("<%d>1 %s %s postern - %s - %s", daemon<<3|rec.level, at, host, topics, rec.message)
}

// syslogName makes of the router's name a host name for syslog: printable ASCII
// without spaces.
func syslogName(identity string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, identity)
}
