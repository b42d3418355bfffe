package console

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/pppoe"
	"github.com/postern-router/postern/queue"
	"github.com/postern-router/postern/socks"
	"github.com/postern-router/postern/ssh"
)

// The lists of a configuration.
const (
	linkItems = iota
	addressItems
	routeItems
	filterItems
	natItems
	accessItems
	bridgeItems
	vlanItems
	bridgePortItems
	bridgeVLANItems
	logItems
	interfaceListItems
	listMemberItems
	dhcpClientItems
	poolItems
	dhcpServerItems
	dhcpNetworkItems
	dhcpLeaseItems
	dhcpOptionItems
	dnsStaticItems
	ntpServerItems
	sshKeyItems
	pppoeItems
	mangleItems
	routingTableItems
	routingRuleItems
	rawItems
	groupItems
	userItems
	arpItems
	queueItems
	certificateItems
	addressListItems // the last two: they can have more than MaxItems, see placeID
	socksUserItems
	lists
)

// items gives access to a list of the configuration. Lists are made anew: others may still read the old one.
type items struct {
	list   int // its IDs are Config.ids[list]
	access itemAccess
	// max is how many items there can be.
	max int
	// removing is told of an item before it is removed, if it is not nil.
	removing func(*Config, int)
}

// itemAccess is how items reach a list of whatever type.
type itemAccess struct {
	count func(*Config) int
	add   func(*Config) // at the end
	// at returns a pointer to an item.
	at func(c *Config, i int) any
	// pick returns a new list, of copies: for each n of order item n or, if n is negative, item ^n of more, which is
	// a list that pick returned. set makes such a list that of c.
	pick func(c *Config, more any, order []int) any
	set  func(c *Config, picked any)
	// share gives c the list of other.
	share func(c, other *Config)
}

// itemLists are the lists of a configuration. Menus, Clone and IDs all go by this table.
var itemLists = [lists]*items{
	linkItems:          itemsOf(linkItems, links, nil),
	addressItems:       itemsOf(addressItems, addresses, nil),
	routeItems:         itemsOf(routeItems, routes, nil),
	filterItems:        rulesItems(firewall.Filter),
	natItems:           rulesItems(firewall.NAT),
	accessItems:        itemsOf(accessItems, accessRules, cloneAccessRule),
	bridgeItems:        itemsOf(bridgeItems, bridges, nil),
	vlanItems:          itemsOf(vlanItems, vlans, nil),
	bridgePortItems:    itemsOf(bridgePortItems, bridgePorts, nil),
	bridgeVLANItems:    itemsOf(bridgeVLANItems, bridgeVLANs, cloneBridgeVLAN),
	logItems:           itemsOf(logItems, logRules, nil),
	interfaceListItems: itemsOf(interfaceListItems, interfaceLists, nil),
	listMemberItems:    itemsOf(listMemberItems, listMembers, nil),
	dhcpClientItems:    itemsOf(dhcpClientItems, dhcpClients, nil),
	poolItems:          atMost(64, itemsOf(poolItems, pools, clonePool)),
	dhcpServerItems:    atMost(server.MaxLinks, itemsOf(dhcpServerItems, dhcpServers, nil)),
	dhcpNetworkItems:   atMost(64, itemsOf(dhcpNetworkItems, dhcpNetworks, cloneNetwork)),
	dhcpLeaseItems:     itemsOf(dhcpLeaseItems, staticLeases, cloneLease),
	dhcpOptionItems:    atMost(64, itemsOf(dhcpOptionItems, dhcpServerOptions, nil)),
	dnsStaticItems:     atMost(dns.MaxStatic, itemsOf(dnsStaticItems, staticNames, nil)),
	ntpServerItems:     atMost(ntp.MaxServers, itemsOf(ntpServerItems, ntpServers, nil)),
	sshKeyItems:        atMost(ssh.MaxKeys, itemsOf(sshKeyItems, sshKeys, nil)),
	pppoeItems:         atMost(pppoe.MaxClients, itemsOf(pppoeItems, pppoeClients, nil)),
	mangleItems:        rulesItems(firewall.Mangle),
	rawItems:           rulesItems(firewall.Raw),
	groupItems:         atMost(maxUserGroups, itemsOf(groupItems, groups, nil)),
	userItems:          usersWithKeys(),
	certificateItems:   atMost(certificate.MaxCertificates, itemsOf(certificateItems, certificates, cloneCertificate)),
	routingTableItems:  atMost(maxTables, itemsOf(routingTableItems, routingTables, nil)),
	routingRuleItems:   itemsOf(routingRuleItems, routingRules, nil),
	arpItems:           itemsOf(arpItems, arpEntries, nil),
	queueItems:         atMost(queue.MaxQueues, itemsOf(queueItems, queues, nil)),
	addressListItems:   atMost(firewall.MaxAddresses, itemsOf(addressListItems, addressLists, nil)),
	socksUserItems:     atMost(socks.MaxUsers, itemsOf(socksUserItems, socksUsers, nil)),
}

