package firewall

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/internal/machine"
)

// This file has the matchers time and dst-limit.

const day = 24 * time.Hour

// clockUnits are the units of a RouterOS duration, the longest first.
var clockUnits = []struct {
	letter byte
	value  time.Duration
}{{'w', 7 * day}, {'d', day}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}

// seconds reads a duration as RouterOS writes it, "1m40s", or a time of the day, "08:30:00" or "08:30". It is less than 1,000 weeks.
func seconds(s string) (d time.Duration, ok bool) {
	if h, rest, is := strings.Cut(s, ":"); is {
		m, s, more := strings.Cut(rest, ":")
		two := func(s string, below int) int {
			if n, err := strconv.Atoi(s); err == nil && len(s) == 2 && s[0] != '+' && 0 <= n && n < below {
				return n
			}
			return -1
		}
		if !more {
			s = "00"
		}
		hours, minutes, secs := two(h, 25), two(m, 60), two(s, 60)
		return time.Duration(hours*3600+minutes*60+secs) * time.Second, hours >= 0 && minutes >= 0 && secs >= 0
	}
	left := clockUnits
	for s != "" {
		n := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if n < 1 || n > 3 {
			return 0, false
		}
		i := slices.IndexFunc(left, func(u struct {
			letter byte
			value  time.Duration
		}) bool {
			return u.letter == s[n]
		})
		if i < 0 {
			return 0, false
		}
		d += time.Duration(numberOf(strings.TrimLeft(s[:n], "0"))) * left[i].value
		left, s, ok = left[i+1:], s[n+1:], true
	}
	return d, ok
}

const timeForm = "TIME-TIME[,DAY,...]"

