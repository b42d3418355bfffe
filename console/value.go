package console

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
)

// kind is a kind of value: how it is parsed and written.
type kind[V any] struct {
	typ Type
	// accepts describes the type and the range, for help and errors.
	accepts string
	// unset is what the empty value (the zero V) means; it is "" if a value is needed.
	unset string
	// values are the words of an enumeration.
	values []string
	// isInterface is set for the name of an interface, and list for values that can stand in
	// a list, separated by commas.
	isInterface, list bool
	// isList is set for the name of an interface list.
	isList bool
	// links are the kinds of interfaces that it can name; nil is all.
	links []netcfg.LinkType
	// offers returns values that a property of a menu can have, besides values; nil is none.
	offers func(*execution, *menu) []Choice

	parse func(string) (V, error)
	// format writes a value as parse reads it, and an unset one as "".
	format func(V) string
}

// errNoMatch is the error of a word that an enumeration does not have.
var errNoMatch = errors.New("no such value")

// rangeError is the error of a value outside its range.
type rangeError struct{ low, high string }

func (e rangeError) Error() string { return e.low + ".." + e.high }

func boolean() kind[bool] {
	return kind[bool]{
		typ:     Boolean,
		accepts: "yes | no",
		values:  []string{"yes", "no"},
		parse: func(s string) (bool, error) {
			full, err := oneOf(s, "yes", "no")
			return full == "yes", err
		},
		format: func(v bool) string {
			if v {
				return "yes"
			}
			return "no"
		},
	}
}

// enum is one of values.
func enum[V ~string](values ...string) kind[V] {
	return kind[V]{
		typ:     Enumeration,
		accepts: strings.Join(values, " | "),
		values:  values,
		parse: func(s string) (V, error) {
			full, err := oneOf(s, values...)
			return V(full), err
		},
		format: func(v V) string { return string(v) },
	}
}

// oneOf returns the one of values that s, which may be shortened, means.
func oneOf(s string, values ...string) (string, error) {
	full, err := complete(s, values)
	if err != nil && !errors.Is(err, errAmbiguous) {
		err = errNoMatch
	}
	return full, err
}

// optional makes k accept the empty value, which means what unset says.
func optional[V comparable](k kind[V], unset string) kind[V] {
	format := k.format
	k.unset = unset
	k.format = func(v V) string {
		var zero V
		if v == zero {
			return ""
		}
		return format(v)
	}
	return k
}

// integer is a decimal number of low..high.
func integer[V int | uint16](low, high V) kind[V] {
	l, h := strconv.Itoa(int(low)), strconv.Itoa(int(high))
	return kind[V]{
		typ:     Integer,
		accepts: "integer: " + l + ".." + h,
		parse: func(s string) (V, error) {
			n, err := decimal(s)
			if err != nil {
				return 0, err
			}
			if n < int64(low) || n > int64(high) {
				return 0, rangeError{l, h}
			}
			return V(n), nil
		},
		format: func(v V) string { return strconv.Itoa(int(v)) },
	}
}

// decimal parses digits and nothing else. It returns 10^9 for any greater number: all ranges
// here end below that.
func decimal(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("not a number")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > 1e9 {
		n = 1e9
	}
	return n, nil
}

// address is one IPv4 address.
func address() kind[netip.Addr] {
	return kind[netip.Addr]{
		typ:     Address,
		accepts: "IP address",
		parse:   match.ParseIPv4,
		format:  netip.Addr.String,
	}
}

// listOf is at most limit values of a kind, separated by commas.
func listOf[V any](one kind[V], limit int) kind[[]V] {
	return kind[[]V]{
		typ:     List,
		accepts: fmt.Sprintf("%s, or a list of them: at most %d", one.accepts, limit),
		unset:   "none",
		list:    true,
		parse: func(s string) ([]V, error) {
			if s == "" {
				return nil, nil
			}
			var all []V
			for item := range strings.SplitSeq(s, ",") {
				v, err := one.parse(item)
				if err != nil {
					return nil, err
				}
				all = append(all, v)
			}
			if len(all) > limit {
				return nil, fmt.Errorf("more than %d values", limit)
			}
			return all, nil
		},
		format: func(all []V) string {
			texts := make([]string, len(all))
			for i, v := range all {
				texts[i] = one.format(v)
			}
			return strings.Join(texts, ",")
		},
	}
}

// addressList is at most limit addresses.
func addressList(limit int) kind[[]netip.Addr] { return listOf(address(), limit) }

