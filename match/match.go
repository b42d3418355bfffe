// Package match has the address and port matchers that firewall rules and SOCKS access rules
// have in common, and the names of protocols and connection states. Matchers are written as in
// RouterOS: an address, prefix, netmask or range; a port, range or list; "!" before it for all
// others.
//
// It promises:
//   - The zero value of each matcher matches everything, and is written as the empty string.
//   - Parsing what String wrote gives the same value.
//   - It imports nothing of the project, has no state, and does no I/O.
package match

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// Refusal is the error of a value that is written as it should be and that makes no sense. Its
// text says why.
type Refusal string

func (r Refusal) Error() string { return string(r) }

const errReversed = Refusal("the range ends before it begins")

// Addresses matches IPv4 addresses from From to To, both included; with Not it matches all
// others. The zero value matches every address.
type Addresses struct {
	Not      bool
	From, To netip.Addr
}

// AddressesFromPrefix matches the addresses of p.
func AddressesFromPrefix(p netip.Prefix) Addresses {
	p = p.Masked()
	return Addresses{From: p.Addr(), To: fromUint32(toUint32(p.Addr()) | ^mask(p.Bits()))}
}

// ParseAddresses reads an IPv4 address (10.0.0.1), a prefix (10.0.0.0/8), an
// address with netmask (10.0.0.0/255.0.0.0) or a range (10.0.0.1-10.0.0.9),
// with "!" before it for all other addresses. Host bits of a prefix are dropped. The empty
// string is the zero value.
func ParseAddresses(s string) (Addresses, error) {
	if s == "" {
		return Addresses{}, nil
	}
	body, not := strings.CutPrefix(s, "!")
	a, err := parseRange(body)
	if err != nil {
		return Addresses{}, fmt.Errorf("%q is not an IPv4 address, prefix, netmask or range: %w", s, err)
	}
	a.Not = not
	return a, nil
}

func parseRange(s string) (Addresses, error) {
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, err := ParseIPv4(from)
		if err != nil {
			return Addresses{}, err
		}
		b, err := ParseIPv4(to)
		if err != nil {
			return Addresses{}, err
		}
		if b.Less(a) {
			return Addresses{}, errReversed
		}
		return Addresses{From: a, To: b}, nil
	}
	p, err := ParsePrefix(s)
	if err != nil {
		return Addresses{}, err
	}
	return AddressesFromPrefix(p), nil
}

// ParseIPv4 reads a dotted IPv4 address.
func ParseIPv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 address", s)
	}
	return a, nil
}

// ParsePrefix reads an IPv4 address, optionally followed by a slash and a prefix length or a
// netmask, and keeps the host bits. Without a slash the length is 32.
func ParsePrefix(s string) (netip.Prefix, error) {
	addr, length, slash := strings.Cut(s, "/")
	a, err := ParseIPv4(addr)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !slash {
		return netip.PrefixFrom(a, 32), nil
	}
	if m, err := ParseIPv4(length); err == nil {
		n := bits.LeadingZeros32(^toUint32(m))
		if mask(n) != toUint32(m) {
			return netip.Prefix{}, Refusal(fmt.Sprintf("netmask %q has a hole", length))
		}
		return netip.PrefixFrom(a, n), nil
	}
	n, err := parseNumber(length, 32)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("prefix length %q is not a number of 0..32 or a netmask", length)
	}
	return netip.PrefixFrom(a, int(n)), nil
}

// Any reports whether a is the zero value, which matches every address.
func (a Addresses) Any() bool { return a == Addresses{} }

// Match reports whether a matches addr. An IPv4-mapped IPv6 address counts as the IPv4 address
// in it.
func (a Addresses) Match(addr netip.Addr) bool {
	if a.Any() {
		return true
	}
	addr = addr.Unmap()
	return (a.From.Compare(addr) <= 0 && addr.Compare(a.To) <= 0) != a.Not
}

