package firewall

import (
	"net"
	"slices"
	"strconv"
	"strings"
)

// Matcher is a matcher whose value is text, which a Rule has in Extra at the Matcher's place in
// Matchers. With "!" in front of the value it matches all others, unless Accepts says otherwise.
type Matcher struct {
	// Name is RouterOS's. Accepts describes the value.
	Name, Help, Accepts string
	// match and option are those of iptables. args returns what follows for a value, and
	// false for a value that it does not take.
	match, option string
	args          func(value string) (string, bool)
	// all, if it is set, returns all words behind the match, in the place of option and args. It has the "!" too.
	// Its error is a *WordError.
	all func(value string) ([]string, error)
	// negated is the option for a value with "!", if it is not the same with "!" in front; "-" if
	// there is none.
	negated string
	// counts is set if what matches depends on what has matched before.
	counts bool
}

// The places in Matchers that others need.
const (
	srcMACAddress   = 2
	connectionLimit = 5
)

// Matchers are those that a Rule has in Extra (iptables-extensions(8)).
var Matchers = [...]Matcher{
	{Name: "src-address-type", Help: "kind of the source address", Accepts: addressTypesAccepted, match: "addrtype", option: "--src-type", args: addressTypes},
	{Name: "dst-address-type", Help: "kind of the destination address: local is one of the router's", Accepts: addressTypesAccepted,
		match: "addrtype", option: "--dst-type", args: addressTypes},
	{Name: "src-mac-address", Help: "hardware address that sent the packet", Accepts: "[!]MAC address: xx:xx:xx:xx:xx:xx", match: "mac", option: "--mac-source",
		args: func(value string) (string, bool) {
			mac, err := net.ParseMAC(value)
			return strings.ToUpper(mac.String()), err == nil && len(mac) == 6
		}},
	{Name: "packet-size", Help: "length of the packet in bytes", Accepts: "[!]integer or integer-integer: 0..65535", match: "length", option: "--length",
		args: func(value string) (string, bool) {
			from, to, isRange := strings.Cut(value, "-")
			if !isRange {
				to = from
			}
			low, _ := strconv.Atoi(from)
			high, _ := strconv.Atoi(to) // isNumber says whether they are numbers
			return from + ":" + to, isNumber(from, 0, 65535) && isNumber(to, 0, 65535) && low <= high
		}},
	{Name: "limit", Help: "only so many packets in a time, after a first burst", Accepts: limitForm + ": TIME as 1s, 5m, 2h or 1d; at most 10000 packets a second, and a whole number of them a second, minute, hour or day; BURST 0..10000, and no more packets than COUNT/TIME lets through in a day",
		match: "limit", all: rate, counts: true},
	{Name: "connection-limit", Help: "only hosts, or networks of that length, with more connections than this", Accepts: "[!]COUNT,NETMASK: 0..65535, 0..32",
		match: "connlimit", option: "--connlimit-above", negated: "--connlimit-upto", counts: true,
		args: func(value string) (string, bool) {
			count, mask, _ := strings.Cut(value, ",")
			return count + " --connlimit-mask " + mask, isNumber(count, 0, 65535) && isNumber(mask, 0, 32)
		}},
	{Name: "ttl", Help: "time to live of the packet", Accepts: ttlAccepted, match: "ttl", all: ttl},
	{Name: "dscp", Help: "code point of the packet (DSCP)", Accepts: "[!]integer: 0..63", match: "dscp", option: "--dscp",
		args: func(value string) (string, bool) { return value, isNumber(value, 0, 63) }},
	{Name: "random", Help: "only that share of the packets, in percent", Accepts: "integer: 1..99", match: "statistic", option: "--mode", negated: "-", counts: true,
		args: func(value string) (string, bool) {
			return "random --probability 0." + strings.Repeat("0", max(0, 2-len(value))) + value, isNumber(value, 1, 99)
		}},
	{Name: "nth", Help: "of so many packets one", Accepts: "EVERY,PACKET: 1..65535, PACKET no more than EVERY", match: "statistic", option: "--mode", negated: "-", counts: true,
		args: func(value string) (string, bool) {
			every, packet, _ := strings.Cut(value, ",")
			n, _ := strconv.Atoi(every)
			first, _ := strconv.Atoi(packet)
			return "nth --every " + every + " --packet " + strconv.Itoa(first-1), isNumber(every, 1, 65535) && isNumber(packet, 1, n)
		}},
	{Name: "per-connection-classifier", Help: "of so many shares of all packets one, by a hash of addresses and ports", Accepts: classifierAccepted, match: "bpf", all: classifier},
	{Name: "dst-limit", Help: "only so many packets in a time, after a first burst, of each address or port", Accepts: dstLimitAccepted, match: "hashlimit", all: dstLimit, counts: true},
	{Name: "time", Help: "time of the day and days of the week, by the router's clock", Accepts: TimeAccepted, match: "time", all: daytime},
}

const ttlAccepted = "equal:N | not-equal:N | less-than:N | greater-than:N: N of 0..255"

// ttl translates RouterOS's "less-than:5".
func ttl(value string) ([]string, error) {
	how, n, _ := strings.Cut(value, ":")
	options := map[string][]string{"equal": {"--ttl-eq"}, "not-equal": {"!", "--ttl-eq"}, "less-than": {"--ttl-lt"}, "greater-than": {"--ttl-gt"}}[how]
	if options == nil {
		return nil, &WordError{value, ttlAccepted}
	}
	if !isNumber(n, 0, 255) {
		return nil, &WordError{n, "0..255"}
	}
	return append(options, n), nil
}

