package router

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ntp"
)

// A Layer is what somebody else than the user says of the network: a lease, for one. It is
// dynamic: shown with the flag D, never written to flash, and gone when its source takes it
// back. What the user set comes first: an item of a layer that contradicts it has no effect.
type Layer struct {
	// Addresses are on ports, bridges, VLANs or PPPoE clients. One whose interface is not there waits for it.
	Addresses []netcfg.Address
	// Routes have a distance each, 1..255. Of those to one destination the least wins.
	Routes []netcfg.Route
	// NameServers are asked after the user's.
	NameServers []netip.Addr
	// TimeServers are addresses or names; they are asked after the user's, if the user has
	// the clock set by NTP.
	TimeServers []string
	// Neighbors are entries of the ARP table.
	Neighbors []netcfg.StaticNeighbor
}

// Layers come from the network, so all that they can hold is bounded.
const (
	// maxLayers is how many sources there can be at once.
	maxLayers = 16
	// maxLayerItems is how many items of a kind one layer can have.
	maxLayerItems = 64
	// maxLayerNeighbors is how many entries of the ARP table it can have.
	maxLayerNeighbors = netcfg.MaxNeighbors / 2
	// maxNameServers is how many name servers there can be in all.
	maxNameServers = 8
)

// layers are those of all sources, by name. Such a map is never changed, only replaced.
type layers map[string]Layer

// with returns the layers with that of source replaced, or without it if it is empty.
func (ls layers) with(source string, l Layer) layers {
	next := maps.Clone(ls)
	if next == nil {
		next = layers{}
	}
	if l.empty() {
		delete(next, source)
	} else {
		next[source] = l
	}
	return next
}

func (l Layer) empty() bool {
	return len(l.Addresses) == 0 && len(l.Routes) == 0 && len(l.Neighbors) == 0 && len(l.NameServers) == 0 && len(l.TimeServers) == 0
}

// clone returns a copy that shares no memory with l.
func (l Layer) clone() Layer {
	return Layer{slices.Clone(l.Addresses), slices.Clone(l.Routes), slices.Clone(l.NameServers), slices.Clone(l.TimeServers), slices.Clone(l.Neighbors)}
}

// check reports what is wrong with the layers for a machine with these ports. What is on an
// interface that is not there is right, and waits.
func (ls layers) check(ports []netcfg.Port) error {
	if len(ls) > maxLayers {
		return fmt.Errorf("more than %d sources", maxLayers)
	}
	for source, l := range ls {
		if n := max(len(l.Addresses), len(l.Routes), len(l.NameServers), len(l.TimeServers)); n > maxLayerItems {
			return fmt.Errorf("%s: %d items, expected at most %d of a kind", source, n, maxLayerItems)
		}
		if n := len(l.Neighbors); n > maxLayerNeighbors {
			return fmt.Errorf("%s: %d ARP entries, expected at most %d", source, n, maxLayerNeighbors)
		}
		for _, n := range l.Neighbors {
			n.Interface = ports[0].Name // as below
			if err := (netcfg.Config{Neighbors: []netcfg.StaticNeighbor{n}}).Validate(ports); err != nil {
				return fmt.Errorf("%s: %w", source, err)
			}
		}
		for _, a := range l.Addresses {
			a.Interface = ports[0].Name // any that is there
			if err := (netcfg.Config{Addresses: []netcfg.Address{a}}).Validate(ports); err != nil {
				return fmt.Errorf("%s: %w", source, err)
			}
		}
		for _, r := range l.Routes {
			if err := (netcfg.Config{Routes: []netcfg.Route{r}}).Validate(ports); err != nil {
				return fmt.Errorf("%s: %w", source, err)
			}
		}
		for _, s := range l.NameServers {
			if !s.Is4() {
				return fmt.Errorf("%s: name server %s: expected an IPv4 address", source, s)
			}
		}
	}
	return nil
}

// merge returns the configuration that the system is to have: what the user set and, behind
// it, what of the layers does not contradict that. Layers come in the order of their sources'
// names. ports are the machine's. It shares what no layer adds to with c: nobody changes either in place.
func (ls layers) merge(c console.Config, ports []string) console.Config {
	dynamic := ls.effective(c, ports)
	if dynamic.empty() {
		return c
	}
	c.Addresses = slices.Concat(c.Addresses, dynamic.Addresses)
	c.Routes = slices.Concat(c.Routes, dynamic.Routes)
	c.ARP = slices.Concat(c.ARP, dynamic.Neighbors)
	c.DNS = slices.Concat(c.DNS, dynamic.NameServers)
	c.NTP.Servers = slices.Concat(c.NTP.Servers, dynamic.TimeServers)
	return c
}