func certificates(c *Config) *[]certificate.Certificate { return &c.Certificates }

func cloneCertificate(c *certificate.Certificate) { c.AltNames = slices.Clone(c.AltNames) }

func rulesItems(t firewall.Table) *items {
	return itemsOf(ruleItems(t), func(c *Config) *[]firewall.Rule { return rulesOf(c, t) }, cloneFirewallRule)
}

func atMost(count int, i *items) *items {
	i.max = count
	return i
}

func cloneFirewallRule(r *firewall.Rule) { clonePorts(&r.SrcPort, &r.DstPort, &r.Port, &r.ToPorts) }

func cloneAccessRule(r *socks.Rule) { clonePorts(&r.SrcPort, &r.DstPort) }

func clonePorts(ports ...*match.Ports) {
	for _, p := range ports {
		p.Ranges = slices.Clone(p.Ranges)
	}
}

// itemsOf gives access to the list that of returns. cloneItem replaces what a copied item
// still shares with the original; it is nil if there is nothing.
//
// It is in the program once for each type of items: what needs not know the type are methods of items.
func itemsOf[T any](list int, of func(*Config) *[]T, cloneItem func(*T)) *items {
	return &items{list: list, max: MaxItems, access: itemAccess{
		count: func(c *Config) int { return len(*of(c)) },
		add: func(c *Config) {
			var zero T
			*of(c) = append(*of(c), zero)
		},
		at: func(c *Config, i int) any { return &(*of(c))[i] },
		pick: func(c *Config, more any, order []int) any {
			brought, _ := more.([]T)
			picked := make([]T, len(order))
			for i, from := range order {
				if from < 0 {
					picked[i] = brought[^from]
				} else {
					picked[i] = (*of(c))[from]
				}
				if cloneItem != nil {
					cloneItem(&picked[i])
				}
			}
			return picked
		},
		set: func(c *Config, picked any) {
			if *of(c) = picked.([]T); len(*of(c)) == 0 {
				*of(c) = nil // as it was before the first was added
			}
		},
		share: func(c, other *Config) { *of(c) = *of(other) },
	}}
}

func (l *items) count(c *Config) int { return l.access.count(c) }

// long reports whether the list can be so long that it is worth not to copy it for each line: rules, and addresses of lists.
func (l *items) long() bool {
	switch l.list {
	case filterItems, natItems, mangleItems, rawItems, addressListItems:
		return true
	}
	return false
}

// own makes a list that c has borrowed its own, before an item of it is changed in place.
func (l *items) own(c *Config) {
	if c.borrowed != nil && c.borrowed[l.list] {
		c.borrowed[l.list] = false
		l.clone(c)
	}
}

// owning makes the properties of items of a long list own it before they change one.
func owning(all []*menu) []*menu {
	for _, m := range all {
		if m.items == nil || !m.items.long() {
			continue
		}
		m.properties = slices.Clone(m.properties)
		for i := range m.properties {
			set := m.properties[i].set
			m.properties[i].set = func(c *Config, item int, value string) error {
				m.items.own(c)
				return set(c, item, value)
			}
		}
	}
	return all
}

func (l *items) ids(c *Config) *[]ID { return &c.ids[l.list] }

func (l *items) add(c *Config) {
	l.own(c)
	l.access.add(c)
	c.ids[l.list] = append(c.ids[l.list], newID())
}

