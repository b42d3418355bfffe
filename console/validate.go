package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/queue"
	"github.com/postern-router/postern/ssh"
)

// ValidateChange checks next, which a user wants instead of old, for a machine with these
// ports. It is Validate, and besides refuses what is new in next of what Validate lets pass,
// because kept configurations of earlier versions may have it: an address that is the one of
// its network or the broadcast address there, one address on two interfaces, and an entry of an address
// list or of /ip dns static or a key of a user twice: whoever removes one of them may take it for gone; a burst of a queue that is none; and a
// network on two interfaces of which one has arp=reply-only.
func ValidateChange(old, next Config, ports []string) error {
	if err := inUse(old, next); err != nil {
		return err
	}
	if err := validate(next, ports, old); err != nil {
		return nameNewRule(old, next, err)
	}
	if err := next.Firewall.CheckFilled(&old.Firewall); err != nil {
		return fmt.Errorf("/ip firewall: %w", err)
	}
	if i := newTwice(old.AddressLists, next.AddressLists, func(a ListedAddress) ListedAddress { return ListedAddress{List: a.List, Address: a.Address} }); i >= 0 {
		a := next.AddressLists[i]
		return fmt.Errorf("/ip firewall address-list %d: failure: already have such entry: %s in %s", i, a.Address, a.List)
	}
	if i := newTwice(old.SSHKeys, next.SSHKeys, func(k ssh.Key) ssh.Key { k.Public.Owner = ""; return k }); i >= 0 {
		return fmt.Errorf("/user ssh-keys %d: failure: already have such key of user %s", i, next.SSHKeys[i].User)
	}
	if i := newTwice(old.DNSServer.Static, next.DNSServer.Static, sameStatic); i >= 0 {
		s := next.DNSServer.Static[i]
		return fmt.Errorf("/ip dns static %d: failure: already have such entry: type=%s of %s", i, s.Type, cmp.Or(s.Name, s.Regexp))
	}
	for i := range next.Queues {
		q := &next.Queues[i]
		same := func(o queue.Simple) bool { return o.MaxLimit == q.MaxLimit && o.BurstLimit == q.BurstLimit }
		if err := q.CheckBurst(); err != nil && !slices.ContainsFunc(old.Queues, same) {
			return fmt.Errorf("/queue simple: %w", err)
		}
	}
	if a, b, shared := next.Network().NewSharedReplyOnly(old.Network()); shared {
		return fmt.Errorf("/ip address: %s on %s is in the network of %s too, whose arp=reply-only would close it on both: expected another network, or another mode of arp",
			b.Address, next.Called(b.Interface), next.Called(a.Interface))
	}
	for i, a := range next.Addresses {
		if a.Disabled {
			continue
		}
		if why := match.NotHost(a.Address); why != "" && next.more(old, func(b netcfg.Address) bool { return b.Address == a.Address }) {
			return fmt.Errorf("/ip address %d: address=%s: expected the address of a host, this is the %s", i, a.Address, why)
		}
		same := func(b netcfg.Address) bool { return b.Address.Addr() == a.Address.Addr() }
		for _, b := range next.Addresses[:i] {
			if !b.Disabled && same(b) && next.more(old, same) {
				return fmt.Errorf("/ip address %d: address=%s: expected each address on one interface, %s has %s already",
					i, a.Address, next.Called(b.Interface), b.Address)
			}
		}
	}
	return nil
}

// nameNewRule returns err without the number of a rule that next has and old has not: no print has shown that.
func nameNewRule(old, next Config, err error) error {
	var bad *firewall.RuleError
	if !errors.As(err, &bad) {
		return err
	}
	list := ruleItems(bad.Table)
	for i := range old.Firewall.Rules(bad.Table) {
		if old.idOf(list, i) == next.idOf(list, bad.Index) {
			return err
		}
	}
	return fmt.Errorf("/ip firewall %s, the new rule: %w", bad.Table, bad.Err)
}

