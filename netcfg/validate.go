package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Validate returns an error for the first item of c that a machine with these ports cannot
// have, whatever its kernel, or nil. The error names the item, the property with the
// refused value, and what was expected. Disabled items must be valid too, but they count
// as no duplicates of others.
func (c Config) Validate(ports []Port) error {
	if err := c.Settings.validate(); err != nil {
		return err
	}
	if err := c.validateLinks(ports); err != nil {
		return err
	}
	if err := c.validateBridgesAndVLANs(ports); err != nil {
		return err
	}
	if err := c.validateAddresses(c.interfaces(ports)); err != nil {
		return err
	}
	if err := c.validateTables(); err != nil {
		return err
	}
	if err := c.validateRules(c.interfaces(ports)); err != nil {
		return err
	}
	if err := c.validateARP(c.interfaces(ports)); err != nil {
		return err
	}
	if err := c.validateQueues(); err != nil {
		return err
	}
	return c.validateRoutes()
}

func (c Config) validateLinks(ports []Port) error {
	seen := map[string]bool{}
	for _, l := range c.Links {
		if err := checkPort(l.Name, ports); err != nil {
			return fmt.Errorf("link: name=%s: %w", l.Name, err)
		}
		if seen[l.Name] {
			return fmt.Errorf("link: name=%s: expected each port once", l.Name)
		}
		seen[l.Name] = true
		if err := checkMTU(l.MTU, "the driver's"); err != nil {
			return fmt.Errorf("link %s: mtu=%d: %w", l.Name, l.MTU, err)
		}
		if l.MAC[0]&1 != 0 {
			return fmt.Errorf("link %s: mac-address=%s: expected the address of one host, not of a group", l.Name, l.MAC)
		}
		if err := l.validateModes(); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	return nil
}

func (c Config) validateAddresses(interfaces []string) error {
	type place struct {
		link string
		ip   netip.Addr
	}
	seen := map[place]netip.Prefix{}
	for _, a := range c.Addresses {
		if err := checkAddress(a.Address); err != nil {
			return fmt.Errorf("address: address=%s: %w", a.Address, err)
		}
		if !slices.Contains(interfaces, a.Interface) {
			return fmt.Errorf("address %s: interface=%s: expected an interface (%s)", a.Address, a.Interface, strings.Join(interfaces, ", "))
		}
		if a.Disabled {
			continue
		}
		p := place{c.Actual(a.Interface), a.Address.Addr()}
		if old, ok := seen[p]; ok {
			return fmt.Errorf("address: address=%s: expected each address once, %s has %s already",
				a.Address, a.Interface, old)
		}
		seen[p] = a.Address
	}
	return nil
}

func (c Config) validateRoutes() error {
	type key struct {
		dst      netip.Prefix
		distance int
		table    uint8
	}
	seen := map[key]string{}
	for _, r := range c.Routes {
		d := r.Destination
		if !d.IsValid() || !d.Addr().Is4() {
			return fmt.Errorf("route: dst-address=%s: expected an IPv4 network, such as 10.0.0.0/8", d)
		}
		if d != d.Masked() {
			return fmt.Errorf("route: dst-address=%s: expected no bits beyond the prefix, such as %s", d, d.Masked())
		}
		if r.Type != "" && !slices.Contains(RouteTypes, r.Type) {
			return fmt.Errorf("route %s: type=%s: expected %s", d, r.Type, strings.Join(RouteTypes, ", "))
		}
		if r.Type == "" && r.Interface == "" && !r.Gateway.IsValid() {
			return fmt.Errorf("route %s: expected a gateway, which only type=%s does without", d, strings.Join(RouteTypes, " | "))
		}
		if g := r.Gateway; r.Type == "" && (r.Interface == "" || g.IsValid()) && (!g.Is4() || !isUnicast(g)) {
			return fmt.Errorf("route %s: gateway=%s: expected an IPv4 host address", d, addressText(g))
		}
		// The kernel would accept such a route and drop its packets.
		own := func(a Address) bool { return r.Type == "" && a.Address.Addr() == r.Gateway && !a.Disabled }
		if i := slices.IndexFunc(c.Addresses, own); i >= 0 {
			return fmt.Errorf("route %s: gateway=%s: expected a neighbour, %s has this address itself",
				d, r.Gateway, c.Addresses[i].Interface)
		}
		if r.PrefSrc.IsValid() && (!r.PrefSrc.Is4() || !isUnicast(r.PrefSrc)) {
			return fmt.Errorf("route %s: pref-src=%s: expected an IPv4 host address", d, r.PrefSrc)
		}
		if r.CheckGateway != "" && (r.CheckGateway != CheckPing && r.CheckGateway != CheckARP || r.Type == "" && !r.Gateway.IsValid()) {
			return fmt.Errorf("route %s: check-gateway=%s: expected %s or %s, and a gateway with an address", d, r.CheckGateway, CheckPing, CheckARP)
		}
		if c.table(r.Table) == 0 {
			return fmt.Errorf("route %s: routing-table=%s: expected %s", d, r.Table, c.tableNames())
		}
		if r.Distance < 1 || r.Distance > 255 {
			return fmt.Errorf("route %s: distance=%d: expected 1..255", d, r.Distance)
		}
		if r.Disabled {
			continue
		}
		k := key{d, r.Distance, c.table(r.Table)}
		if old, ok := seen[k]; ok {
			return fmt.Errorf("route %s: distance=%d: expected another distance, the route %s has this one",
				d, r.Distance, old)
		}
		seen[k] = r.way()
	}
	return nil
}

// way is where r leads, as errors show it.
func (r Route) way() string {
	switch {
	case r.Type != "":
		return "of type=" + r.Type
	case r.Gateway.IsValid():
		return "by " + r.Gateway.String()
	}
	return "by " + r.Interface
}

// addressText is an address as it is typed, "" if there is none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func checkPort(name string, ports []Port) error {
	var names []string
	for _, p := range ports {
		if p.Name == name {
			return nil
		}
		names = append(names, p.Name)
	}
	return fmt.Errorf("expected a port (%s)", strings.Join(names, ", "))
}

