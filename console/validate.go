package console

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-router/postern/netcfg"
)

// Validate checks cfg as a whole, for a machine with these ports: that the language accepts
// every value, that every interface is a port, a bridge or a VLAN, and that packages
// firewall, netcfg and socks accept their parts. The error names the menu and the item,
// counted from 0.
func Validate(cfg Config, ports []string) error {
	var interfaces []string
	for _, name := range ports {
		interfaces = append(interfaces, cfg.Called(name))
	}
	interfaces = append(interfaces, cfg.createdLinks()...)
	for i, name := range interfaces {
		if slices.Contains(interfaces[:i], name) {
			return fmt.Errorf("failure: already have interface with such name: %s", name)
		}
	}
	check := cfg.Clone() // setting a value to itself checks it
	for _, m := range menus {
		count := 1
		if m.items != nil {
			if count = m.items.count(&check); count > m.items.max {
				return fmt.Errorf("/%s: more than %d items", m.path, m.items.max)
			}
		}
		for i := range count {
			for _, p := range m.properties {
				if p.hashed != nil {
					continue // it has no value
				}
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

func checkProperty(p property, cfg *Config, item int, interfaces []string) error {
	value := p.get(cfg, item)
	if err := p.set(cfg, item, value); err != nil {
		return err
	}
	if p.isInterface && value != "" && !slices.Contains(interfaces, strings.TrimPrefix(value, "!")) {
		return fmt.Errorf("input does not match any value of %s: %s; expected %s", p.name, value, strings.Join(interfaces, " | "))
	}
	return nil
}