// Numbered is an error of a rule with the number that the session's last print of its menu has shown: while SOCKS clients wait for
// connections, dynamic rules stand before the others there. cfg is the configuration that the error is about.
func (s *Session) Numbered(cfg Config, err error) error {
	var bad *firewall.RuleError
	if !errors.As(err, &bad) {
		return err
	}
	list := ruleItems(bad.Table)
	for path, keys := range s.numbers {
		m := (&execution{menus: menus()}).menu(path)
		if m.items != itemLists[list] {
			continue
		}
		if n := slices.Index(keys, key{id: cfg.idOf(list, bad.Index)}); n >= 0 && n != bad.Index {
			return fmt.Errorf("/ip firewall: %w", &firewall.RuleError{Table: bad.Table, Index: n, Err: bad.Err})
		}
	}
	return err
}

// newTwice returns the index of an item of next whose like stands before it and is not as often in old, or -1. Items
// are alike if of returns the same for them.
func newTwice[T any, K comparable](old, next []T, of func(T) K) int {
	if len(old) == len(next) && (len(old) == 0 || &old[0] == &next[0]) {
		return -1
	}
	// Mostly one item has changed: then nothing is counted but the likes of that.
	from, same := 0, 0
	for from < min(len(old), len(next)) && of(old[from]) == of(next[from]) {
		from++
	}
	for same < min(len(old), len(next))-from && of(old[len(old)-1-same]) == of(next[len(next)-1-same]) {
		same++
	}
	changed := map[K]int{} // those that have changed, and how often they are in old
	for _, item := range next[from : len(next)-same] {
		changed[of(item)] = 0
	}
	if len(changed) == 0 {
		return -1
	}
	for _, item := range old {
		if n, ok := changed[of(item)]; ok {
			changed[of(item)] = n + 1
		}
	}
	seen := map[K]int{}
	for i, item := range next {
		k := of(item)
		if n, ok := changed[k]; ok {
			if seen[k]++; seen[k] > max(1, n) {
				return i
			}
		}
	}
	return -1
}

// more reports whether cfg has more enabled addresses of that kind than old.
func (cfg Config) more(old Config, kind func(netcfg.Address) bool) bool {
	count := func(all []netcfg.Address) (n int) {
		for _, a := range all {
			if !a.Disabled && kind(a) {
				n++
			}
		}
		return n
	}
	return count(cfg.Addresses) > count(old.Addresses)
}

// Validate checks cfg as a whole, for a machine with these ports: that the language accepts
// every value, that every interface is a port, a bridge, a VLAN or a PPPoE client, and that packages
// firewall, netcfg and socks accept their parts. The error names the menu and the item,
// counted from 0.
func Validate(cfg Config, ports []string) error { return validate(cfg, ports, Config{}) }

