package router

import (
	"slices"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/netcfg"
)

// This file answers what the console asks about the kernel.

// invalid returns the items of a menu that have no effect at the moment. Rules are none of
// these menus: the console finds out by their interfaces. While the rescue configuration
// runs, nothing is known about the user's items.
func (r *Router) invalid(st state, menu string) ([]int, error) {
	var of func(netcfg.Waiting) []int
	var items int // of the user's: those of the layers are behind them
	switch menu {
	case "interface vlan":
		of, items = func(w netcfg.Waiting) []int { return w.VLANs }, len(st.config.VLANs)
	case "interface bridge port":
		of, items = func(w netcfg.Waiting) []int { return w.BridgePorts }, len(st.config.BridgePorts)
	case "ip address":
		of, items = func(w netcfg.Waiting) []int { return w.Addresses }, len(st.config.Addresses)
	case "ip arp":
		of, items = func(w netcfg.Waiting) []int { return w.Neighbors }, len(st.config.ARP)
	case "ip route":
		of, items = func(w netcfg.Waiting) []int { return w.Routes }, len(st.config.Routes)
	default:
		return nil, nil
	}
	if st.incomplete {
		return nil, nil
	}
	waiting, err := r.network.Waiting()
	return slices.DeleteFunc(of(waiting), func(i int) bool { return i >= items }), err
}

// dynamicAddresses returns the addresses of the layers, and those that the kernel has and
// nobody set.
func (r *Router) dynamicAddresses(st state) ([]netcfg.Address, error) {
	addresses, _, err := r.network.Dynamic()
	return append(st.layers.effective(st.running, r.board.PortNames()).Addresses, addresses...), err
}

func (r *Router) dynamicRoutes(st state) ([]console.DynamicRoute, error) {
	_, routes, err := r.network.Dynamic()
	if err != nil {
		return nil, err
	}
	waiting, err := r.network.Waiting()
	if err != nil {
		return nil, err
	}
	var all []console.DynamicRoute
	effective := st.layers.effective(st.running, r.board.PortNames())
	for i, l := range effective.Routes {
		all = append(all, console.DynamicRoute{Destination: l.Destination, Gateway: l.Gateway, Interface: l.Interface, Distance: l.Distance,
			Inactive: slices.Contains(waiting.Routes, len(st.running.Routes)+i)})
	}
	for _, l := range st.layers.outranked(st.running, effective) {
		all = append(all, console.DynamicRoute{Destination: l.Destination, Gateway: l.Gateway, Interface: l.Interface, Distance: l.Distance, Outranked: true})
	}
	for _, k := range routes {
		all = append(all, console.DynamicRoute{Destination: k.Destination, Gateway: k.Gateway, Interface: k.Interface, Distance: k.Distance})
	}
	return all, nil
}

func (r *Router) neighbors() ([]console.Neighbor, error) {
	neighbors, err := r.network.Neighbors()
	all := make([]console.Neighbor, len(neighbors))
	for i, n := range neighbors {
		all[i] = console.Neighbor(n)
	}
	return all, err
}