// effective is what of the layers has an effect beside what the user set.
func (ls layers) effective(c console.Config, ports []string) Layer {
	var all Layer
	if len(ls) == 0 {
		return all
	}
	network := c.Network()
	interfaces := slices.Clone(ports)
	for _, b := range c.Bridges {
		interfaces = append(interfaces, b.Name)
	}
	for _, v := range c.VLANs {
		interfaces = append(interfaces, v.Name)
	}
	for _, p := range c.PPPoEClients {
		if !p.Disabled {
			interfaces = append(interfaces, p.Name)
		}
	}
	for _, source := range slices.Sorted(maps.Keys(ls)) {
		l := ls[source]
		for _, a := range l.Addresses {
			same := func(o netcfg.Address) bool {
				return !o.Disabled && o.Address.Addr() == a.Address.Addr() && network.Actual(o.Interface) == network.Actual(a.Interface)
			}
			// A route of the user's to a host that is now the router itself would be refused.
			gateway := func(r netcfg.Route) bool { return r.Gateway == a.Address.Addr() }
			if !a.Disabled && slices.Contains(interfaces, a.Interface) && !slices.ContainsFunc(c.Addresses, same) &&
				!slices.ContainsFunc(all.Addresses, same) && !slices.ContainsFunc(c.Routes, gateway) {
				all.Addresses = append(all.Addresses, a)
			}
		}
		for _, n := range l.Neighbors {
			same := func(o netcfg.StaticNeighbor) bool {
				return !o.Disabled && o.Address == n.Address && network.Actual(o.Interface) == network.Actual(n.Interface)
			}
			if slices.Contains(interfaces, n.Interface) && !slices.ContainsFunc(c.ARP, same) && !slices.ContainsFunc(all.Neighbors, same) &&
				len(c.ARP)+len(all.Neighbors) < netcfg.MaxNeighbors {
				all.Neighbors = append(all.Neighbors, n)
			}
		}
		for _, s := range l.NameServers {
			if !slices.Contains(c.DNS, s) && !slices.Contains(all.NameServers, s) && len(c.DNS)+len(all.NameServers) < maxNameServers {
				all.NameServers = append(all.NameServers, s)
			}
		}
		for _, s := range l.TimeServers {
			if !slices.Contains(c.NTP.Servers, s) && !slices.Contains(all.TimeServers, s) && len(c.NTP.Servers)+len(all.TimeServers) < ntp.MaxServers {
				all.TimeServers = append(all.TimeServers, s)
			}
		}
	}
	// Behind the addresses of all layers: none of them may be a gateway.
	for _, source := range slices.Sorted(maps.Keys(ls)) {
		for _, r := range ls[source].Routes {
			same := func(o netcfg.Route) bool {
				return !o.Disabled && o.Destination == r.Destination && o.Distance == r.Distance && o.Table == r.Table
			}
			own := func(a netcfg.Address) bool { return !a.Disabled && a.Address.Addr() == r.Gateway }
			if !r.Disabled && !slices.ContainsFunc(c.Routes, same) && !slices.ContainsFunc(all.Routes, same) &&
				!slices.ContainsFunc(c.Addresses, own) && !slices.ContainsFunc(all.Addresses, own) {
				all.Routes = append(all.Routes, r)
			}
		}
	}
	return all
}

// outranked are the routes of the layers that have no effect because all, what of the layers has, or the user has one to the same
// destination with the same distance.
func (ls layers) outranked(c console.Config, all Layer) (routes []netcfg.Route) {
	for _, source := range slices.Sorted(maps.Keys(ls)) {
		for _, r := range ls[source].Routes {
			own := func(a netcfg.Address) bool { return !a.Disabled && a.Address.Addr() == r.Gateway }
			if !r.Disabled && !slices.Contains(all.Routes, r) && !slices.Contains(routes, r) &&
				!slices.ContainsFunc(c.Addresses, own) && !slices.ContainsFunc(all.Addresses, own) {
				routes = append(routes, r)
			}
		}
	}
	return routes
}

