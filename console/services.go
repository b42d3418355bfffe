package console

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/match"
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
	// byKey says that a user can log in with a key, without a password.
	byKey bool
}

// NetworkServices are all, in their order.
var NetworkServices = []NetworkService{
	{"ssh", "22", func(c *Config) *login.Config { return &c.SSH }, true},
	{"api", "8728", func(c *Config) *login.Config { return &c.API }, false},
	{"www", "80", func(c *Config) *login.Config { return &c.WWW }, false},
}

// Config is what is set of the service.
func (s NetworkService) Config(c Config) login.Config { return *s.of(&c) }

// Open reports whether the service listens: somebody can log in.
func (s NetworkService) Open(c Config) bool {
	return !s.of(&c).Disabled && (c.AdminPassword != "" || s.byKey && len(c.SSHKeys) > 0)
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

// TakeServices makes the services of other those of c.
func (c *Config) TakeServices(other Config) {
	for _, s := range NetworkServices {
		*s.of(c) = *s.of(&other)
	}
}

// Exposed returns a warning if anyone outside (openFrom) can reach the service, else "". A
// list of networks (address=) is a protection, unless one of them is all addresses.
func (s NetworkService) Exposed(c Config, wanPort string) string {
	all := func(p netip.Prefix) bool { return p.Bits() == 0 }
	config := s.Config(c)
	if !s.Open(c) || len(config.From) > 0 && !slices.ContainsFunc(config.From, all) {
		return ""
	}
	from := openFrom(c, wanPort, config.Port)
	if from == "" {
		return ""
	}
	return fmt.Sprintf("warning: anyone who reaches %s can try to log in: no filter rule of chain=input drops "+
		"dst-port=%d from there, and address= of /ip service %s keeps nobody out", from, config.Port, s.Name)
}

func serviceMenu() *menu {
	var names, ports []string
	for _, s := range NetworkServices {
		names, ports = append(names, s.Name), append(ports, s.port)
	}
	m := &menu{
		path: serviceMenuPath, help: "ways to manage the router over the network", ifUnknown: DisableLogins,
		commands: commandsLike(listCommands, "add remove move comment find", printLive), fixed: names,
		rows: (*execution).serviceRows, legend: "Flags: X - disabled, I - invalid", flags: []string{"XI"},
		columns: []column{{"name", 10}, {"port", 5}, {"proto", 5}, {"address", 18}, {"max-sessions", 0}}, rare: []string{"address"},
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
	m.properties[0].defs = ports
	return m
}

func sshKeysMenu() *menu {
	return &menu{
		path: "user ssh-keys", help: "public keys that users log in with by SSH, which then takes no password of theirs", ifUnknown: DisableLogins,
		commands: commandsLike(plainCommands(), "set unset comment"),
		items:    itemLists[sshKeyItems],
		rows:     (*execution).sshKeyRows,
		columns:  []column{{"user", 8}, {"info", 16}, {"fingerprint", 0}}, rare: []string{"info"},
		readOnly: []readOnly{
			{name: "key-type", help: "kind of key"},
			{name: "bits", help: "length of the key"},
			{name: "info", help: "what stands behind the key: its owner"},
			{name: "fingerprint", help: "hash of the key, as ssh-keygen -l shows it"},
		},
		properties: bindItems(sshKeys,
			prop("user", enum[string](Admin), "", "whose key it is", func(k *ssh.Key) *string { return &k.User }),
			prop("key", publicKey(), "", "the line of a file .pub: ssh-ed25519, the key, and its owner",
				func(k *ssh.Key) *ssh.PublicKey { return &k.Public }),
		),
	}
}

func sshKeys(c *Config) *[]ssh.Key { return &c.SSHKeys }

// publicKey is a key as OpenSSH writes it.
func publicKey() kind[ssh.PublicKey] {
	return kind[ssh.PublicKey]{
		accepts: "a line such as \"" + ssh.KeyType + " AAAA... name\"",
		parse: func(s string) (ssh.PublicKey, error) {
			k, err := ssh.ParseKey(s)
			if err != nil {
				return k, match.Refusal(err.Error())
			}
			return k, nil
		},
		format: ssh.PublicKey.String,
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

// sshKeyRows are the keys.
func (x *execution) sshKeyRows() ([]row, error) {
	rows := x.configured(x.menu("user ssh-keys"))
	for i := range rows {
		k := x.cfg.SSHKeys[i].Public
		rows[i].pairs = append(rows[i].pairs, wordPair("key-type", "ed25519"), numberPair("bits", 8*ssh.KeySize))
		if k.Owner != "" {
			rows[i].pairs = append(rows[i].pairs, textPair("info", k.Owner))
		}
		rows[i].pairs = append(rows[i].pairs, textPair("fingerprint", k.Fingerprint()))
	}
	return rows, nil
}