// validate is Validate. before is the configuration before a change: the error of a bridge, VLAN
// or interface list that is missing, but was there, says what else has its name.
func validate(cfg Config, ports []string, before Config) error {
	var interfaces []namedLink
	for _, name := range ports {
		interfaces = append(interfaces, namedLink{netcfg.Ether, cfg.Called(name)})
	}
	for _, b := range cfg.Bridges {
		interfaces = append(interfaces, namedLink{netcfg.BridgeType, b.Name})
	}
	for _, v := range cfg.VLANs {
		interfaces = append(interfaces, namedLink{netcfg.VLANType, v.Name})
	}
	for _, c := range cfg.PPPoEClients {
		interfaces = append(interfaces, namedLink{netcfg.PPPType, c.Name})
	}
	for i, link := range interfaces {
		if has(interfaces[:i], link.name) {
			return fmt.Errorf("failure: already have interface with such name: %s", link.name)
		}
	}
	check := cfg.cloneSettings() // setting a value to itself checks it
	createdBefore, listsBefore := before.createdLinks(), before.listNames()
	for _, m := range menus() {
		count := 1
		if m.items != nil {
			if count = m.items.count(&check); count > m.items.max {
				return fmt.Errorf("/%s: more than %d items", m.path, m.items.max)
			}
		}
		stayed, cloned := func(int) bool { return false }, m.items == nil
		if m.items != nil {
			stayed = m.items.stayed(&before, &cfg)
		}
		refers := slices.ContainsFunc(m.properties, func(p property) bool { return p.isInterface || p.isList })
		for i := range count {
			checked := stayed(i) // before
			if checked && !refers {
				continue
			}
			of, at := &check, i
			switch {
			case checked || cloned:
			case m.items.long() && m.items.count(&before) > 0: // mostly one item has changed
				one := check
				m.items.arrange(&one, []int{i})
				of, at = &one, 0
			default:
				m.items.clone(&check)
				cloned = true
			}
			for _, p := range m.properties {
				if p.hashed != nil {
					continue // it has no value
				}
				var err error
				if !checked {
					err = p.set(of, at, p.get(of, at))
				}
				if err == nil && p.isInterface {
					err = p.checkInterface(&check, i, interfaces, createdBefore)
				}
				if err == nil && p.isList {
					err = p.checkList(&check, i, listsBefore)
				}
				if err != nil {
					if m.items == nil {
						return fmt.Errorf("/%s: %w", m.path, err)
					}
					return fmt.Errorf("/%s %d: %w", m.path, i, err)
				}
			}
		}
	}
	if err := cfg.checkUsers(); err != nil {
		return err
	}
	if err := cfg.checkCertificates(); err != nil {
		return err
	}
	if err := cfg.checkInterfaceLists(); err != nil {
		return err
	}
	if err := cfg.checkPPPoE(); err != nil {
		return err
	}
	if err := cfg.checkGateways(interfaces); err != nil {
		return err
	}
	if err := queue.Validate(cfg.Queues); err != nil {
		return fmt.Errorf("/queue simple: %w", err)
	}
	network := cfg.Network()
	var devices []netcfg.Port
	for _, name := range ports {
		devices = append(devices, netcfg.Port{Name: name, Device: name})
	}
	if err := network.Validate(devices); err != nil {
		return err
	}
	if err := cfg.Rules().Validate(); err != nil {
		return fmt.Errorf("/ip firewall: %w", err)
	}
	if err := cfg.DHCPServer.Validate(); err != nil {
		return err
	}
	if err := client.Validate(cfg.DHCPClients); err != nil {
		return fmt.Errorf("/ip dhcp-client: %w", err)
	}
	if err := cfg.checkStatic(); err != nil {
		return err
	}
	if err := cfg.Socks.Validate(); err != nil {
		return fmt.Errorf("/ip socks: %w", err)
	}
	return nil
}

// namedLink is the name of an interface that there is.
type namedLink struct {
	kind netcfg.LinkType
	name string
}

func has(all []namedLink, name string) bool {
	return slices.ContainsFunc(all, func(l namedLink) bool { return l.name == name })
}

// checkInterface returns the error of an interface that there is not: what there is instead,
// or what else uses one that was there before.
func (p property) checkInterface(cfg *Config, item int, interfaces []namedLink, before []string) error {
	value := p.get(cfg, item)
	names := interfacesIn(value)
	i := slices.IndexFunc(names, func(name string) bool { return !has(interfaces, name) })
	if i < 0 {
		return nil
	}
	name := names[i]
	if slices.Contains(before, name) {
		return fmt.Errorf("input does not match any value of %s: %s; it is in use by %s", p.name, value, strings.Join(cfg.itemsWith(func(p property, value string) bool {
			return p.isInterface && slices.Contains(interfacesIn(value), name)
		}), ", "))
	}
	var fitting []string
	for _, l := range interfaces {
		if p.names(l.kind) {
			fitting = append(fitting, l.name)
		}
	}
	if strings.HasPrefix(p.accepts, networkAccepted) {
		fitting = slices.Insert(fitting, 0, networkAccepted)
	}
	return fmt.Errorf("input does not match any value of %s: %s; expected %s", p.name, value,
		cmp.Or(strings.Join(fitting, " | "), "one that there is, and there is none"))
}

// itemsWith are the items with a property that has such a value, as "/interface bridge port 0
// (ether2)", counted from 0; the first of them only, if there are many.
func (cfg *Config) itemsWith(such func(p property, value string) bool) []string {
	const most = 4
	var users []string
	for _, m := range menus() {
		if m.items == nil {
			continue
		}
		for i := range m.items.count(cfg) {
			if !slices.ContainsFunc(m.properties, func(p property) bool { return such(p, p.get(cfg, i)) }) {
				continue
			}
			if len(users) == most {
				return append(users, "...")
			}
			users = append(users, fmt.Sprintf("/%s %d (%s)", m.path, i, m.properties[0].get(cfg, i)))
		}
	}
	return users
}
