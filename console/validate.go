package console

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// Validate checks cfg as a whole, for a machine that has these ports: that every
// value is one which the language takes, that interfaces are ports of the machine, bridges or VLANs,
// and what firewall, netcfg and socks ask of their parts. The error names the menu
// and, from 0, the item.
func Validate(cfg Config, ports []string) error {
	var interfaces []string
	for _, name := range ports {
		interfaces = append(interfaces, cfg.Called(name))
	}
	interfaces = append(interfaces, cfg.made()...)
	for i, name := range interfaces {
		if slices.Contains(interfaces[:i], name) {
			return fmt.Errorf("failure: already have interface with such name: %s", name)
		}
	}
	check := cfg.Clone() // setting a value to itself checks it
	for _, m := range menus {
		count := 1
		if m.items != nil {
			count = m.items.count(&check)
		}
		if count > MaxItems {
			return fmt.Errorf("/%s: more than %d items", m.path, MaxItems)
		}
		for i := range count {
			for _, p := range m.properties {
				if err := checkProperty(p, &check, i, interfaces); err != nil {
					if m.items == nil {
						return fmt.Errorf("/%s: %w", m.path, err)
					}
					return fmt.Errorf("/%s %d: %w", m.path, i, err)
				}
			}
		}
	}
	network := cfg.Network()
	var devices []netcfg.Port
	for _, name := range ports {
		devices = append(devices, netcfg.Port{Name: name, Device: name})
	}
	if err := network.Validate(devices); err != nil {
		return err
	}
	if err := cfg.Firewall.Validate(); err != nil {
		return fmt.Errorf("/ip firewall: %w", err)
	}
	if err := cfg.Socks.Validate(); err != nil {
		return fmt.Errorf("/ip socks: %w", err)
	}
	return nil
}

// Network is the part of cfg that netcfg applies. It forwards nothing yet.
func (cfg Config) Network() netcfg.Config {
	var links []netcfg.Link
	for _, p := range cfg.Links {
		links = append(links, p.Link)
	}
	return netcfg.Config{
		Links: links, Bridges: cfg.Bridges, VLANs: cfg.VLANs, BridgePorts: cfg.BridgePorts,
		Addresses: cfg.Addresses, Routes: cfg.Routes,
	}
}

// Rules is the part of cfg that firewall applies. A rule by a port of a bridge is one
// by that bridge, as an address of such a port is the bridge's: the packets come in by
// the bridge, and a rule that matched nothing any more might lock the LAN out, or let
// in what it was to drop.
func (cfg Config) Rules() firewall.Config {
	network := cfg.Network()
	actual := func(rules []firewall.Rule) []firewall.Rule {
		rules = slices.Clone(rules)
		for i := range rules {
			for _, name := range []*string{&rules[i].InInterface, &rules[i].OutInterface} {
				body, not := strings.CutPrefix(*name, "!")
				if *name = network.Actual(body); not {
					*name = "!" + *name
				}
			}
		}
		return rules
	}
	return firewall.Config{Filter: actual(cfg.Firewall.Filter), NAT: actual(cfg.Firewall.NAT)}
}

// Called is what users call an interface.
func (cfg Config) Called(name string) string {
	for _, p := range cfg.Links {
		if p.Name == name && p.Renamed != "" {
			return p.Renamed
		}
	}
	return name
}

// device is the interface that users call so: of a port the board's name for it. It is
// "" if name was that of a port which is called otherwise now.
func (cfg Config) device(name string) string {
	for _, p := range cfg.Links {
		if p.Renamed == name && name != "" {
			return p.Name
		}
	}
	if cfg.Called(name) != name {
		return ""
	}
	return name
}

func checkProperty(p property, cfg *Config, item int, interfaces []string) error {
	value := p.get(cfg, item)
	if err := p.set(cfg, item, value); err != nil {
		return err
	}
	if p.names && value != "" && !slices.Contains(interfaces, strings.TrimPrefix(value, "!")) {
		return fmt.Errorf("input does not match any value of %s: %s; expected %s", p.name, value, strings.Join(interfaces, " | "))
	}
	return nil
}
