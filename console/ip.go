package console

import (
	"fmt"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// This file has the menus of the kernel's own settings.

// https://help.mikrotik.com/docs/spaces/ROS/pages/103841817/IP+Settings
func ipSettingsMenu() *menu {
	return &menu{
		path: "ip settings", help: "how packets are treated as a whole",
		commands: singleCommands(), indent: 2,
		properties: bind(func(c *Config, _ int) *netcfg.Settings { return &c.Settings },
			prop("send-redirects", boolean(), "no", "whether hosts are told of a better gateway on their own network",
				func(s *netcfg.Settings) *bool { return &s.SendRedirects }),
			prop("accept-source-route", boolean(), "no", "whether packets go the way that their sender chose",
				func(s *netcfg.Settings) *bool { return &s.AcceptSourceRoute }),
			prop("accept-redirects", boolean(), "no", "whether other routers are believed that tell of a better gateway",
				func(s *netcfg.Settings) *bool { return &s.AcceptRedirects }),
			prop("secure-redirects", boolean(), "no", "whether they are believed only of gateways that have a route here",
				func(s *netcfg.Settings) *bool { return &s.SecureRedirects }),
			prop("rp-filter", enum[string](netcfg.RPFilterNo, netcfg.RPFilterLoose, netcfg.RPFilterStrict), netcfg.RPFilterStrict,
				"which packets are dropped for their source; strict: those that an answer would not go back to by the same interface; loose: those without any route back",
				func(s *netcfg.Settings) *string { return &s.RPFilter }),
			prop("tcp-syncookies", inverse(boolean()), "yes", "whether connections to the router are answered with cookies when too many are incomplete",
				func(s *netcfg.Settings) *bool { return &s.NoSYNCookies }),
		),
	}
}

// inverse is the kind of a setting whose field says the opposite.
func inverse(k kind[bool]) kind[bool] {
	parse, format := k.parse, k.format
	k.parse = func(s string) (bool, error) {
		v, err := parse(s)
		return !v, err
	}
	k.format = func(v bool) string { return format(!v) }
	return k
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/130220087/Connection+tracking
func trackingMenu() *menu {
	return &menu{
		path: "ip firewall connection tracking", help: "how long connections are remembered",
		commands: singleCommands(), indent: 2,
		properties: bind(func(c *Config, _ int) *firewall.Tracking { return &c.Tracking }, trackingFields()...),
		live:       (*execution).tableSize,
		readOnly: []readOnly{
			{name: "max-entries", help: "how many connections can be tracked, by the memory of the board"},
			{name: "total-entries", help: "how many are tracked"},
		},
	}
}

func trackingFields() []field[*firewall.Tracking] {
	var all []field[*firewall.Tracking]
	for i, t := range firewall.Timeouts {
		kind := duration(time.Second, firewall.MaxTimeout)
		all = append(all, prop(t.Name, kind, kind.format(t.Default), "how long a connection is remembered "+t.Help,
			func(c *firewall.Tracking) *time.Duration { return &c.Timeouts[i] }))
	}
	return append(all, prop("loose-tcp-tracking", inverse(boolean()), "yes", "whether connections are taken up in the middle, as those of before a restart",
		func(c *firewall.Tracking) *bool { return &c.Strict }))
}

// tableSize is how full the table of connections is.
func (x *execution) tableSize() ([]Pair, error) {
	if x.live.TableSize == nil {
		return nil, nil
	}
	entries, limit, err := x.live.TableSize()
	if err != nil {
		return nil, fmt.Errorf("read connection tracking: %w", err)
	}
	return []Pair{numberPair("max-entries", limit), numberPair("total-entries", entries)}, nil
}
