package console

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/dhcp/client"
)

func dhcpClients(c *Config) *[]client.Config { return &c.DHCPClients }

// The menu /ip dhcp-client (https://help.mikrotik.com/docs/spaces/ROS/pages/24805500/DHCP).
var (
	renewLeases = command{name: "renew", help: "ask the servers for more time now", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
		able: hasClients, run: func(x *execution, m *menu, a arguments) error { return x.toClients(m, a, &x.result.Action.Renew) }}
	releaseLeases = command{name: "release", help: "give the addresses back, and ask for new ones", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
		able: hasClients, run: func(x *execution, m *menu, a arguments) error { return x.toClients(m, a, &x.result.Action.Release) }}
)

func dhcpClientMenu() *menu {
	return &menu{
		path: "ip dhcp-client", help: "addresses that a server gives the router",
		commands: commandsLike(listCommands, "move", renewLeases, releaseLeases),
		legend:   legendServer, flags: []string{"XI"}, items: itemLists[dhcpClientItems], rows: (*execution).dhcpClientRows,
		columns: []column{{"interface", 16}, {"use-peer-dns", 12}, {"add-default-route", 17}, {"status", 13}, {"address", 0}},
		properties: bindItems(dhcpClients,
			prop("interface", portName(), "", "interface that gets an address", func(c *client.Config) *string { return &c.Interface }),
			prop("add-default-route", enum[string](client.DefaultRouteYes, client.DefaultRouteNo, client.DefaultRouteSpecialClassless), client.DefaultRouteYes,
				"whether the server's gateway is the default route; special-classless: also beside other routes of the server",
				func(c *client.Config) *string { return &c.DefaultRoute }),
			prop("default-route-distance", integer(1, 255), "1", "distance of the server's routes", func(c *client.Config) *int { return &c.Distance }),
			prop("use-peer-dns", inverse(boolean()), "yes", "whether the server's name servers are asked", func(c *client.Config) *bool { return &c.NoPeerDNS }),
			prop("use-peer-ntp", inverse(boolean()), "yes", "whether the server's time servers are asked", func(c *client.Config) *bool { return &c.NoPeerNTP }),
			prop("dhcp-options", clientOptions(), client.OptionHostName+","+client.OptionClientID, "what the router says of itself",
				func(c *client.Config) *string { return &c.Options }),
			disabled(func(c *client.Config) *bool { return &c.Disabled }),
			comment(func(c *client.Config) *string { return &c.Comment }),
		),
		readOnly: []readOnly{
			{name: "status", help: "what the client does"},
			{name: "address", help: "address that it got"},
			{name: "gateway", help: "gateway that it was told"},
			{name: "dhcp-server", help: "server that gave the address"},
			{name: "primary-dns", help: "first name server"},
			{name: "secondary-dns", help: "second name server"},
			{name: "primary-ntp", help: "first time server"},
			{name: "secondary-ntp", help: "second time server"},
			{name: "expires-after", help: "time after which the address is lost if the server does not renew it"},
		},
	}
}

func hasClients(l Live) bool { return l.DHCPClients != nil }

// clientOptions is what a client can say of itself, or nothing.
func clientOptions() kind[string] {
	k := wordList(client.OptionHostName, client.OptionClientID)
	parse := k.parse
	k.accepts, k.unset = strings.TrimPrefix(k.accepts, "[!]"), "none"
	k.parse = func(s string) (string, error) {
		if strings.HasPrefix(s, "!") {
			return "", errNoMatch
		}
		return parse(s)
	}
	return k
}

// dhcpClientRows are the clients and what they do.
func (x *execution) dhcpClientRows() ([]row, error) {
	rows := x.configured(x.menu("ip dhcp-client"))
	if x.live.DHCPClients == nil {
		return rows, nil
	}
	states, err := x.live.DHCPClients()
	if err != nil {
		return nil, err
	}
	for i := range rows {
		r := &rows[i]
		// A line may have changed the clients since the states are of.
		n := slices.IndexFunc(states, func(s DHCPClientState) bool { return s.Interface == x.cfg.DHCPClients[i].Interface })
		if n < 0 || r.flags&flagDisabled != 0 {
			continue
		}
		s := states[n]
		if s.Slave {
			r.flags |= flagInvalid
			if r.comment == "" {
				r.comment = "DHCP client can not run on slave or passthrough interface!"
			}
		}
		r.pairs = append(r.pairs, wordPair("status", s.Status))
		if !s.Address.IsValid() {
			continue
		}
		r.pairs = append(r.pairs, textPair("address", s.Address.String()))
		for _, p := range []struct {
			name string
			all  []netip.Addr
		}{
			{"gateway", []netip.Addr{s.Gateway}}, {"dhcp-server", []netip.Addr{s.Server}},
			{"primary-dns", s.NameServers}, {"secondary-dns", s.NameServers[min(1, len(s.NameServers)):]},
			{"primary-ntp", s.TimeServers}, {"secondary-ntp", s.TimeServers[min(1, len(s.TimeServers)):]},
		} {
			if len(p.all) > 0 && p.all[0].IsValid() {
				r.pairs = append(r.pairs, addressPair(p.name, p.all[0]))
			}
		}
		if !s.Endless {
			r.pairs = append(r.pairs, durationPair("expires-after", s.Left.Truncate(time.Second)))
		}
	}
	return rows, nil
}

// toClients notes the interfaces of items.
func (x *execution) toClients(m *menu, a arguments, to *[]string) error {
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	for _, i := range indices {
		if x.cfg.DHCPClients[i].Disabled {
			return errors.New("failure: the client on " + x.cfg.Called(x.cfg.DHCPClients[i].Interface) + " is disabled")
		}
		*to = append(*to, x.cfg.DHCPClients[i].Interface)
	}
	return nil
}