const addressTypesAccepted = "[!]unicast | local | broadcast | multicast | blackhole | prohibit | unreachable, or a list of them"

func addressTypes(value string) (string, bool) {
	types := strings.Split(value, ",")
	for i, name := range types {
		if !slices.Contains([]string{"unicast", "local", "broadcast", "multicast", "blackhole", "prohibit", "unreachable"}, name) || slices.Contains(types[:i], name) {
			return "", false
		}
	}
	return strings.ToUpper(value), true
}

// WordError is the error of a value of which one word is wrong.
type WordError struct {
	// Word is that word, or the whole value if its form is wrong.
	Word string
	// Expected says what stands there instead.
	Expected string
}

func (e *WordError) Error() string {
	return "expected " + e.Expected + ", not " + strconv.Quote(e.Word)
}

const limitForm = "COUNT[/TIME],BURST[:packet]"

// rate translates RouterOS's "10/1m,5:packet" to the kernel's "10/minute --limit-burst 5".
func rate(value string) ([]string, error) {
	average, burst, err := averageAndBurst(value, limitForm)
	return []string{"--limit", average, "--limit-burst", burst}, err
}

// averageAndBurst are what iptables calls the two parts of a rate, "10/minute" and "5". A burst of 0 is one packet, as
// without any no packet would ever come within the limit.
//
// The kernel counts the time of a burst at this rate in 32 bits (user2credits, net/netfilter/xt_limit.c): a day of it fits, for
// every HZ; of more it refuses some and takes the others for less. It rounds the time of a packet down to 0.1 ms, so that rates above
// 1000 a second can be up to twice as high.
func averageAndBurst(value, form string) (average, most string, err error) {
	per, burst, some := strings.Cut(value, ",")
	if !some {
		return "", "", &WordError{value, form}
	}
	count, in, timed := strings.Cut(per, "/")
	n, known := digits(count)
	if !known || n < 1 {
		return "", "", &WordError{count, "COUNT, a number of packets from 1 on"}
	}
	const day = 24 * 60 * 60
	units := []struct {
		letter, name string
		seconds      int64
	}{{"s", "second", 1}, {"m", "minute", 60}, {"h", "hour", 60 * 60}, {"d", "day", day}}
	seconds := int64(1)
	if timed {
		seconds = 0
		for _, u := range units {
			if number, found := strings.CutSuffix(in, u.letter); found {
				if n, ok := digits(number); ok && n < 10000 {
					seconds = n * u.seconds
				}
			}
		}
		if seconds == 0 {
			return "", "", &WordError{in, "TIME as 1s, 5m, 2h or 1d"}
		}
	}
	packets, known := digits(strings.TrimSuffix(burst, ":packet"))
	if !known || packets > 10000 {
		return "", "", &WordError{burst, "BURST 0..10000"}
	}
	packets = max(1, packets)
	switch {
	case n > 10000*seconds:
		return "", "", &WordError{per, "at most 10000 packets a second"}
	case seconds*packets > day*n:
		return "", "", &WordError{burst, "a BURST of no more packets than " + per + " lets through in a day"}
	}
	for _, u := range units { // the first by which the rate is a whole number
		if n := n * u.seconds; n%seconds == 0 {
			return strconv.FormatInt(n/seconds, 10) + "/" + u.name, strconv.FormatInt(packets, 10), nil
		}
	}
	return "", "", &WordError{per, "a whole number of packets a second, minute, hour or day"}
}

// digits reads a number of one to five digits.
func digits(s string) (int64, bool) {
	if len(s) > 5 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// words returns the matcher as an iptables command line has it, and a *WordError for a value that it does not
// take.
func (m Matcher) words(value string) ([]string, error) {
	if m.all != nil {
		all, err := m.all(value)
		return append([]string{"-m", m.match}, all...), err
	}
	body, not := strings.CutPrefix(value, "!")
	args, ok := m.args(body)
	if !ok || not && m.negated == "-" {
		return nil, &WordError{value, m.Accepts}
	}
	words := []string{"-m", m.match}
	switch {
	case not && m.negated != "":
		words = append(words, m.negated)
	case not:
		words = append(words, "!", m.option)
	default:
		words = append(words, m.option)
	}
	return append(words, strings.Fields(args)...), nil
}

// Check returns a *WordError for a value that the matcher does not take.
func (m Matcher) Check(value string) error {
	_, err := m.words(value)
	return err
}

// extra returns the matches of Extra: those that count what they match, or the others.
func (r *Rule) extra(counting bool) (all []string) {
	for i, value := range r.Extra {
		if value != "" && Matchers[i].counts == counting {
			words, _ := Matchers[i].words(value) // Validate has accepted it
			all = append(all, words...)
		}
	}
	return all
}

// Certain reports whether the rule's addresses, ports, interfaces, protocol and states tell what it
// matches: it has no matcher by anything else.
func (r Rule) Certain() bool {
	return r.TCPFlags == "" && r.ConnectionMark == "" && r.PacketMark == "" && r.RoutingMark == "" && r.Extra == [len(Matchers)]string{}
}

func (r *Rule) checkExtra() error {
	for i, value := range r.Extra {
		if value == "" {
			continue
		}
		if err := Matchers[i].Check(value); err != nil {
			return refuse(Matchers[i].Name, value, "%v", err)
		}
	}
	if name, mac := Matchers[srcMACAddress].Name, r.Extra[srcMACAddress]; mac != "" && slices.Contains(unknownIn[name], r.Chain) {
		return refuse(name, mac, "not known in chain=%s", r.Chain)
	}
	return nil
}
