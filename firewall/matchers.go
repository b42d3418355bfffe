package firewall

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
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
	// negated is the option for a value with "!", if it is not the same with "!" in front; "-" if
	// there is none.
	negated string
	// counts is set if what matches depends on what has matched before.
	counts bool
}

// The places in Matchers that others need.
const srcMACAddress = 2

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
	{Name: "limit", Help: "only so many packets in a time, after a first burst", Accepts: "COUNT[/TIME],BURST[:packet]: TIME in s, m, h or d, COUNT at most 10000 a second and a whole number a second, minute, hour or day, BURST 0..10000 and no more than come in a day",
		match: "limit", option: "--limit", args: rate, negated: "-", counts: true},
	{Name: "connection-limit", Help: "only hosts, or networks of that length, with more connections than this", Accepts: "[!]COUNT,NETMASK: 0..65535, 0..32",
		match: "connlimit", option: "--connlimit-above", negated: "--connlimit-upto", counts: true,
		args: func(value string) (string, bool) {
			count, mask, _ := strings.Cut(value, ",")
			return count + " --connlimit-mask " + mask, isNumber(count, 0, 65535) && isNumber(mask, 0, 32)
		}},
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

// ratePattern takes 20 KB, which every process of the program would have.
var ratePattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{1,5})(?:/(\d{1,4})([smhd]))?,(\d{1,5})(?::packet)?$`)
})

// rate translates RouterOS's "10/1m,5:packet" to the kernel's "10/minute --limit-burst 5". A burst of 0 is one packet, as
// without any no packet would ever come within the limit.
//
// The kernel counts the time of a burst at this rate in 32 bits (user2credits, net/netfilter/xt_limit.c): a day of it fits, for
// every HZ; of more it refuses some and takes the others for less. It rounds the time of a packet down to 0.1 ms, so that rates above
// 1000 a second can be up to twice as high.
func rate(value string) (string, bool) {
	m := ratePattern().FindStringSubmatch(value)
	if m == nil {
		return "", false
	}
	count, _ := strconv.Atoi(m[1]) // digits, and few
	burst, _ := strconv.Atoi(m[4])
	units := []struct {
		letter, name string
		size         time.Duration
	}{{"s", "second", time.Second}, {"m", "minute", time.Minute}, {"h", "hour", time.Hour}, {"d", "day", 24 * time.Hour}}
	in := time.Second
	for _, u := range units {
		if u.letter == m[3] {
			n, _ := strconv.Atoi(m[2])
			in = time.Duration(n) * u.size
		}
	}
	burst = max(1, burst)
	const day = 24 * time.Hour
	if count < 1 || burst > 10000 || in <= 0 || time.Duration(count)*time.Second/10000 > in || in > day/time.Duration(burst)*time.Duration(count) {
		return "", false
	}
	for _, u := range units { // the first by which the rate is a whole number
		if n := time.Duration(count) * u.size; n%in == 0 {
			return strconv.Itoa(int(n/in)) + "/" + u.name + " --limit-burst " + strconv.Itoa(burst), true
		}
	}
	return "", false
}

// words returns the matcher as an iptables command line has it, and false for a value that it does not
// take.
func (m Matcher) words(value string) ([]string, bool) {
	body, not := strings.CutPrefix(value, "!")
	args, ok := m.args(body)
	if !ok || not && m.negated == "-" {
		return nil, false
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
	return append(words, strings.Fields(args)...), true
}

// Takes reports whether the matcher takes a value.
func (m Matcher) Takes(value string) bool {
	_, ok := m.words(value)
	return ok
}

// extra returns the matches of Extra: those that count what they match, or the others.
func (r Rule) extra(counting bool) (all []string) {
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
func (r Rule) Certain() bool { return r.TCPFlags == "" && r.Extra == [len(Matchers)]string{} }

func (r Rule) checkExtra() error {
	for i, value := range r.Extra {
		if value != "" && !Matchers[i].Takes(value) {
			return refuse(Matchers[i].Name, value, "expected %s", Matchers[i].Accepts)
		}
	}
	if mac := r.Extra[srcMACAddress]; mac != "" && (r.Chain == "output" || r.Chain == "srcnat") {
		return refuse(Matchers[srcMACAddress].Name, mac, "not known in chain=%s", r.Chain)
	}
	return nil
}
