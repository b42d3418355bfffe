package console

import (
	"slices"

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

func socksUsersMenu() *menu {
	return &menu{
		path: "ip socks users", help: "users of the SOCKS server, with version=5 and auth-method=password",
		commands: commandsLike(listCommands, "move"),
		legend:   legendItem, flags: flagsItem,
		items: itemLists[socksUserItems],
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

// bitRate is bits per second as RouterOS writes them: 512k, 10M. Unset, or 0, is no limit.
func bitRate() kind[uint64] {
	return kind[uint64]{
		typ:     Integer,
		accepts: "bits per second: 1k..10G, k, M and G being 1000, 1000000 and 1000000000",
		unset:   "no limit",
		parse: func(s string) (uint64, error) {
			n, err := socks.ParseRate(s)
			if err != nil {
				return 0, err
			}
			if n != 0 && (n < socks.MinRateLimit || n > socks.MaxRateLimit) {
				return 0, rangeError{socks.FormatRate(socks.MinRateLimit), socks.FormatRate(socks.MaxRateLimit)}
			}
			return n, nil
		},
		format: func(v uint64) string {
			if v == 0 {
				return ""
			}
			return socks.FormatRate(v)
		},
	}
}

// socksWarnings are printed below the screen of /ip socks.
func (x *execution) socksWarnings() []string {
	return slices.DeleteFunc([]string{UnusableSOCKS(x.cfg), ExposedSOCKS(x.cfg, x.live.WAN)}, func(text string) bool { return text == "" })
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