// prefix is an address with the length of its network.
func prefix() kind[netip.Prefix] {
	return kind[netip.Prefix]{
		typ:     Prefix,
		accepts: "IP address/netmask",
		parse:   match.ParsePrefix,
		format:  netip.Prefix.String,
	}
}

// network is a prefix without host bits.
func network() kind[netip.Prefix] {
	k := prefix()
	k.parse = func(s string) (netip.Prefix, error) {
		p, err := match.ParsePrefix(s)
		return p.Masked(), err
	}
	return k
}

func addressMatch() kind[match.Addresses] {
	return kind[match.Addresses]{
		accepts: "[!]IP address, IP address/netmask or IP address-IP address",
		unset:   "any",
		parse:   match.ParseAddresses,
		format:  match.Addresses.String,
	}
}

// addressRange is an address, a prefix or a range to translate to: a match without "!".
func addressRange() kind[match.Addresses] {
	k := addressMatch()
	k.accepts, k.unset = strings.TrimPrefix(k.accepts, "[!]"), "none"
	k.parse = func(s string) (match.Addresses, error) {
		a, err := match.ParseAddresses(s)
		if err == nil && a.Not {
			err = match.Refusal(`"!" is not possible here`)
		}
		if err == nil && s != "" && a.From.IsUnspecified() {
			err = match.Refusal("no host has the address 0.0.0.0")
		}
		return a, err
	}
	return k
}

func portMatch() kind[match.Ports] {
	return kind[match.Ports]{
		accepts: fmt.Sprintf("[!]port, port-port or a list of them: 0..65535, at most %d", match.MaxPorts),
		unset:   "any",
		parse:   match.ParsePorts,
		format:  match.Ports.String,
	}
}

// portRange is a port or a range to translate to: a match without "!".
func portRange() kind[match.Ports] {
	k := portMatch()
	k.accepts, k.unset = "port or port-port: 0..65535", "none"
	k.parse = func(s string) (match.Ports, error) {
		p, err := match.ParsePorts(s)
		if err == nil && (p.Not || len(p.Ranges) > 1) {
			err = errors.New("not one port or range")
		}
		return p, err
	}
	return k
}

// text is low..high bytes of printable UTF-8: it ends up in the host name, in the kernel's log
// and on terminals. If low is 0 it may be empty.
func text(low, high int) kind[string] {
	return bytesOf(low, high, func(s string) bool { return Printable(s) == s })
}

// label is text that people wrote for themselves, such as a name of their own. RouterOS keeps it in the code page of the computer
// that it was typed on and exports its bytes ("\E4"), so that it need not be UTF-8. Screens show such bytes as an export does.
func label(low, high int) kind[string] {
	return bytesOf(low, high, func(s string) bool { return !strings.ContainsFunc(s, isASCIIControl) })
}

// note is a label of several lines perhaps.
func note() kind[string] {
	return bytesOf(0, 255, func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return isASCIIControl(r) && !strings.ContainsRune("\r\n\t", r) })
	})
}

func isASCIIControl(r rune) bool { return r < ' ' || r == 0x7f }

