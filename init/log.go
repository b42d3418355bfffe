package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Levels of the kernel's log (include/linux/kern_levels.h). The console shows
// notices and what is graver.
const (
	levelError   = 3
	levelWarning = 4
	levelNotice  = 5
	levelInfo    = 6
)

// logger writes to the kernel's log, the one log that the router keeps: bounded,
// in memory, with the time since the start on each line.
type logger struct{ kmsg *os.File }

func openLog() (*logger, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return &logger{kmsg: f}, nil
}

// printf writes one line. The kernel takes at most 976 bytes (LOG_LINE_MAX).
func (l *logger) printf(level int, format string, args ...any) {
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
	// Where the log cannot be written there is nowhere to say so.
	_, _ = fmt.Fprintf(l.kmsg, "<%d>postern: %s\n", level, line)
}

// Write logs what a child prints, a line each.
func (l *logger) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			l.printf(levelInfo, "%s", line)
		}
	}
	return len(p), nil
}

// lines returns what Postern wrote, oldest first, with the seconds since the
// start in front; the kernel's own lines are left out. The form of a record is
// that of Documentation/ABI/testing/dev-kmsg.
func (l *logger) lines() ([]string, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	defer unix.Close(fd)
	var lines []string
	record := make([]byte, 8192)
	for {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return lines, nil
		case errors.Is(err, unix.EPIPE):
			continue // overwritten while we read: the next read is of the oldest left
		case err != nil:
			return nil, fmt.Errorf("read the log: %w", err)
		}
		if line, ok := parseRecord(string(record[:n])); ok {
			lines = append(lines, line)
		}
	}
}

// parseRecord turns a record of /dev/kmsg into a line, if it is Postern's.
func parseRecord(record string) (line string, ok bool) {
	prefix, text, ok := strings.Cut(record, ";")
	if !ok {
		return "", false
	}
	text, _, _ = strings.Cut(text, "\n")
	text, ok = strings.CutPrefix(text, "postern: ")
	if !ok {
		return "", false
	}
	fields := strings.Split(prefix, ",")
	if len(fields) < 3 {
		return "", false
	}
	µs, err := strconv.ParseUint(fields[2], 10, 64)
	if err != nil {
		return "", false
	}
	return fmt.Sprintf("%d.%03d %s", µs/1e6, µs/1e3%1e3, text), true
}
