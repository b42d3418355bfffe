package console

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/dns"
)

// This file has the menus of name servers. https://help.mikrotik.com/docs/spaces/ROS/pages/37748767/DNS

func staticNames(c *Config) *[]dns.Static { return &c.DNSServer.Static }

var (
	dnsMenu = &menu{
		path: "ip dns", help: "name servers that the router asks, and the one that it is",
		commands: unsetCommands, indent: 2,
		properties: bind(func(c *Config, _ int) *Config { return c },
			// resolv.conf(5): three servers are used.
			prop("servers", addressList(3), "", "name servers, asked in this order",
				func(c *Config) *[]netip.Addr { return &c.DNS }),
			prop("allow-remote-requests", boolean(), "no", "whether the router answers questions of others",
				func(c *Config) *bool { return &c.DNSServer.Enabled }),
			prop("max-udp-packet-size", integer(50, 65507), "4096", "bytes of an answer over UDP; more than 1232 are never sent",
				func(c *Config) *int { return &c.DNSServer.MaxUDP }),
			prop("query-server-timeout", duration(100*time.Millisecond, time.Minute), "2s", "how long one server is waited for",
				func(c *Config) *time.Duration { return &c.DNSServer.ServerTimeout }),
			prop("query-total-timeout", duration(100*time.Millisecond, time.Minute), "10s", "how long all of them are waited for",
				func(c *Config) *time.Duration { return &c.DNSServer.TotalTimeout }),
			prop("max-concurrent-queries", integer(1, dns.MaxQueries), "100", "questions that wait for an answer",
				func(c *Config) *int { return &c.DNSServer.MaxQueries }),
			prop("max-concurrent-tcp-sessions", integer(1, dns.MaxSessions), "20", "TCP connections of clients",
				func(c *Config) *int { return &c.DNSServer.MaxSessions }),
			prop("cache-size", kibibytes(64, dns.MaxCacheSize), "2048KiB", "memory for answers", func(c *Config) *int { return &c.DNSServer.CacheSize }),
			prop("cache-max-ttl", duration(time.Second, 52*7*24*time.Hour), "1w", "how long an answer is kept at most",
				func(c *Config) *time.Duration { return &c.DNSServer.MaxTTL }),
		),
	}
	dnsStaticMenu = &menu{
		path: "ip dns static", help: "names that the router knows by itself",
		commands: listCommands, legend: legendItem, flags: []string{"X"},
		items:   itemLists[dnsStaticItems],
		columns: []column{{"name", 24}, {"type", 8}, {"address", 15}, {"ttl", 0}}, rare: []string{"address"},
		properties: bindItems(staticNames,
			prop("name", staticName(), "", "the name", func(s *dns.Static) *string { return &s.Name }),
			prop("type", enum[string](dns.Types...), "A", "what is known: an address, an alias, which server to ask, that there is no such name, a text",
				func(s *dns.Static) *string { return &s.Type }),
			prop("address", optional(address(), "none"), "", "address, for type A", func(s *dns.Static) *netip.Addr { return &s.Address }),
			prop("cname", optional(staticName(), "none"), "", "name that it is an alias of, for type CNAME", func(s *dns.Static) *string { return &s.CNAME }),
			prop("forward-to", optional(address(), "none"), "", "server to ask, for type FWD", func(s *dns.Static) *netip.Addr { return &s.ForwardTo }),
			prop("text", text(0, dns.MaxText), "", "the text, for type TXT", func(s *dns.Static) *string { return &s.Text }),
			prop("ttl", duration(0, 52*7*24*time.Hour), "1d", "how long clients keep it", func(s *dns.Static) *time.Duration { return &s.TTL }),
			prop("match-subdomain", boolean(), "no", "whether it is for all names below this one too", func(s *dns.Static) *bool { return &s.MatchSubdomain }),
			disabled(func(s *dns.Static) *bool { return &s.Disabled }),
			comment(func(s *dns.Static) *string { return &s.Comment }),
		),
	}
)

// staticName is a name in the DNS: labels of 1..63 bytes, with dots between them.
func staticName() kind[string] {
	return kind[string]{
		accepts: "domain name",
		parse: func(s string) (string, error) {
			if len(s) > dns.MaxName {
				return "", errors.New("too long")
			}
			for label := range strings.SplitSeq(s, ".") {
				if label == "" || len(label) > dns.MaxLabel ||
					strings.Trim(label, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "" {
					return "", errors.New("not a name")
				}
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// kibibytes is a size of low..high KiB.
func kibibytes(low, high int) kind[int] {
	k := integer(low, high)
	number := k.parse
	k.accepts = "size: " + strconv.Itoa(low) + "KiB.." + strconv.Itoa(high) + "KiB"
	k.typ = Text
	k.parse = func(s string) (int, error) {
		return number(strings.TrimSuffix(s, "KiB"))
	}
	k.format = func(v int) string { return strconv.Itoa(v) + "KiB" }
	return k
}

// checkStatic refuses static names that lack what their type is about.
func (cfg Config) checkStatic() error {
	for i, s := range cfg.DNSServer.Static {
		lacks := ""
		switch {
		case s.Type == "A" && !s.Address.IsValid():
			lacks = "address"
		case s.Type == "CNAME" && s.CNAME == "":
			lacks = "cname"
		case s.Type == "FWD" && !s.ForwardTo.IsValid():
			lacks = "forward-to"
		}
		if lacks != "" {
			return fmt.Errorf("/ip dns static %d: type=%s needs %s", i, s.Type, lacks)
		}
	}
	return nil
}