// TimeAccepted says what the matcher time accepts.
const TimeAccepted = timeForm + ": TIME as 8h30m, 08:30:00 or 1d, DAY sun | mon | tue | wed | thu | fri | sat; at least two seconds"

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// daytime translates RouterOS's "22h-6h,fri,sat". The end is the first second that is not meant any more, which the kernel would take for the
// last one that is. Where a time ends before it begins, it ends on the next day, and the days are those on which it begins.
//
// The kernel adds the zone that it was told (settimeofday(2)) to the time of each packet: the rules stay when that changes.
func daytime(value string) ([]string, error) {
	span, days, some := strings.Cut(value, ",")
	from, to, ok := strings.Cut(span, "-")
	start, ok1 := seconds(from)
	end, ok2 := seconds(to)
	switch {
	case !ok:
		return nil, &WordError{span, timeForm}
	case !ok1 || start >= day:
		return nil, &WordError{from, "TIME as 8h30m or 08:30:00, less than 1d"}
	case !ok2 || end > day:
		return nil, &WordError{to, "TIME as 8h30m, 08:30:00 or 1d"}
	case start == end:
		return nil, &WordError{span, "at least two seconds"}
	}
	words := []string{}
	clock := func(d time.Duration) string {
		s := int(d / time.Second)
		return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	if end == 0 {
		end = day
	}
	if end-start == time.Second {
		return nil, &WordError{span, "at least two seconds"} // from a second to the same one is always, for the kernel (time_mt, net/netfilter/xt_time.c)
	}
	if start > 0 {
		words = append(words, "--timestart", clock(start))
	}
	if end < day {
		words = append(words, "--timestop", clock(end-time.Second))
	}
	if end < start {
		words = append(words, "--contiguous")
	}
	if some {
		var names []string
		for name := range strings.SplitSeq(days, ",") {
			known := slices.Contains(weekdays, name)
			if known {
				name = strings.ToUpper(name[:1]) + name[1:] // as iptables has it
			}
			if !known {
				return nil, &WordError{name, "DAY " + strings.Join(weekdays, " | ")}
			}
			if slices.Contains(names, name) {
				return nil, &WordError{strings.ToLower(name), "each day once"}
			}
			names = append(names, name)
		}
		if len(names) < len(weekdays) {
			words = append(words, "--weekdays", strings.Join(names, ","))
		}
	}
	return append(words, "--kerneltz"), nil
}

// CheckTime returns a *WordError for a value that is none of the matcher time.
func CheckTime(value string) error { _, err := daytime(value); return err }

const dstLimitForm = "COUNT[/TIME],BURST,MODE[/EXPIRE]"

const dstLimitAccepted = "[!]" + dstLimitForm + ": COUNT, TIME and BURST as of limit=, " +
	"MODE dst-address | dst-port | src-address | src-and-dst-addresses | dst-address-and-port | addresses-and-dst-port, EXPIRE 1s..1d"

// dstLimitModes are RouterOS's names of what has a limit of its own, and what iptables calls it.
var dstLimitModes = []struct{ name, mode string }{
	{"dst-address", "dstip"}, {"dst-port", "dstport"}, {"src-address", "srcip"}, {"src-and-dst-addresses", "srcip,dstip"},
	{"dst-address-and-port", "dstip,dstport"}, {"addresses-and-dst-port", "srcip,dstip,dstport"},
}

const (
	dstLimitExpire = 100 * time.Second // RouterOS's default
	// dstLimitBuckets is the size of the kernel's hash table of a rule, at 8 bytes each, and limitName the option behind which its name is,
	// the last of the words.
	dstLimitBuckets = 256
	limitName       = "--hashlimit-name"
)

// dstLimit translates RouterOS's "5/1m,10,src-address/1m40s". The kernel keeps at most so many addresses or ports of a rule as rules can add to a list
// (some 100 bytes each). While there are as many it drops (xt_hashlimit.c, hotdrop) the packets of more of them, until some have not been seen for EXPIRE.
func dstLimit(value string) ([]string, error) {
	value, not := strings.CutPrefix(value, "!")
	i := strings.LastIndexByte(value, ',')
	if i < 0 {
		return nil, &WordError{value, dstLimitForm}
	}
	average, burst, err := averageAndBurst(value[:i], dstLimitForm)
	if err != nil {
		return nil, err
	}
	name, expires, some := strings.Cut(value[i+1:], "/")
	mode := slices.IndexFunc(dstLimitModes, func(m struct{ name, mode string }) bool { return m.name == name })
	if mode < 0 {
		var names []string
		for _, m := range dstLimitModes {
			names = append(names, m.name)
		}
		return nil, &WordError{name, "MODE " + strings.Join(names, " | ")}
	}
	expire := dstLimitExpire
	if some {
		var known bool
		if expire, known = seconds(expires); !known || expire < time.Second || expire > day {
			return nil, &WordError{expires, "EXPIRE 1s..1d"}
		}
	}
	how := "--hashlimit-upto"
	if not {
		how = "--hashlimit-above"
	}
	_, memory := machine.Memory()
	return []string{how, average, "--hashlimit-burst", burst, "--hashlimit-mode", dstLimitModes[mode].mode,
		"--hashlimit-htable-size", strconv.Itoa(dstLimitBuckets), "--hashlimit-htable-max", strconv.Itoa(roomFor(memory)),
		"--hashlimit-htable-expire", strconv.FormatInt(expire.Milliseconds(), 10), limitName, ""}, nil
}

// nameLimit gives the kernel's table of a dst-limit among words a name. The kernel has one table for all limits of a name, with the numbers of the first,
// so each rule has a name of its own, which stays as long as the rule says the same. used are the names of other rules of t.
func nameLimit(words []string, t Table, key digest, used map[string]bool) {
	i := slices.Index(words, limitName)
	if i < 0 {
		return
	}
	for n := 0; words[i+1] == "" || used[words[i+1]]; n++ {
		words[i+1] = fmt.Sprintf("postern-%08x", uint32(sum(string(t), strconv.FormatUint(uint64(key), 16), strconv.Itoa(n))))
	}
	used[words[i+1]] = true
}