// arrange makes a list of items of c in another order.
func (l *items) arrange(c *Config, order []int) { l.access.set(c, l.access.pick(c, nil, order)) }

// move removes an item and inserts it so that its index is to.
func (l *items) move(c *Config, from, to int) {
	l.arrange(c, moved(upTo(l.count(c)), from, to))
	c.ids[l.list] = moved(c.ids[l.list], from, to)
}

func (l *items) remove(c *Config, i int) {
	if l.removing != nil {
		l.removing(c, i)
	}
	l.arrange(c, removed(upTo(l.count(c)), i))
	c.ids[l.list] = removed(c.ids[l.list], i)
}

func (l *items) clone(c *Config) { l.arrange(c, upTo(l.count(c))) }

// same reports whether item i of c and item j of other have the same settings.
func (l *items) same(c, other *Config, i, j int) bool {
	a, b := l.access.at(c, i), l.access.at(other, j)
	switch a := a.(type) { // there are so many of these that reflection would take a while
	case *ListedAddress:
		return *a == *b.(*ListedAddress)
	case *firewall.Rule:
		return a.Equal(b.(*firewall.Rule))
	}
	return reflect.DeepEqual(a, b)
}

// shared reports whether c and other have one list in memory, as they do where a change has left it alone.
func (l *items) shared(c, other *Config) bool {
	n := l.count(c)
	return n == l.count(other) && (n == 0 || l.access.at(c, 0) == l.access.at(other, 0))
}

// share makes each list of c that says the same as that of other, with the same IDs, one with it in memory: then nobody
// compares them again. Neither may be changed in place.
func (c *Config) share(other Config) {
	other = other.identified()
	for list, l := range itemLists {
		if l.shared(c, &other) || !slices.Equal(c.ids[list], other.ids[list]) {
			continue
		}
		same := true
		for i := 0; same && i < l.count(c); i++ {
			same = l.same(c, &other, i, i)
		}
		if same {
			l.access.share(c, &other)
		}
	}
}

// take returns copies of items, for a listDelta.
func (l *items) take(c *Config, which []int) any { return l.access.pick(c, nil, which) }

// replace makes c the list that a listDelta leads to. It reports false if c has not the items that it needs.
func (l *items) replace(c *Config, part listDelta) bool {
	had := c.ids[l.list]
	at, from := 0, part.at+part.count
	order := upTo(part.at)
	for i, id := range part.ids {
		if at < len(part.brought) && part.brought[at] == i {
			order = append(order, ^at)
			at++
			continue
		}
		place := slices.Index(had[part.at:from], id)
		if place < 0 {
			return false
		}
		order = append(order, part.at+place)
	}
	for i := from; i < l.count(c); i++ {
		order = append(order, i)
	}
	l.access.set(c, l.access.pick(c, part.items, order))
	c.ids[l.list] = slices.Concat(had[:part.at], part.ids, had[from:])
	return true
}

// adopt gives c the list of other.
func (l *items) adopt(c, other *Config) {
	l.access.share(c, other)
	c.ids[l.list] = other.ids[l.list]
}

// upTo returns the numbers from 0 to n-1.
func upTo(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i
	}
	return numbers
}

// stayed returns a function that reports whether item i of next, asked for one after the other, is an item of old that says the same.
func (l *items) stayed(old, next *Config) func(i int) bool {
	if l.shared(old, next) {
		return func(int) bool { return true }
	}
	shift := 0
	oldIDs, nextIDs, count := *l.ids(old), *l.ids(next), l.count(old)
	there := func(i int) bool { return i+shift >= 0 && i+shift < count && l.same(next, old, i, i+shift) }
	return func(i int) bool {
		if there(i) {
			return true
		}
		if i < len(nextIDs) {
			if j := slices.Index(oldIDs, nextIDs[i]); j >= 0 && j-i != shift {
				shift = j - i
				return there(i)
			}
		}
		return false
	}
}

// moved and removed make new lists: others may still read the old one.
func moved[T any](s []T, from, to int) []T {
	return slices.Insert(slices.Delete(slices.Clone(s), from, from+1), to, s[from])
}

