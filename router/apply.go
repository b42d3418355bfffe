package router

import (
	"errors"
	"reflect"
	"slices"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
)

// effective returns the configuration that the system has in a state: the user's, merged with
// the layers.
func (r *Router) effective(st state) console.Config {
	return st.layers.merge(st.running, r.board.PortNames())
}

func (r *Router) networkOf(st state) netcfg.Config { return networkOf(r.effective(st), st) }

// networkOf is the network of a state, whose merged configuration is c.
func networkOf(c console.Config, st state) netcfg.Config {
	network := c.Network()
	network.Forwarding = st.forwarding
	if len(st.down) > 0 {
		network.Routes = slices.Clone(network.Routes)
		for i := range network.Routes {
			network.Routes[i].Down = st.down[gatewayOf(network.Routes[i])]
		}
	}
	return network
}

// step is one part of a change of the system.
type step struct {
	// same means that the part needs no change.
	same bool
	do   func() error
	undo func() error
}

// apply brings the system from its present state to next, or changes nothing. The caller
// holds changing.
//
// The firewall comes first: at the start all ports are down until its rules stand.
func (r *Router) apply(next state) error {
	old := r.now
	before, want := r.effective(old), r.effective(next)
	rulesBefore := before.Rules()
	rules := want.RulesAfter(before, rulesBefore)
	networkBefore, network := networkOf(before, old), networkOf(want, next)
	steps := []step{{
		same: rules.Equal(rulesBefore),
		do:   func() error { return r.firewall.Apply(rules) },
		undo: func() error {
			if !old.applied {
				return r.firewall.Lock()
			}
			return r.firewall.Apply(rulesBefore)
		},
	}, {
		same: reflect.DeepEqual(networkBefore, network),
		do: func() error {
			err := r.network.Apply(network)
			if err == nil && !old.applied {
				r.log.Printf(kmsg.Notice, "network is ready after %s", kmsg.Uptime())
			}
			return err
		},
		undo: func() error { return r.network.Apply(networkBefore) },
	}, {
		do:   func() error { return r.machine.SetNames(want.Identity, want.DNS) },
		undo: func() error { return r.machine.SetNames(before.Identity, before.DNS) },
	}, {
		same: before.TimeZone == want.TimeZone,
		do:   func() error { return r.machine.SetZone(want.TimeZone) },
		undo: func() error { return r.machine.SetZone(before.TimeZone) },
	}}
	for _, s := range r.services {
		steps = append(steps, step{
			do:   func() error { return s.Apply(want) },
			undo: func() error { return s.Apply(before) },
		})
	}
	if old.applied && !r.unsure {
		steps = slices.DeleteFunc(steps, func(s step) bool { return s.same })
	}
	unsure := r.unsure
	r.unsure = true // until all is done, or undone
	for i, s := range steps {
		if err := s.do(); err != nil {
			r.unsure = !r.undo(steps[:i]) || unsure || errors.Is(err, firewall.ErrUnsure)
			return err
		}
	}
	r.unsure = false
	next.applied = true
	r.set(next)
	if old.applied {
		r.forgetRetranslated(rulesBefore, rules)
	}
	return nil
}

// undo undoes steps, the last one first, and reports whether all succeeded.
func (r *Router) undo(steps []step) bool {
	ok := true
	for _, s := range slices.Backward(steps) {
		if err := s.undo(); err != nil {
			r.log.Printf(kmsg.Error, "undo: %v", err)
			ok = false
		}
	}
	return ok
}

// commit makes config, a change of a user's, the configuration, and its history that of the router. The caller holds changing.
//
// While the firewall lacks lines that could not be read, forwarding stays closed
// and nothing is kept until somebody has changed the firewall, its lists or the rules of routing: a new name of the
// router must not open it, now or at the next start.
func (r *Router) commit(config console.Config, h history) error {
	next := r.now
	next.history = h
	old := next.config
	sameFirewall := reflect.DeepEqual(config.Firewall, old.Firewall) &&
		reflect.DeepEqual(config.InterfaceLists, old.InterfaceLists) && reflect.DeepEqual(config.ListMembers, old.ListMembers) &&
		reflect.DeepEqual(config.RoutingRules, old.RoutingRules)
	if next.incomplete && sameFirewall {
		next = r.rescued(next, config)
	} else {
		next.config, next.running, next.forwarding, next.incomplete = config, config, true, false
		next.layers = next.layers.with(rescueSource, Layer{})
	}
	next.revision++
	return r.apply(next)
}
