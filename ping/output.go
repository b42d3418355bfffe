package ping

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// pingFormat is the format of a line of ping, with the columns of RouterOS.
const pingFormat = "%5s %-15s %5s %3s %-10s %s\n"

// write writes the line of one request.
func (e echo) write(out io.Writer, seq int, asked netip.Addr) error {
	host, size, ttl, rtt := asked, "", "", ""
	if e.from.IsValid() {
		host, rtt = e.from, formatTime(e.rtt)
	}
	if e.status == "" {
		size = fmt.Sprint(e.size)
	}
	if e.ttl > 0 {
		ttl = fmt.Sprint(e.ttl)
	}
	line := fmt.Sprintf(pingFormat, fmt.Sprint(seq), host, size, ttl, rtt, e.status)
	_, err := io.WriteString(out, strings.TrimRight(line, " \n")+"\n")
	return err
}

// writeRow writes the outcome of the last request as a line of names and values, as RouterOS's API has them.
func (s *summary) writeRow(out io.Writer, seq int, asked netip.Addr) error {
	e := s.last
	host := asked
	if e.from.IsValid() {
		host = e.from
	}
	line := fmt.Sprintf("seq=%d;host=%s", seq, host)
	if e.status == "" {
		line += fmt.Sprintf(";size=%d", e.size)
	}
	if e.ttl > 0 {
		line += fmt.Sprintf(";ttl=%d", e.ttl)
	}
	if e.from.IsValid() {
		line += ";time=" + formatTime(e.rtt)
	}
	if e.status != "" {
		line += ";status=" + e.status
	}
	line += fmt.Sprintf(";sent=%d;received=%d;packet-loss=%d", s.sent, s.received, s.loss())
	if s.received > 0 {
		line += fmt.Sprintf(";min-rtt=%s;avg-rtt=%s;max-rtt=%s", formatTime(s.min), formatTime(s.average()), formatTime(s.max))
	}
	_, err := io.WriteString(out, line+"\n")
	return err
}

// summary adds the outcomes of requests up.
type summary struct {
	sent, received int
	last           echo
	lastTime       time.Duration
	min, max, all  time.Duration
}

func (s *summary) add(e echo) {
	s.sent++
	s.last = e
	if !e.from.IsValid() || e.status != "" && e.status != icmpStatus(icmpExceeded, 0) {
		return
	}
	s.lastTime = e.rtt
	if s.received == 0 || e.rtt < s.min {
		s.min = e.rtt
	}
	s.max = max(s.max, e.rtt)
	s.all += e.rtt
	s.received++
}

// loss returns the share of requests without an answer, in percent.
func (s *summary) loss() int {
	if s.sent == 0 {
		return 0
	}
	return 100 * (s.sent - s.received) / s.sent
}

func (s *summary) average() time.Duration { return s.all / time.Duration(max(s.received, 1)) }

// write writes the last line of a ping.
func (s *summary) write(out io.Writer) error {
	line := fmt.Sprintf("    sent=%d received=%d packet-loss=%d%%", s.sent, s.received, s.loss())
	if s.received > 0 {
		line += fmt.Sprintf(" min-rtt=%s avg-rtt=%s max-rtt=%s", formatTime(s.min), formatTime(s.average()), formatTime(s.max))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// formatTime writes a time as RouterOS does: 453us, 12ms7us, 1s3ms.
func formatTime(d time.Duration) string {
	d = d.Truncate(time.Microsecond)
	var b strings.Builder
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.size
		}
	}
	if b.Len() == 0 {
		return "0us"
	}
	return b.String()
}