func removed[T any](s []T, i int) []T {
	if len(s) == 1 {
		return nil // as it was before the first was added
	}
	return slices.Delete(slices.Clone(s), i, i+1)
}

// identify gives IDs to the items of lists that have none.
func (x *execution) identify() {
	x.cfg = x.cfg.identified()
	x.before = x.cfg.ids
}

// fixedID is the ID of an item of a menu with fixed ones.
func fixedID(item int) ID { return ID(1 + item) }

// resolveFixed is resolve for a menu with fixed items.
func (x *execution) resolveFixed(m *menu, w word) ([]int, error) {
	var indices []int
	if w.find != nil {
		where, err := x.conditions(m, w.find[1:])
		if err != nil {
			return nil, err
		}
		rows, err := m.rows(x)
		if err == nil {
			rows, err = x.matching(m, rows, where)
		}
		for _, r := range rows {
			indices = append(indices, int(r.id-fixedID(0)))
		}
		return indices, err
	}
	for name := range strings.SplitSeq(w.text, ",") {
		i := slices.IndexFunc(m.fixed, func(n string) bool { return n == name })
		if n, err := strconv.Atoi(name); i < 0 && (!x.older || m.exportedAs == "") && err == nil && n >= 0 && n < len(m.fixed) {
			i = n
		}
		if id, err := ParseID(name); i < 0 && err == nil && id >= fixedID(0) && id < fixedID(len(m.fixed)) {
			i = int(id - fixedID(0))
		}
		if i < 0 && x.older && name == m.exportedAs && name != "" {
			i = 0
		}
		if i < 0 {
			if m.path == serviceMenuPath && slices.Contains(absentServices, name) {
				failed := &lineError{message: "Postern has no /" + m.path + " " + name, place: w.place}
				if slices.Contains(absentTLS, name) {
					failed.hint = noTLS
				}
				return nil, failed
			}
			return nil, noSuchItem(name)
		}
		if !slices.Contains(indices, i) {
			indices = append(indices, i)
		}
	}
	return indices, nil
}

func noSuchItem(item string) error { return fmt.Errorf("%w: %s", ErrNoSuchItem, Printable(item)) }

// keys are the keys of the items of m, in their order.
func (x *execution) keys(m *menu) ([]key, error) {
	var keys []key
	if m.allLinks {
		rows, err := m.rows(x)
		for _, r := range rows {
			keys = append(keys, r.key)
		}
		return keys, err
	}
	if m.isPorts {
		ports, err := x.ports()
		for _, p := range ports {
			keys = append(keys, key{port: p.Name})
		}
		return keys, err
	}
	if m.numbersLive() {
		rows, err := x.numberedRows(m)
		for _, r := range rows {
			keys = append(keys, r.key)
		}
		return keys, err
	}
	if m.changesDynamic {
		rows, err := m.dynamic(x)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			keys = append(keys, r.key)
		}
	}
	for _, id := range *m.items.ids(&x.cfg) {
		keys = append(keys, key{id: id})
	}
	return keys, nil
}

// numbered are the keys that numbers in m refer to: those of the session's last print. If
// there was none, the items are numbered as they are now, until the next print.
func (x *execution) numbered(m *menu) ([]key, error) {
	if keys, ok := x.numbers[m.path]; ok {
		return keys, nil
	}
	if keys, ok := x.printed[m.path]; ok {
		return keys, nil
	}
	keys, err := x.keys(m)
	if err == nil {
		x.numbers[m.path] = keys
	}
	return keys, err
}

// resolve returns the indices of the items that a word refers to, each once. The word is
// numbers and ranges (0,2-4), IDs or names, separated by commas, or [find ...], which may
// find nothing.
func (x *execution) resolve(m *menu, w word) ([]int, error) {
	if m.fixed != nil {
		return x.resolveFixed(m, w)
	}
	keys, err := x.chosen(m, w)
	if err != nil {
		return nil, err
	}
	var indices []int
	seen := map[key]bool{}
	for _, k := range keys {
		if seen[k] {
			continue
		}
		seen[k] = true
		i := slices.Index(*m.items.ids(&x.cfg), k.id)
		if k.port != "" {
			if i, err = x.link(m, k.port); err != nil {
				return nil, err
			}
		}
		if i < 0 {
			return nil, dynamicItem(w.text)
		}
		indices = append(indices, i)
	}
	return indices, nil
}

