package console

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/ssh"
)

// This file has the menus of what the router is managed by over the network.
// https://help.mikrotik.com/docs/spaces/ROS/pages/103841820/Services
// https://help.mikrotik.com/docs/spaces/ROS/pages/132350014/SSH

const serviceMenuPath = "ip service"

// NetworkService is a service that users log in to over the network: a row of /ip service. Each is disabled
// unless a line enables it, and the boards' default configuration has such lines: a configuration from a
// version without the service, whose firewall may let everybody in, stays closed.
type NetworkService struct {
	Name, port string
	of         func(*Config) *login.Config
	// policy is what a user needs to log in. byKey says that a key will do, without a password.
	policy Policies
	byKey  bool
	// first says that, on a router without any password or key, who comes from the LAN may set the first one.
	first bool
	// tls says that it is the service of that policy over TLS.
	tls bool
}

// NetworkServices are all, in their order.
var NetworkServices = append([]NetworkService{
	{"ssh", "22", func(c *Config) *login.Config { return &c.SSH }, MaySSH, true, true, false},
	{"api", "8728", func(c *Config) *login.Config { return &c.API }, MayAPI, false, false, false},
	{"www", "80", func(c *Config) *login.Config { return &c.WWW }, MayWeb | MayREST, false, true, false},
}, tlsServices...)

// Config is what is set of the service.
func (s NetworkService) Config(c Config) login.Config { return *s.of(&c) }

// AllowsFrom reports whether a client may log in by a way (MaySSH and so on), over TLS or without, by address= of the service that it
// belongs to.
func (c Config) AllowsFrom(client netip.Addr, way Policies, tls bool) bool {
	return !slices.ContainsFunc(NetworkServices, func(s NetworkService) bool {
		return s.policy&way != 0 && s.tls == tls && !s.of(&c).Allows(client)
	})
}

// Open reports whether the service listens: somebody can log in, or set the first password.
func (s NetworkService) Open(c Config) bool {
	return s.letsIn(c) || s.first && s.works(c) && !c.HasSecret() && c.hasLAN()
}

// works reports whether the service is enabled, and has a certificate if it needs one.
func (s NetworkService) works(c Config) bool {
	return !s.of(&c).Disabled && (!s.tls || s.TLS(c).Key != "")
}

// TLS is the certificate of the service, with its key.
func (s NetworkService) TLS(c Config) login.TLS {
	name := s.of(&c).Certificate
	for _, t := range c.Certificates {
		if s.tls && t.Name == name {
			return login.TLS{Chain: t.Chain, Key: t.Key}
		}
	}
	return login.TLS{}
}

// letsIn reports whether the service is enabled and somebody can log in.
func (s NetworkService) letsIn(c Config) bool {
	return s.works(c) && (slices.ContainsFunc(c.Users, func(u User) bool { return u.Password != "" && c.May(u.Name)&s.policy != 0 }) ||
		s.byKey && slices.ContainsFunc(c.SSHKeys, func(k ssh.Key) bool { return c.May(k.User)&s.policy != 0 }))
}

// DisableServices disables all services that users log in to over the network, and reports whether one was
// enabled.
func (c *Config) DisableServices() (was bool) {
	for _, s := range NetworkServices {
		was = was || !s.of(c).Disabled
		s.of(c).Disabled = true
	}
	return was
}

// TakeServices makes the services of other those of c, with their certificates.
func (c *Config) TakeServices(other Config) {
	c.Certificates, c.ids[certificateItems] = slices.Clone(other.Certificates), slices.Clone(other.ids[certificateItems])
	for _, s := range NetworkServices {
		*s.of(c) = *s.of(&other)
	}
}

// Exposed returns a warning if anyone outside (openFrom) can reach the service, else "". A
// list of networks (address=) is a protection, unless one of them is all addresses.
func (s NetworkService) Exposed(c Config, wanPort string) string {
	all := func(p netip.Prefix) bool { return p.Bits() == 0 }
	config := s.Config(c)
	if !s.letsIn(c) || len(config.From) > 0 && !slices.ContainsFunc(config.From, all) {
		return ""
	}
	from := openFrom(c, wanPort, config.Port)
	if from == "" {
		return ""
	}
	return fmt.Sprintf("warning: anyone who reaches %s can try to log in: no filter rule of chain=input drops "+
		"dst-port=%d from there, and address= of /ip service %s keeps nobody out", from, config.Port, s.Name)
}

// FirstOpen returns a warning if whoever is on the LAN can set the first password, else "".
func FirstOpen(c Config) string {
	if !slices.ContainsFunc(NetworkServices, func(s NetworkService) bool { return s.Open(c) && !s.letsIn(c) }) {
		return ""
	}
	return "warning: no password and no key is set: whoever is on the LAN can set the first one; /password sets it"
}

func serviceMenu() *menu {
	var names, ports []string
	for _, s := range NetworkServices {
		names, ports = append(names, s.Name), append(ports, s.port)
	}
	m := serviceMenuOf(names, ports)
	m.properties = append(m.properties, serviceCertificate()...)
	m.properties[0].defs = ports
	return m
}

func serviceMenuOf(names, ports []string) *menu {
	return &menu{
		path: serviceMenuPath, help: "ways to manage the router over the network", ifUnknown: DisableLogins,
		commands: commandsLike(listCommands, "add remove move comment find", printLive), fixed: names,
		rows: (*execution).serviceRows, legend: "Flags: X - disabled, I - invalid", flags: []string{"XI"},
		columns: []column{{"name", 10}, {"port", 5}, {"proto", 5}, {"address", 18}, {"certificate", 12}, {"max-sessions", 0}}, rare: []string{"address", "certificate"},
		readOnly: []readOnly{
			{name: "name", help: "name of the service"},
			{name: "proto", help: "protocol below it"},
		},
		properties: bind(func(c *Config, i int) *login.Config { return NetworkServices[i].of(c) },
			prop("port", integer[uint16](1, 65535), ports[0], "port that it listens on",
				func(s *login.Config) *uint16 { return &s.Port }),
			prop("address", unsetMeans(listOf(network(), login.MaxPrefixes), "all"), "", "networks of those who may connect, besides what the firewall says",
				func(s *login.Config) *[]netip.Prefix { return &s.From }),
			prop("max-sessions", integer(1, login.MaxSessions), "4", "logins at once",
				func(s *login.Config) *int { return &s.MaxSessions }),
			prop("disabled", boolean(), "yes", "whether nobody can connect",
				func(s *login.Config) *bool { return &s.Disabled }),
		),
	}
}

// serviceRows are the services. One that nobody can log in to does not listen, and is invalid.
func (x *execution) serviceRows() ([]row, error) {
	var rows []row
	for i, s := range NetworkServices {
		r := row{id: fixedID(i), comment: s.Exposed(x.cfg, x.live.WAN), pairs: []Pair{textPair("name", s.Name), wordPair("proto", "tcp")}}
		for _, p := range x.menu(serviceMenuPath).properties {
			if v := p.value(&x.cfg, i); p.name != "disabled" && v.text != "" {
				r.pairs = append(r.pairs, Pair{p.name, v})
			}
		}
		switch {
		case s.Config(x.cfg).Disabled:
			r.flags = flagDisabled
		case !s.Open(x.cfg):
			r.flags = flagInvalid
		}
		rows = append(rows, r)
	}
	return rows, nil
}
