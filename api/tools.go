package api

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/console"
)

const (
	interfacePath  = "interface"
	monitorTraffic = "monitor-traffic"
	// maxPingLine is the greatest length of what is said of an answer to ping.
	maxPingLine = 1 << 10
	// maxInterval is the longest time between two rows of monitor-traffic. While a command without a tag runs nothing is read from
	// the client, and that it has gone is seen only when it is sent something: until then it has its place among the logins.
	maxInterval = time.Minute
)

// isPing reports whether the command is a ping, which is in two menus.
func (t *task) isPing() bool { return t.command == "ping" && (t.path == "" || t.path == "tool") }

// ping sends echo requests, and a row for each when it is answered, or has waited long enough. A connection has one ping at a time, as
// that takes one of its sessions.
func (t *task) ping() error {
	select {
	case t.pinging <- struct{}{}:
		defer func() { <-t.pinging }()
	default:
		return &trap{general, "failure: this connection has a ping already"}
	}
	var names []string
	t.arguments = slices.DeleteFunc(t.arguments, func(a argument) bool {
		if a.Name == ".proplist" {
			names = list(a.Value)
		}
		return a.Name == ".proplist"
	})
	return t.withSession(func(s Session) error {
		// PID 1 ends the ping with the session.
		stop := context.AfterFunc(t.ctx, func() { s.Close() })
		rest := ""
		_, err := s.Do(t.path, t.command, func(said string) error {
			rest += said
			for {
				line, after, whole := strings.Cut(rest, "\n")
				if !whole {
					break
				}
				rest = after
				if err := t.sendNow(pingRow(line), names); err != nil {
					return err
				}
			}
			if len(rest) > maxPingLine {
				return &trap{general, "failure: an answer without an end"}
			}
			return nil
		}, t.arguments...)
		if !stop() { // the session is closed
			return t.ctx.Err()
		}
		return err
	})
}

// sendNow sends a row, and what was gathered before: the next may take long.
func (t *task) sendNow(r row, names []string, more ...string) error {
	if err := t.send(r, names, more...); err != nil || t.show != nil {
		return err
	}
	return t.out.send(true, nil)
}

// pingRow is a line of package ping as a row.
func pingRow(line string) (r row) {
	for part := range strings.SplitSeq(line, ";") {
		if name, value, ok := strings.Cut(part, "="); ok {
			r.properties = append(r.properties, property{name: name, text: value})
		}
	}
	return r
}

// The rates that monitor-traffic shows, and the counters that they are of.
var rates = []struct {
	name, counter string
	factor        uint64
}{
	{"rx-packets-per-second", "rx-packet", 1},
	{"rx-bits-per-second", "rx-byte", 8},
	{"tx-packets-per-second", "tx-packet", 1},
	{"tx-bits-per-second", "tx-byte", 8},
}

// monitorTraffic shows what goes through interfaces each second: once, for a time, or until it is cancelled.
func (t *task) monitorTraffic() error {
	given, err := t.take("interface", "numbers", idName, "once", "interval", "duration", ".proplist")
	if err != nil {
		return err
	}
	s := selection{from: slices.Concat(list(given["interface"]), list(given["numbers"]), list(given[idName])), counted: true}
	if len(s.from) == 0 {
		return &trap{badValue, "missing value(s) of argument(s) interface"}
	}
	interval, err := spanOf("interval", given["interval"], pollTime, maxInterval, "1m")
	if err != nil {
		return err
	}
	duration, err := spanOf("duration", given["duration"], 0, 24*time.Hour, "1d")
	if err != nil {
		return err
	}
	names, once := list(given[".proplist"]), isSet(given, "once")
	began := time.Now()
	before, at, err := t.counts(s)
	if err != nil {
		return err
	}
	for section := 0; ; section++ {
		if err := t.wait(interval); err != nil {
			return err
		}
		now, then, err := t.counts(s)
		if err != nil {
			return err
		}
		var more []string
		if !once {
			more = []string{".section", strconv.Itoa(section)}
		}
		for i, link := range now {
			r := row{properties: []property{{name: "name", text: link.name}}}
			for j, rate := range rates {
				was := uint64(0)
				if i < len(before) && before[i].name == link.name && before[i].counts[j] <= link.counts[j] {
					was = before[i].counts[j]
				}
				n := float64((link.counts[j]-was)*rate.factor) / max(then.Sub(at).Seconds(), 0.001)
				r.properties = append(r.properties, property{name: rate.name, text: strconv.FormatUint(uint64(n+0.5), 10)})
			}
			if err := t.sendNow(r, names, more...); err != nil {
				return err
			}
		}
		if once || duration > 0 && time.Since(began) >= duration {
			return nil
		}
		before, at = now, then
	}
}

// linkCounts are the counters of an interface, in the order of rates.
type linkCounts struct {
	name   string
	counts [4]uint64
}

// counts looks at the counters of interfaces.
func (t *task) counts(s selection) (all []linkCounts, at time.Time, err error) {
	err = t.rows(s, func(r row) error {
		name, _ := r.get("name")
		link := linkCounts{name: name.text}
		for i, rate := range rates {
			if p, ok := r.get(rate.counter); ok {
				link.counts[i], _ = strconv.ParseUint(p.text, 10, 64) // it is a number
			}
		}
		all = append(all, link)
		return nil
	})
	return all, time.Now(), err
}

// wait waits until the command is cancelled or some time is over.
func (t *task) wait(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}

// spanOf is a time as an argument, or usual without one. most is the longest, and written so.
func spanOf(name, text string, usual, most time.Duration, written string) (time.Duration, error) {
	if text == "" {
		return usual, nil
	}
	d, err := console.ParseDuration(text)
	if err != nil || d < pollTime || d > most {
		return 0, &trap{badValue, "value of " + name + " out of range (" + pollTime.String() + ".." + written + ")"}
	}
	return d, nil
}