// found returns the keys of the items that [find ...] finds. What the system has made is not
// among them.
func (x *execution) found(m *menu, w word) ([]key, error) {
	where, err := x.conditions(m, w.find[1:])
	if err != nil {
		return nil, err
	}
	if m.isPorts && x.live.Links == nil && len(where) == 1 && len(where[0]) == 1 {
		if c := where[0][0]; c.name == defaultName && c.test == "=" {
			return []key{{port: c.value}}, nil // in a file, where nobody knows which ports there are
		}
	}
	of := x.itemRows
	if m.changesDynamic {
		of = x.rows
	}
	if m.rows == nil {
		x.looked, x.lookedIn = where, m
	}
	rows, err := of(m)
	x.looked, x.lookedIn = nil, nil
	if err != nil {
		return nil, err
	}
	if rows, err = x.matching(m, rows, where); err != nil {
		return nil, err
	}
	var keys []key
	for _, r := range rows {
		keys = append(keys, r.key)
	}
	return keys, nil
}

// chosen returns the keys of the items that a word refers to.
func (x *execution) chosen(m *menu, w word) ([]key, error) {
	var chosen []key
	if w.find != nil {
		return x.found(m, w)
	}
	there, err := x.keys(m)
	if err != nil {
		return nil, err
	}
	for item := range strings.SplitSeq(w.text, ",") {
		keys, err := x.item(m, there, item)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, keys...)
	}
	return chosen, nil
}

// item returns the keys of the items that a number, a range of numbers, an ID or a name
// refers to. there are the keys of all items.
func (x *execution) item(m *menu, there []key, item string) ([]key, error) {
	if id, err := ParseID(item); err == nil {
		return x.itemByID(m, there, id)
	}
	from, to, isRange := strings.Cut(item, "-")
	if !isRange {
		to = from
	}
	first, err1 := decimal(from)
	last, err2 := decimal(to)
	if err1 != nil || err2 != nil {
		if device := x.cfg.device(item); m.isPorts && device != "" {
			return []key{{port: device}}, nil
		}
		if k := x.itemNamed(m, item); k != (key{}) {
			return []key{k}, nil
		}
		return nil, noSuchItem(item)
	}
	numbered, err := x.numbered(m)
	if err != nil {
		return nil, err
	}
	if first > last {
		return nil, fmt.Errorf("%w: the range ends before it begins", noSuchItem(item))
	}
	if last >= int64(len(numbered)) {
		return nil, noSuchItem(item)
	}
	chosen := numbered[first : last+1]
	for i, k := range chosen {
		number := fmt.Sprint(first + int64(i))
		switch {
		case k == key{}:
			return nil, dynamicItem(number)
		case !slices.Contains(there, k):
			return nil, noSuchItem(number)
		}
	}
	return chosen, nil
}

// errDynamic is the error of an item that the system has made.
var errDynamic = errors.New("dynamic item")

// byNumber returns err for a command that changes nothing: one of a dynamic item says what is expected.
func byNumber(command string, err error, expected string) error {
	if !errors.Is(err, errDynamic) {
		return err
	}
	return fmt.Errorf("%s; expected %s", strings.Replace(err.Error(), "change dynamic item", command+" dynamic item by its number", 1), expected)
}

func dynamicItem(item string) error {
	return fmt.Errorf("failure: can not change %w: %s", errDynamic, item)
}

// itemByID returns the key of the item with that ID. there are the keys of all items.
func (x *execution) itemByID(m *menu, there []key, id ID) ([]key, error) {
	for _, k := range there {
		other, err := x.keyID(k)
		if err != nil {
			return nil, err
		}
		if other == id {
			return []key{k}, nil
		}
	}
	rows, err := x.rows(m)
	if err == nil {
		err = x.identified(m, rows)
	}
	if err == nil && slices.ContainsFunc(rows, func(r row) bool { return r.id == id }) {
		return nil, dynamicItem(id.String())
	}
	return nil, cmp.Or(err, noSuchItem(id.String()))
}

