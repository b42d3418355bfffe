// Package kmsg is the router's one log, which is the kernel's: bounded, in memory, with
// the time since the start on each line (Documentation/ABI/testing/dev-kmsg).
//
// A [Logger] writes lines to it. A [Journal] keeps what the router, the firewall's rules and the
// kernel itself have logged, so that what others cause overwrites nothing else. A [Remote] sends
// that to a syslog server (RFC 5424). Nobody who logs waits for a reader.
package kmsg

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Levels of the kernel's log (include/linux/kern_levels.h), which are those of syslog
// (RFC 5424, section 6.2.1). The serial console shows notices and anything more severe.
const (
	Critical = 2
	Error    = 3
	Warning  = 4
	Notice   = 5
	Info     = 6
	Debug    = 7
)

// kernelLog is the kernel's log as a file, a record each read
// (Documentation/ABI/testing/dev-kmsg).
const kernelLog = "/dev/kmsg"

// Facilities of lines of ours (RFC 5424, section 6.2.1). The kernel's own is 0.
const (
	userFacility = 1
	// keptFacility is of those that a Journal has already.
	keptFacility = 16
)

// Logger writes to the kernel's log lines about one topic. Several goroutines may use it.
type Logger struct {
	out *output
	// topic is what the lines are about, in RouterOS' words.
	topic string
}

// output is where the lines of a Logger and of all others about it go.
type output struct {
	kmsg    *os.File
	journal atomic.Pointer[Journal] // nil if there is none
}

// View is how a user sees the log.
type View struct {
	// Called is what users call an interface.
	Called func(string) string
	// Zone is how far the user's clock is ahead of UTC.
	Zone time.Duration
}

// Open opens the kernel's log for lines about the topic "system".
func Open() (*Logger, error) {
	f, err := os.OpenFile(kernelLog, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return New(f), nil
}

// New returns a logger that writes to f lines about the topic "system".
func New(f *os.File) *Logger { return &Logger{&output{kmsg: f}, "system"} }

// About returns a logger to the same log whose lines have that topic.
func (l *Logger) About(topic string) *Logger { return &Logger{l.out, topic} }

// KeepIn puts all further lines, also those of About, into j at once. Otherwise j reads them from
// the kernel's log, where a flood of packets that rules log may overwrite them before.
func (l *Logger) KeepIn(j *Journal) { l.out.journal.Store(j) }

// Printf writes one line. The kernel takes at most 976 bytes (LOG_LINE_MAX).
func (l *Logger) Printf(level int, format string, args ...any) {
	const longest = 900
	line := fmt.Sprintf(format, args...)
	line = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, line)
	if len(line) > longest {
		line = line[:longest] + "..."
	}
	line = "postern: " + l.topic + "," + levelTopics(level) + " " + line
	facility := 0 // the kernel makes it userFacility
	if j := l.out.journal.Load(); j != nil {
		j.keep(level, line)
		facility = keptFacility
	}
	// Where the log cannot be written there is nowhere to say so.
	_, _ = fmt.Fprintf(l.out.kmsg, "<%d>%s\n", facility<<3|level, line)
}

// levelTopics is how RouterOS names a level, which has no notices.
func levelTopics(level int) string {
	switch level {
	case Critical:
		return "error,critical"
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "info"
}

// Write logs each line that a process prints. The name of the process at its beginning is left
// out: the topic says it.
func (l *Logger) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		line = bytes.TrimPrefix(bytes.TrimSpace(line), []byte("socksd: "))
		if len(line) > 0 {
			l.Printf(Info, "%s", line)
		}
	}
	return len(p), nil
}

// maxRecord is the size of the buffer that a record of the kernel's log is read into
// (PRINTK_MESSAGE_MAX is 2048).
const maxRecord = 8192

// record is a line of the kernel's log.
type record struct {
	sequence uint64 // counts them all
	level    int
	at       time.Duration // since the start
	topics   string        // "" for what is no line of the log
	message  string
	kernel   bool // it is what the kernel says of itself
}

// parseRecord reads a record of /dev/kmsg:
//
//	PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,MORE];MESSAGE
//
// and perhaps lines with a dictionary. Of the priority, the level is the lowest three
// bits and the facility the rest, which is 0 for the kernel and for nobody else.
// Interfaces are named as users call them.
func parseRecord(text string, called func(string) string) (record, bool) {
	rec, facility, ok := parseHead(text)
	if !ok {
		return record{}, false
	}
	fromKernel := facility == 0
	rec.message = unescape(rec.message)
	ours, isOurs := strings.CutPrefix(rec.message, "postern: ")
	switch {
	case isOurs && !fromKernel:
		rec.topics, rec.message, _ = strings.Cut(ours, " ")
	case fromKernel:
		// Rules of nat log at debug, those of filter at info: by nothing else does the
		// kernel tell of which they are.
		if line, ok := packetLine(rec.message, rec.level == Debug, called); ok {
			rec.topics, rec.message, rec.level = "firewall,info", line, Info
		} else if rec.level <= Warning && !strings.HasPrefix(rec.message, fullSet) {
			topic := kernelTopics[kernelTopic(rec.message)].name
			rec.topics, rec.message, rec.kernel = topic+","+levelTopics(max(rec.level, Critical)), "kernel: "+rec.message, true
		}
	}
	return rec, true
}