// Prefix returns the prefix with exactly the addresses From to To, if there is one. It ignores
// Not.
func (a Addresses) Prefix() (netip.Prefix, bool) {
	if a.Any() {
		return netip.Prefix{}, false
	}
	from, to := toUint32(a.From), toUint32(a.To)
	n := bits.LeadingZeros32(from ^ to)
	if from&^mask(n) != 0 || to != from|^mask(n) {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a.From, n), true
}

// String writes a single address without a length, a prefix with its length, and anything else
// as a range.
func (a Addresses) String() string {
	if a.Any() {
		return ""
	}
	not := ""
	if a.Not {
		not = "!"
	}
	if a.From == a.To {
		return not + a.From.String()
	}
	if p, ok := a.Prefix(); ok {
		return not + p.String()
	}
	return not + a.From.String() + "-" + a.To.String()
}

// MaxPorts is how many ports a list can have, where a range counts as two: the limit of the
// kernel's multiport match (XT_MULTI_PORTS, linux/netfilter/xt_multiport.h).
const MaxPorts = 15

// PortRange is the ports from From to To, both included.
type PortRange struct{ From, To uint16 }

// Ports matches the ports in any of Ranges; with Not it matches all others. The zero value
// matches every port.
type Ports struct {
	Not    bool
	Ranges []PortRange
}

// ParsePorts reads ports and ranges of ports (0..65535), separated by commas
// (21,80,1024-65535), with "!" before them for all other ports. The empty string is the zero
// value.
func ParsePorts(s string) (Ports, error) {
	if s == "" {
		return Ports{}, nil
	}
	var p Ports
	body, not := strings.CutPrefix(s, "!")
	p.Not = not
	slots := 0
	for item := range strings.SplitSeq(body, ",") {
		from, to, isRange := strings.Cut(item, "-")
		a, err := parseNumber(from, 65535)
		if err != nil {
			return Ports{}, fmt.Errorf("%q is not a port of 0..65535, a range or a list of them", s)
		}
		r := PortRange{uint16(a), uint16(a)}
		slots++
		if isRange {
			b, err := parseNumber(to, 65535)
			if err != nil {
				return Ports{}, fmt.Errorf("%q is not a port of 0..65535, a range or a list of them", s)
			}
			if b < a {
				return Ports{}, fmt.Errorf("port range %q: %w", item, errReversed)
			}
			r.To = uint16(b)
			slots++
		}
		if slots > MaxPorts {
			return Ports{}, fmt.Errorf("%q: %w", s, Refusal(fmt.Sprintf("more than %d ports (a range counts twice)", MaxPorts)))
		}
		p.Ranges = append(p.Ranges, r)
	}
	return p, nil
}

// Any reports whether p is the zero value, which matches every port.
func (p Ports) Any() bool { return !p.Not && len(p.Ranges) == 0 }

// Match reports whether p matches port.
func (p Ports) Match(port uint16) bool {
	if p.Any() {
		return true
	}
	for _, r := range p.Ranges {
		if r.From <= port && port <= r.To {
			return !p.Not
		}
	}
	return p.Not
}

// Equal reports whether p and q are written in the same way.
func (p Ports) Equal(q Ports) bool { return p.String() == q.String() }

// String writes the ports as ParsePorts reads them.
func (p Ports) String() string {
	var b strings.Builder
	if p.Not {
		b.WriteByte('!')
	}
	for i, r := range p.Ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(r.From)))
		if r.To != r.From {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(int(r.To)))
		}
	}
	return b.String()
}

// parseNumber parses plain decimal digits, at most limit. strconv alone accepts "+5" too.
func parseNumber(s string, limit uint64) (uint64, error) {
	if s == "" || len(s) > 5 || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n > limit {
		err = strconv.ErrRange
	}
	return n, err
}

func mask(n int) uint32 { return uint32(^uint64(0) << (32 - n)) }

func toUint32(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func fromUint32(u uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)})
}
