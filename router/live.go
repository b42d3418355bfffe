package router

import (
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// This file tells the console what the kernel has.

// invalid returns the items of a menu that wait for something. Rules need no answer
// here: the console knows by the names of interfaces.
func (r *Router) invalid(menu string) ([]int, error) {
	of := map[string]func(netcfg.Waiting) []int{
		"interface vlan":        func(w netcfg.Waiting) []int { return w.VLANs },
		"interface bridge port": func(w netcfg.Waiting) []int { return w.BridgePorts },
		"ip address":            func(w netcfg.Waiting) []int { return w.Addresses },
		"ip route":              func(w netcfg.Waiting) []int { return w.Routes },
	}[menu]
	if of == nil {
		return nil, nil
	}
	waiting, err := r.network.Waiting()
	return of(waiting), err
}

func (r *Router) dynamicAddresses() ([]netcfg.Address, error) {
	addresses, _, err := r.network.Dynamic()
	return addresses, err
}

func (r *Router) dynamicRoutes() ([]console.DynamicRoute, error) {
	_, routes, err := r.network.Dynamic()
	all := make([]console.DynamicRoute, len(routes))
	for i, k := range routes {
		all[i] = console.DynamicRoute(k)
	}
	return all, err
}

func (r *Router) neighbors() ([]console.Neighbor, error) {
	neighbors, err := r.network.Neighbors()
	all := make([]console.Neighbor, len(neighbors))
	for i, n := range neighbors {
		all[i] = console.Neighbor(n)
	}
	return all, err
}

func trackedConnections() ([]console.TrackedConnection, error) {
	tracked, err := firewall.ListTracked()
	all := make([]console.TrackedConnection, len(tracked))
	for i, c := range tracked {
		all[i] = console.TrackedConnection(c)
	}
	return all, err
}
