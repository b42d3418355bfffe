package console

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file has the kinds of time.

// duration is a time of low..high in milliseconds.
func duration(low, high time.Duration) kind[time.Duration] {
	l, h := formatDuration(low), formatDuration(high)
	return kind[time.Duration]{
		typ:     Duration,
		accepts: "time: " + l + ".." + h,
		parse: func(s string) (time.Duration, error) {
			d, err := ParseDuration(s)
			if err == nil && (d < low || d > high) {
				err = rangeError{l, h}
			}
			return d, err
		},
		format: formatDuration,
	}
}

// units of a time, as RouterOS writes them, in this order.
var units = []struct {
	name string
	size time.Duration
}{
	{"w", 7 * 24 * time.Hour},
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
}

// ParseDuration parses a time as RouterOS does: 2m, 1h30m, 1d2h, 500ms, 00:02:00,
// 1d00:02:00, or a number of seconds.
func ParseDuration(s string) (time.Duration, error) {
	bad := errors.New("not a time")
	var ms int64 // milliseconds: six units of at most 10^9 weeks do not overflow
	rest, next := s, 0
	for rest != "" {
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		v, err := decimal(rest[:n])
		if err != nil {
			return 0, bad
		}
		tail := rest[n:]
		if strings.HasPrefix(tail, ":") {
			clock, err := parseClock(rest)
			if err != nil || next > 2 { // only weeks and days may come before it
				return 0, bad
			}
			ms += clock
			break
		}
		if tail == "" { // a plain number
			if rest != s {
				return 0, bad
			}
			ms = v * 1000
			break
		}
		name := tail[:len(tail)-len(strings.TrimLeft(tail, "wdhms"))]
		i := next
		for i < len(units) && units[i].name != name {
			i++
		}
		if i == len(units) {
			return 0, bad
		}
		ms += v * units[i].size.Milliseconds()
		rest, next = tail[len(name):], i+1
	}
	if s == "" {
		return 0, bad
	}
	return time.Duration(min(ms, 1e12)) * time.Millisecond, nil
}

// parseClock parses hours:minutes:seconds, and returns milliseconds.
func parseClock(s string) (int64, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return 0, errors.New("not hours:minutes:seconds")
	}
	var total int64
	for i, part := range parts {
		v, err := decimal(part)
		if err != nil || len(part) > 2 || i > 0 && v > 59 {
			return 0, errors.New("not hours:minutes:seconds")
		}
		total = total*60 + v
	}
	return total * 1000, nil
}

func formatDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range units {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.size
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

var months = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}

// date is a day as RouterOS or ISO 8601 writes it. The value is the start of the day in UTC.
func date() kind[time.Time] {
	return kind[time.Time]{
		accepts: "date: mmm/dd/yyyy (jan/31/2030) or yyyy-mm-dd, 1970..2037",
		unset:   "as it is",
		parse: func(s string) (time.Time, error) {
			parts := strings.Split(s, "/")
			if len(parts) == 3 {
				parts = []string{parts[2], fmt.Sprint(slices.Index(months, strings.ToLower(parts[0])) + 1), parts[1]}
			} else {
				parts = strings.Split(s, "-")
			}
			var n [3]int64
			for i := range n {
				var err error
				if len(parts) != len(n) {
					return time.Time{}, errors.New("not a date")
				}
				if n[i], err = decimal(parts[i]); err != nil {
					return time.Time{}, err
				}
			}
			t := time.Date(int(n[0]), time.Month(n[1]), int(n[2]), 0, 0, 0, 0, time.UTC)
			// The clock of a 32-bit kernel ends in 2038.
			if n[0] < 1970 || n[0] > 2037 || int64(t.Month()) != n[1] || int64(t.Day()) != n[2] {
				return time.Time{}, errors.New("no such day")
			}
			return t, nil
		},
		format: func(t time.Time) string {
			return fmt.Sprintf("%s/%02d/%d", months[t.Month()-1], t.Day(), t.Year())
		},
	}
}

// offset is how far local time is ahead of UTC.
func offset() kind[time.Duration] {
	return kind[time.Duration]{
		accepts: "+hh:mm or -hh:mm: -12:00..+14:00",
		parse: func(s string) (time.Duration, error) {
			clock := strings.TrimLeft(s, "+-")
			ms, err := parseClock(clock + ":00")
			if err != nil || len(s) != len(clock)+1 {
				return 0, errors.New("not an offset")
			}
			d := time.Duration(ms) * time.Millisecond
			if s[0] == '-' {
				d = -d
			}
			if d < -12*time.Hour || d > 14*time.Hour {
				return 0, rangeError{"-12:00", "+14:00"}
			}
			return d, nil
		},
		format: func(d time.Duration) string {
			sign, m := '+', int(d/time.Minute)
			if m < 0 {
				sign, m = '-', -m
			}
			return fmt.Sprintf("%c%02d:%02d", sign, m/60, m%60)
		},
	}
}

// timeOfDay is hours:minutes:seconds.
func timeOfDay() kind[time.Duration] {
	return kind[time.Duration]{
		accepts: "hh:mm:ss: 00:00:00..23:59:59",
		unset:   "as it is",
		parse: func(s string) (time.Duration, error) {
			ms, err := parseClock(s)
			if err != nil || ms >= (24*time.Hour).Milliseconds() {
				return 0, errors.New("not a time of day")
			}
			return time.Duration(ms) * time.Millisecond, nil
		},
		format: func(d time.Duration) string {
			s := int(d / time.Second)
			return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
		},
	}
}