// fullSet begins the kernel's warning, one for each packet, that a set which package firewall has made takes no more
// addresses. The router tells of that once, and by the list's name.
const fullSet = "Set postern-list-"

// parseHead reads a record but for its message, which is left as it is.
func parseHead(text string) (rec record, facility uint64, ok bool) {
	prefix, message, ok := strings.Cut(text, ";")
	var numbers [3]uint64
	for i := range numbers {
		field, rest, _ := strings.Cut(prefix, ",")
		n, err := strconv.ParseUint(field, 10, 63)
		if err != nil || !ok {
			return record{}, 0, false
		}
		numbers[i], prefix = n, rest
	}
	message, _, _ = strings.Cut(message, "\n")
	rec = record{
		sequence: numbers[1], level: int(numbers[0] & 7),
		at: time.Duration(min(numbers[2], 1<<53)) * time.Microsecond, message: message,
	}
	if facility = numbers[0] >> 3; facility == 0 && rec.level == Info && isFull(message) {
		rec.level = Warning
	}
	return rec, facility, true
}

// isFull reports whether a message of the kernel tells that hosts have filled a table of its own, which it says at info:
// neigh_alloc of net/core/neighbour.c and tcp_syn_flood_action of net/ipv4/tcp_input.c.
func isFull(message string) bool {
	return strings.Contains(message, "neighbor table overflow") || strings.Contains(message, "Possible SYN flooding")
}

// escape does to the backslash what the kernel does, so that unescape undoes it.
func escape(s string) string { return strings.ReplaceAll(s, `\`, `\x5c`) }

// unescape undoes what the kernel does to bytes that are not printable ASCII, and to
// the backslash: it writes them as \x5c.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, `\x`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n, err := strconv.ParseUint(rest[:min(2, len(rest))], 16, 8)
		if err != nil || len(rest) < 2 {
			b.WriteString(`\x`)
			s = rest
			continue
		}
		b.WriteByte(byte(n))
		s = rest[2:]
	}
}

// Clock turns the kernel's time since the start into one of day.
type Clock struct {
	// Now is the time of day at Up after the start.
	Now time.Time
	Up  time.Duration
	// Set says that the time of day is known: a board without a battery starts in 1970.
	Set bool
}

// started is when the kernel started by the clock, in nanoseconds since 1970, as ClockNow has said.
var started atomic.Int64

// clockNoise is how much sooner or later than before the kernel may seem to have started without the clock having been set: the two
// clocks are read one after the other, and drift apart while a server of time corrects one.
const clockNoise = 50 * time.Millisecond

// ClockNow reads the clock. What happened has the same time of day each time that somebody asks, until the clock is set, or has been corrected by
// clockNoise.
func ClockNow() Clock {
	var now, start time.Time
	spread := time.Duration(math.MaxInt64)
	for range 5 {
		before := sinceStart()
		read := time.Now().Round(0).UTC()
		after := sinceStart()
		if after-before < spread { // this process may have stood still in between
			spread, now, start = after-before, read, read.Add(-before)
		}
		if spread < time.Millisecond {
			break
		}
	}
	if last := time.Unix(0, started.Load()).UTC(); start.Sub(last).Abs() < clockNoise {
		start = last
	} else {
		started.Store(start.UnixNano())
	}
	return Clock{Now: now, Up: now.Sub(start), Set: now.Year() >= 2020}
}

// time is the time of day that was so long after the start. If that is not known the
// start is taken for the beginning of 1970, as RouterOS does.
func (c Clock) time(at time.Duration) time.Time {
	if !c.Set {
		return time.Unix(0, 0).UTC().Add(at)
	}
	return c.Now.Add(at - c.Up)
}

// stamp is how RouterOS writes that: of today the time, of another day also that. The
// zone is of use only if the time of day is known.
func (c Clock) stamp(at, zone time.Duration) string {
	t, today := c.time(at), c.time(c.Up)
	if c.Set {
		t, today = t.Add(zone), today.Add(zone)
	}
	form := "15:04:05"
	switch {
	case t.Year() != today.Year():
		form = "Jan/02/2006 15:04:05"
	case t.YearDay() != today.YearDay():
		form = "Jan/02 15:04:05"
	}
	return strings.ToLower(t.Format(form))
}

// Uptime is the time since the kernel started, to the millisecond.
func Uptime() time.Duration { return sinceStart().Round(time.Millisecond) }

// sinceStart is the time since the kernel started.
func sinceStart() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
