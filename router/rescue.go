package router

import (
	"strings"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
)

// rescueSource is the source of the layer that gives a closed router an address on its LAN, if
// its user has set none there.
const rescueSource = "rescue"

// start applies the configuration or, if that fails, the rescue configuration.
func (r *Router) start() {
	if err := r.beginChange(); err != nil {
		return
	}
	defer r.endChange()
	l := r.load()
	r.logLines(l.err)
	closed := l.refused
	if !closed {
		next := r.now
		next.config, next.running, next.forwarding = l.config, l.config, true
		if err := r.apply(next); err != nil {
			r.logLines(err)
			closed = true
		}
	}
	if closed {
		r.rescue(l)
	}
}

// rescue closes the router except to its LAN. The user sees the lines that could be read, to
// correct them, if they make a valid configuration. The caller holds changing.
func (r *Router) rescue(l loaded) {
	next := r.rescued(r.now, l.config)
	next.incomplete = l.refused
	if console.Validate(l.config, r.board.PortNames()) != nil {
		// No single line could correct it, so the user sees the rescue configuration.
		address := next.layers[rescueSource]
		next.running.Addresses = append(next.running.Addresses, address.Addresses...)
		next.config, next.layers = next.running, next.layers.with(rescueSource, Layer{})
	}
	r.log.Printf(kmsg.Error, "the configuration is not applied: forwarding is closed, the router is at %s", r.lanAddresses(next))
	if err := r.apply(next); err != nil {
		r.log.Printf(kmsg.Error, "rescue configuration: %v", err)
		// There is no firewall: only the LAN is up, and nothing is forwarded.
		if err := r.network.Apply(lanOnly(r.effective(next), r.board)); err != nil {
			r.log.Printf(kmsg.Error, "LAN: %v", err)
		}
		r.set(next)
	}
}

// rescued returns the state in which the user sees config and the rescue configuration runs:
// forwarding is closed, and the LAN can reach the router.
func (r *Router) rescued(st state, config console.Config) state {
	running, address := rescueConfig(config, r.board)
	st.config, st.running, st.forwarding = config, running, false
	st.layers = st.layers.with(rescueSource, address)
	return st
}

// rescueConfig returns the rescue configuration for one that was refused. It has the same
// users, the ways to log in over the network, and the addresses on the LAN; if there are none, the layer has
// one. It lets the LAN in to the router, and nothing through.
func rescueConfig(refused console.Config, b board.Board) (console.Config, Layer) {
	c := console.Default()
	// Who may log in holds, whatever else is wrong.
	c.Identity, c.Groups, c.Users, c.SSHKeys = refused.Identity, refused.Groups, refused.Users, refused.SSHKeys
	c.TakeServices(refused)
	lan := refused.Network().Actual(b.LAN) // of a port of a bridge, that bridge
	for _, a := range refused.Addresses {
		if (a.Interface == b.LAN || a.Interface == lan) && !a.Disabled {
			a.Interface = b.LAN
			c.Addresses = append(c.Addresses, a)
		}
	}
	var address Layer
	if c.Addresses == nil || console.Validate(c, b.PortNames()) != nil {
		c.Addresses = nil
		address.Addresses = []netcfg.Address{{Address: lanDefault, Interface: b.LAN}}
	}
	c.Firewall.Filter = []firewall.Rule{
		{Chain: "input", Action: "drop", InInterface: "!" + b.LAN, Comment: "rescue"},
		{Chain: "forward", Action: "drop", Comment: "rescue"},
	}
	return c, address
}

// lanOnly is the network of c with every other port down.
func lanOnly(c console.Config, b board.Board) netcfg.Config {
	network := netcfg.Config{}
	for _, a := range c.Addresses {
		if a.Interface == b.LAN {
			network.Addresses = append(network.Addresses, a)
		}
	}
	for _, p := range b.PortNames() {
		network.Links = append(network.Links, netcfg.Link{Name: p, Disabled: p != b.LAN})
	}
	return network
}

// lanAddresses lists the addresses that the LAN has in a state.
func (r *Router) lanAddresses(st state) string {
	var list []string
	for _, a := range r.effective(st).Addresses {
		if a.Interface == r.board.LAN {
			list = append(list, a.Address.Addr().String())
		}
	}
	return strings.Join(list, ", ")
}