// SetLayer makes l what source says of the network, in the place of what it said before; the
// zero Layer takes that back. The system has it when SetLayer returns, and nothing is kept on
// flash. If the layer is wrong or the system refuses it, what the source said before holds,
// and the error says why. Source is a word of the program's own, such as "dhcp ether1".
//
// Whoever tells what he got from the network calls it in his own time: it waits for a change
// that is under way.
func (r *Router) SetLayer(source string, l Layer) error {
	if err := r.beginChange(); err != nil {
		return err
	}
	defer r.endChange()
	next := r.now
	next.layers = next.layers.with(source, l.clone())
	if err := next.layers.check(r.ports()); err != nil {
		return fmt.Errorf("layer %w", err)
	}
	if !next.applied {
		r.set(next) // the start applies it
		r.leaveOld(source, l)
		return nil
	}
	if err := r.apply(next); err != nil {
		return fmt.Errorf("layer %s: %w", source, err)
	}
	r.leaveOld(source, l)
	return nil
}

// leaver is a service that ends what runs by addresses which the router will not have again. It does not wait.
type leaver interface{ Leave(gone []netip.Addr) }

// leaveOld tells services of the addresses that source gave the router before and does not any more. While it
// gives none nothing ends: the same one may come back, as when a link was down. The caller holds changing.
func (r *Router) leaveOld(source string, l Layer) {
	if len(l.Addresses) == 0 {
		return
	}
	has := map[netip.Addr]bool{}
	for _, a := range r.networkOf(r.now).Addresses {
		has[a.Address.Addr()] = true
	}
	var gone []netip.Addr
	for _, a := range r.gave[source] {
		if !has[a] {
			gone = append(gone, a)
		}
	}
	r.gave[source] = nil
	for _, a := range l.Addresses {
		r.gave[source] = append(r.gave[source], a.Address.Addr())
	}
	if len(gone) == 0 {
		return
	}
	for _, s := range r.services {
		if s, ok := s.(leaver); ok {
			s.Leave(gone)
		}
	}
}

// toldLayers are the layers that the router has by one kind of client. Only one goroutine uses it.
type toldLayers struct {
	source string // of all of them: the name of a client comes behind it
	// set is Router.SetLayer, which waits for changes that are under way.
	set     func(source string, l Layer) error
	told    map[string]Layer
	refused map[string]refusal
}

// refusal is what the router did not take.
type refusal struct {
	layer Layer
	err   error
	at    time.Time
}

// layerPause is the time after which the router is told again what it has refused: the user may have
// changed what was in the way.
const layerPause = time.Minute

func newToldLayers(source string, set func(source string, l Layer) error) *toldLayers {
	return &toldLayers{source: source, set: set, told: map[string]Layer{}, refused: map[string]refusal{}}
}

// refusal is why the router does not take the layer of a client; nil if it does, or was not told yet.
func (t *toldLayers) refusal(name string) error { return t.refused[name].err }

// reasonOf is the text of an error, "" of none.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tell brings the router to the layers, by the clients' names: it tells what is new and takes back what
// is gone. news is called for each of them that is refused, or is not refused any more: then err is nil.
func (t *toldLayers) tell(layers map[string]Layer, news func(name string, err error)) {
	for name := range t.refused {
		// A withdrawal can be refused, too: that is kept as long as the router has the layer.
		_, there := layers[name]
		if _, told := t.told[name]; !there && !told {
			delete(t.refused, name)
		}
	}
	changed := map[string]Layer{}
	for name := range t.told {
		if _, there := layers[name]; !there {
			changed[name] = Layer{}
		}
	}
	for name, l := range layers {
		if !reflect.DeepEqual(t.told[name], l) {
			changed[name] = l
		} else if _, refused := t.refused[name]; refused {
			// The client says again what the router still has.
			delete(t.refused, name)
			news(name, nil)
		}
	}
	for name, l := range changed {
		before, again := t.refused[name]
		if again && reflect.DeepEqual(before.layer, l) && time.Since(before.at) < layerPause {
			continue
		}
		err := t.set(t.source+" "+name, l)
		switch {
		case errors.Is(err, errStopped):
		case err != nil:
			t.refused[name] = refusal{l, err, time.Now()}
			if !again || before.err.Error() != err.Error() {
				news(name, err)
			}
		default:
			if l.empty() {
				delete(t.told, name)
			} else {
				t.told[name] = l
			}
			if again {
				delete(t.refused, name)
				news(name, nil)
			}
		}
	}
}