// called returns the key of the item of that name, the zero key if there is none.
func (x *execution) itemNamed(m *menu, name string) key {
	if m.allLinks {
		rows, err := m.rows(x)
		if i := slices.IndexFunc(rows, func(r row) bool { return r.value("name") == name }); err == nil && i >= 0 {
			return rows[i].key
		}
		return key{}
	}
	if m.path == fileMenuPath {
		rows, err := x.numberedRows(m)
		if i := slices.IndexFunc(rows, func(r row) bool { return r.value("name") == name }); err == nil && i >= 0 {
			return rows[i].key
		}
		return key{}
	}
	p, ok := m.property("name")
	if !ok || m.isPorts {
		return key{}
	}
	for i, id := range *m.items.ids(&x.cfg) {
		if p.get(&x.cfg, i) == name {
			return key{id: id}
		}
	}
	return key{}
}

// gathered returns the menu that an item of /interface belongs to, and its index there.
func (x *execution) gathered(k key) (*menu, int, error) {
	if k.port != "" {
		m := x.menu("interface ethernet")
		i, err := x.link(m, k.port)
		return m, i, err
	}
	for _, path := range []string{"interface bridge", "interface vlan", pppoePath} {
		m := x.menu(path)
		if i := slices.Index(*m.items.ids(&x.cfg), k.id); i >= 0 {
			return m, i, nil
		}
	}
	return nil, 0, ErrNoSuchItem
}

// link returns the index of a port's settings, and adds them if the port has none yet. If it
// is not known which ports there are, as in a file, any name is accepted here and Validate
// checks it.
func (x *execution) link(m *menu, name string) (int, error) {
	ports, err := x.ports()
	if err != nil {
		return 0, err
	}
	_, bad := portName().parse(name)
	if bad != nil || x.live.Links != nil &&
		!slices.ContainsFunc(ports, func(p netcfg.LinkState) bool { return p.Name == name }) {
		return 0, noSuchItem(name)
	}
	for i, l := range x.cfg.Links {
		if l.Name == name {
			return i, nil
		}
	}
	i, err := x.append(m)
	if err != nil {
		return 0, err
	}
	x.cfg.Links[i].Name = name
	return i, x.checkCount(m)
}

// dropUnchanged removes the settings of ports that have only defaults: they are as if nobody had
// ever set them, and an export has nothing to say about them.
func (x *execution) dropUnchanged() {
	m := x.menu("interface ethernet")
	for i := len(x.cfg.Links) - 1; i >= 0; i-- {
		if len(exported(m, &x.cfg, i, true, false)) == 0 {
			m.items.remove(&x.cfg, i)
		}
	}
}

// ports lists the ports of the machine, in its order, and then ports that have settings but
// do not exist. If the machine cannot be asked, it lists the ports with settings.
func (x *execution) ports() ([]netcfg.LinkState, error) {
	var ports []netcfg.LinkState
	if x.live.Links != nil {
		if x.links == nil {
			states, err := x.live.Links()
			if err != nil {
				return nil, fmt.Errorf("list interfaces: %w", err)
			}
			x.links = states
		}
		for _, l := range x.links {
			if l.Type == netcfg.Ether {
				ports = append(ports, l)
			}
		}
	}
	for _, l := range x.cfg.Links {
		if !slices.ContainsFunc(ports, func(p netcfg.LinkState) bool { return p.Name == l.Name }) {
			ports = append(ports, netcfg.LinkState{Name: l.Name, Type: netcfg.Ether, Present: x.live.Links == nil})
		}
	}
	return ports, nil
}

// checkCount is the error of more items in m than there can be.
func (x *execution) checkCount(m *menu) error {
	if m.items.count(&x.cfg) > m.items.max {
		return fmt.Errorf("failure: no more than %d items in /%s", m.items.max, m.path)
	}
	return nil
}

// append adds an item with the default values to m and returns its index.
func (x *execution) append(m *menu) (int, error) {
	i := m.items.count(&x.cfg)
	m.items.add(&x.cfg)
	for _, p := range m.properties {
		if def := p.defaultOf(i); def != "" {
			if err := p.set(&x.cfg, i, def); err != nil {
				return 0, err
			}
		}
	}
	return i, nil
}
