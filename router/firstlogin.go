package router

import (
	"errors"
	"net/netip"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/login"
)

// A router on which no password and no key has been set lets who is on its LAN in by SSH or the page, as the user who owns it and without a
// password, to set one before anything else.

// isFirst reports whether a login is that of who may set the first password.
func (r *Router) isFirst(via way, l login.Login) bool { return r.isFirstIn(r.snapshot(), via, l) }

func (r *Router) isFirstIn(st state, via way, l login.Login) bool {
	from := origin(via, l)
	return (from.Via == viaSSH || from.Via == viaWeb) && !st.running.HasSecret() && !st.config.HasSecret() &&
		l.User == st.running.Owner() && st.running.MayLogIn(l.User, policyOf(from.Via), l.From) &&
		st.running.AllowsFrom(l.From, policyOf(from.Via), from.TLS) && onLAN(r.effective(st), l.From)
}

// onLAN reports whether a host is directly on an interface of the LAN, by its address. Who has answered there, as it takes to make a
// connection, has that address: what the router sends to it goes to no other interface.
func onLAN(c console.Config, host netip.Addr) bool {
	bits := -1
	for _, a := range c.Addresses {
		if a.Disabled || !a.Address.Masked().Contains(host) {
			continue
		}
		if host == a.Address.Addr() || !c.IsLAN(a.Interface) {
			return false
		}
		bits = max(bits, a.Address.Bits())
	}
	for _, route := range c.Routes {
		if route.Disabled || !route.Destination.Contains(host) {
			continue
		}
		// Other tables are looked in before main, whose routes count if they are as long as the network.
		if route.Table == "" && route.Destination.Bits() >= bits || route.Table != "" && c.MayAnswerBy(route.Table, host) {
			return false
		}
	}
	return bits >= 0
}

// firstOnly refuses a password that would not be the first any more: another user's, or a key, has come before.
func (r *Router) firstOnly(via way, l login.Login) (may func(state) error) {
	return func(st state) error {
		if !r.isFirstIn(st, via, l) {
			return errors.New("failure: a password or a key was set meanwhile")
		}
		return nil
	}
}

// setFirst sets the first password, and returns the proof of it; "" if it may not be set, or is none that a user may choose.
func (r *Router) setFirst(via way, l login.Login, new string) (proof string) {
	if !r.isFirst(via, l) || new == "" || console.CheckPassword(new) != nil {
		return ""
	}
	s := &session.Session{Session: console.Session{User: l.User}, Origin: origin(via, l)}
	if err := r.changePassword(s, "", new, r.firstOnly(via, l)); err != nil {
		r.log.Printf(kmsg.Warning, "the first password was not set: %v", err)
		return ""
	}
	return proofOf(r.snapshot().running, l.User, "")
}
