package console

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/socks"
)

// This file has what version 5 of SOCKS adds to the menus: who may use the server.
// https://help.mikrotik.com/docs/spaces/ROS/pages/73826308/SOCKS

// socksVersionProperties are the properties of /ip socks that the manual's screens do not have,
// which are of version 4.
func socksVersionProperties() []property {
	all := bind(func(c *Config, _ int) *socks.Config { return &c.Socks },
		prop("version", socksVersion(), "4", "version of the protocol; 5 has passwords",
			func(s *socks.Config) *int { return &s.Version }),
		prop("auth-method", enum[socks.AuthMethod](string(socks.AuthNone), string(socks.AuthPassword)), string(socks.AuthNone),
			"how clients of version 5 say who they are; password: as a user of /ip socks users",
			func(s *socks.Config) *socks.AuthMethod { return &s.AuthMethod }),
		prop("udp", boolean(), "no", "whether clients of version 5 may send and receive datagrams (not in RouterOS)",
			func(s *socks.Config) *bool { return &s.UDP }),
	)
	for i := range all {
		all[i].detail = true
	}
	return all
}

var socksUsersMenu = &menu{
	path: "ip socks users", help: "users of the SOCKS server, with version=5 and auth-method=password",
	commands: []command{addItem, setItems, removeItems, enableItems, disableItems, commentItems, findItems, printItems},
	legend:   legendItem, flags: flagsItem,
	items: itemLists[userItems],
	properties: append(append(
		bindItems(socksUsers, prop("name", text(1, 255), "", "name to log in with",
			func(u *socks.User) *string { return &u.Name })),
		// RFC 1929, section 2: a name and a password have 1..255 bytes.
		passwordProperties(func(c *Config, i int) *string { return &c.Socks.Users[i].Password }, text(1, 255),
			"password to log in with; its hash is kept, and it is never shown", "password= is given instead")...),
		bindItems(socksUsers,
			prop("only-one", boolean(), "no", "whether the user can have one connection at a time only",
				func(u *socks.User) *bool { return &u.OnlyOne }),
			prop("rate-limit", bitRate(), "", "bits per second that all connections of the user move together, each way",
				func(u *socks.User) *uint64 { return &u.RateLimit }),
			disabled(func(u *socks.User) *bool { return &u.Disabled }),
			comment(func(u *socks.User) *string { return &u.Comment }),
		)...),
	columns: []column{{"name", 24}, {"only-one", 8}, {"rate-limit", 0}}, rare: []string{"rate-limit"},
}

// socksVersion is 4 or 5.
func socksVersion() kind[int] {
	k := integer(4, 5)
	k.accepts, k.values = "4 | 5", []string{"4", "5"}
	parse := k.parse
	k.parse = func(s string) (int, error) {
		n, err := parse(s)
		if err != nil {
			return 0, errNoMatch
		}
		return n, nil
	}
	return k
}

// minRate and maxRate are the range of a rate, in bits per second.
const (
	minRate = 1_000
	maxRate = 10_000_000_000
)

// bitRate is bits per second as RouterOS writes them: 512k, 10M. Unset, or 0, is no limit.
func bitRate() kind[uint64] {
	return kind[uint64]{
		typ:     Integer,
		accepts: "bits per second: 1k..10G, k, M and G being 1000, 1000000 and 1000000000",
		unset:   "no limit",
		parse: func(s string) (uint64, error) {
			n, err := parseScaled(s)
			if err != nil {
				return 0, err
			}
			if n != 0 && (n < minRate || n > maxRate) {
				return 0, rangeError{formatScaled(minRate), formatScaled(maxRate)}
			}
			return n, nil
		},
		format: func(v uint64) string {
			if v == 0 {
				return ""
			}
			return formatScaled(v)
		},
	}
}

// scales are the letters behind a number and what they multiply it by, the greatest first.
var scales = []struct {
	letter string
	factor uint64
}{{"G", 1_000_000_000}, {"M", 1_000_000}, {"k", 1_000}}

// parseScaled parses a number that has k, M or G behind it or not. It is an error if the result
// is 2^53 or more.
func parseScaled(s string) (uint64, error) {
	factor := uint64(1)
	for _, scale := range scales {
		if number, ok := strings.CutSuffix(s, scale.letter); ok {
			s, factor = number, scale.factor
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 53)
	if err != nil {
		return 0, err
	}
	if n > 1<<53/factor {
		return 0, errors.New("number too large")
	}
	return n * factor, nil
}

// formatScaled writes a number other than 0 with the greatest letter that needs no fraction.
func formatScaled(n uint64) string {
	for _, scale := range scales {
		if n%scale.factor == 0 {
			return strconv.FormatUint(n/scale.factor, 10) + scale.letter
		}
	}
	return strconv.FormatUint(n, 10)
}

// socksWarnings are printed below the screen of /ip socks.
func (x *execution) socksWarnings() []string {
	return slices.DeleteFunc([]string{UnusableSOCKS(x.cfg), x.exposure()}, func(text string) bool { return text == "" })
}

// UnusableSOCKS returns a warning if the SOCKS server runs and its passwords let nobody in, or are
// not asked for; else "".
func UnusableSOCKS(c Config) string {
	s := c.Socks
	switch {
	case !s.Enabled || s.AuthMethod != socks.AuthPassword:
		return ""
	case s.Version != 5:
		return "warning: auth-method=password has no effect with version=4, which has no passwords"
	}
	for _, u := range s.Users {
		if !u.Disabled {
			return ""
		}
	}
	return "warning: nobody can use this server: auth-method=password, and /ip socks users has no user that is enabled"
}