// bytesOf is low..high bytes that a kind of text takes.
func bytesOf(low, high int, takes func(string) bool) kind[string] {
	k := kind[string]{
		accepts: fmt.Sprintf("printable string: %d..%d bytes", low, high),
		parse: func(s string) (string, error) {
			if len(s) < low || len(s) > high {
				return "", fmt.Errorf("not %d..%d bytes", low, high)
			}
			if !takes(s) {
				return "", errors.New("not printable")
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
	if low == 0 {
		k.unset = "none"
	}
	return k
}

// portName is the name of an interface, as users know it.
func portName() kind[string] {
	return kind[string]{
		accepts:     "interface name",
		isInterface: true,
		parse: func(s string) (string, error) {
			if s == "" || len(s) > maxPortName || strings.ContainsAny(s, `/!"\$?, `) || quote(s) != s {
				return "", errNoMatch
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// linkOf is the name of an interface of one of these kinds.
func linkOf(links ...netcfg.LinkType) kind[string] {
	k := portName()
	k.links = links
	return k
}

// portNameMatch matches the packets of an interface, or with "!" of all others.
func portNameMatch() kind[string] {
	return optional(negatable(portName()), "any")
}

// negatable makes k accept a "!" before the value.
func negatable(k kind[string]) kind[string] {
	parse := k.parse
	k.accepts = "[!]" + k.accepts
	k.parse = func(s string) (string, error) {
		body, not := strings.CutPrefix(s, "!")
		v, err := parse(body)
		if err == nil && not {
			v = "!" + v
		}
		return v, err
	}
	return k
}

// protocol is an IP protocol, by the name that RouterOS has for it, or by its number.
func protocol() kind[string] {
	names := match.RouterOSProtocols()
	k := optional(negatable(kind[string]{
		typ:     Enumeration,
		accepts: strings.Join(names, " | ") + " | 1..255",
		values:  names,
		parse: func(s string) (string, error) {
			n, err := decimal(s)
			if err != nil {
				full, err := oneOf(s, names...)
				return match.ProtocolFromRouterOS(full), err
			}
			if n < 1 || n > 255 { // to iptables 0 means all
				return "", rangeError{"1", "255"}
			}
			return match.ProtocolName(strconv.FormatInt(n, 10)), nil
		},
	}), "all")
	k.format = func(v string) string {
		body, not := strings.CutPrefix(v, "!")
		if body = match.ProtocolToRouterOS(body); not {
			body = "!" + body
		}
		return body
	}
	return k
}

// wordList is one or more of values, separated by commas, each at most once.
func wordList(values ...string) kind[string] {
	return optional(negatable(kind[string]{
		typ:     List,
		accepts: strings.Join(values, " | ") + ", or a list of them",
		values:  values,
		list:    true,
		parse: func(s string) (string, error) {
			items := strings.Split(s, ",")
			for i, item := range items {
				full, err := oneOf(item, values...)
				if err != nil {
					return "", err
				}
				if slices.Contains(items[:i], full) {
					return "", errNoMatch
				}
				items[i] = full
			}
			return strings.Join(items, ","), nil
		},
		format: func(v string) string { return v },
	}), "any")
}

// tcpFlags is one or more flags of TCP, separated by commas, each at most once and perhaps with "!" before it.
func tcpFlags() kind[string] {
	flags := firewall.TCPFlags
	return optional(kind[string]{
		typ:     List,
		accepts: strings.Join(flags, " | ") + `, or a list of them, "!" before each that is not set`,
		values:  flags,
		list:    true,
		parse: func(s string) (string, error) {
			items := strings.Split(s, ",")
			var named []string
			for i, item := range items {
				body, not := strings.CutPrefix(item, "!")
				full, err := oneOf(body, flags...)
				if err != nil {
					return "", err
				}
				if slices.Contains(named, full) {
					return "", errNoMatch
				}
				named = append(named, full)
				if items[i] = full; not {
					items[i] = "!" + full
				}
			}
			return strings.Join(items, ","), nil
		},
		format: func(v string) string { return v },
	}, "any")
}

// icmpOptions is an ICMP type with or without a code. To the kernel type 255 means any.
func icmpOptions() kind[string] {
	return optional(kind[string]{
		accepts: "type or type:code: 0..254, code 0..255",
		parse: func(s string) (string, error) {
			typ, code, hasCode := strings.Cut(s, ":")
			t, err := decimal(typ)
			if err != nil {
				return "", errors.New("not an ICMP type")
			}
			if t > 254 {
				return "", rangeError{"0", "254"}
			}
			out := strconv.FormatInt(t, 10)
			if hasCode {
				if code == "0-255" { // as RouterOS exports any code
					return out, nil
				}
				c, err := decimal(code)
				if err != nil {
					return "", errors.New("not an ICMP code")
				}
				if c > 255 {
					return "", rangeError{"0", "255"}
				}
				out += ":" + strconv.FormatInt(c, 10)
			}
			return out, nil
		},
		format: func(v string) string { return v },
	}, "any")
}

// hostName is an IPv4 address or the name of a host (RFC 1123).
func hostName() kind[string] {
	return kind[string]{
		accepts: "IP address or host name",
		parse: func(s string) (string, error) {
			if s == "" || len(s) > 253 || strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-.") != "" ||
				strings.HasPrefix(s, "-") {
				return "", errors.New("not a host")
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// hash is what Live.HashPassword returns.
func hash() kind[string] {
	return kind[string]{
		accepts: "hash of a password: 1..255 characters of a-z, A-Z, 0-9 and $./+=,-",
		unset:   "no password",
		parse: func(s string) (string, error) {
			if len(s) > 255 || strings.Trim(s, "$./+=,-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				return "", errors.New("not a hash")
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}
