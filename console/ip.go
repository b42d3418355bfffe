package console

import (
	"github.com/postern-router/postern/netcfg"
)

// This file has the menus of the kernel's own settings.

// https://help.mikrotik.com/docs/spaces/ROS/pages/103841817/IP+Settings
var ipSettingsMenu = &menu{
	path: "ip settings", help: "how packets are treated as a whole",
	commands: singleCommands, indent: 2,
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