func checkAddress(p netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return errors.New("expected an IPv4 address with prefix length, such as 192.168.0.1/24")
	case p.Bits() == 0:
		return errors.New("expected a prefix length of 1..32")
	case !isUnicast(p.Addr()):
		return errors.New("expected a host address, neither unspecified, loopback, multicast nor broadcast")
	}
	return nil
}

func isUnicast(a netip.Addr) bool {
	return a.IsGlobalUnicast() || a.IsLinkLocalUnicast()
}

// checkPorts refuses names that the kernel would refuse, and names and devices that occur
// twice.
func checkPorts(ports []Port) error {
	names, devices := map[string]bool{}, map[string]bool{}
	for _, p := range ports {
		if err := checkName(p.Name); err != nil {
			return fmt.Errorf("port: name=%q: %w", p.Name, err)
		}
		if p.Device == "" {
			return fmt.Errorf("port %s: device=\"\": expected a path below /sys/devices or a kernel name", p.Name)
		}
		if _, err := filepath.Match(p.Device, ""); err != nil {
			return fmt.Errorf("port %s: device=%s: %w", p.Name, p.Device, err)
		}
		if names[p.Name] || devices[p.Device] {
			return fmt.Errorf("port %s: device=%s: expected each name and each device once", p.Name, p.Device)
		}
		names[p.Name], devices[p.Device] = true, true
	}
	return nil
}

// checkName refuses names that the kernel does not accept for a link.
func checkName(n string) error {
	bad := func(r rune) bool {
		return r == '/' || r == ':' || r == '%' || unicode.IsSpace(r) || unicode.IsControl(r)
	}
	// 15 bytes: IFNAMSIZ less the terminating zero.
	if n == "" || len(n) > 15 || n == "." || n == ".." || n == "lo" || strings.ContainsFunc(n, bad) {
		return errors.New("expected an interface name of 1..15 bytes")
	}
	return nil
}

func checkMTU(mtu int, unset string) error {
	if mtu != 0 && (mtu < 68 || mtu > 65535) {
		return fmt.Errorf("expected 68..65535, or 0 for %s", unset)
	}
	return nil
}
