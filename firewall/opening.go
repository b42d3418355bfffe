package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Opening lets one peer, and nobody else, reach one TCP or UDP port of the router, ahead of the
// user's input rules: the port on which a BIND of SOCKS waits, whose first call ends the wait, or
// the one to which the client of a UDP ASSOCIATE sends. The zero or unspecified address stands for
// any address. An opening lets in packets, not connections: unless the user's rules accept
// established connections, it must stay for as long as the connection.
type Opening struct {
	Peer  netip.Addr
	Local netip.Addr
	Port  uint16
	// UDP says that it is a UDP port, not a TCP port.
	UDP bool
}

// Protocol is tcp or udp.
func (o Opening) Protocol() string {
	if o.UDP {
		return "udp"
	}
	return "tcp"
}

// clean returns o in the form in which openings are compared. It fails for an IPv6 address
// and for port 0.
func (o Opening) clean() (Opening, error) {
	for _, a := range []*netip.Addr{&o.Peer, &o.Local} {
		*a = a.Unmap()
		if a.IsUnspecified() {
			*a = netip.Addr{}
		}
		if a.IsValid() && !a.Is4() {
			return Opening{}, fmt.Errorf("%v is not an IPv4 address", *a)
		}
	}
	if o.Port == 0 {
		return Opening{}, errors.New("port 0")
	}
	return o, nil
}

// accept is the rule that lets the peer in.
func (o Opening) accept() []string {
	if !o.Peer.IsValid() {
		return append(o.local(), "-j", "ACCEPT")
	}
	return append([]string{"-s", o.Peer.String()}, append(o.local(), "-j", "ACCEPT")...)
}

// drop is the rule that keeps everybody else out. It stands behind the accept rules of all
// openings; nil if there is nobody else.
func (o Opening) drop() []string {
	if !o.Peer.IsValid() {
		return nil
	}
	return append(o.local(), "-j", "DROP")
}

// local matches what comes to the port.
func (o Opening) local() []string {
	a := []string{"-p", o.Protocol()}
	if o.Local.IsValid() {
		a = append(a, "-d", o.Local.String())
	}
	return append(a, "-m", o.Protocol(), "--dport", strconv.Itoa(int(o.Port)))
}

// add writes the rules of o.
func (s *script) add(at place, o Opening) {
	s.line(at, append([]string{"-I", openChain}, o.accept()...)...)
	if drop := o.drop(); drop != nil {
		s.append(at, Counter{}, openChain, drop...)
	}
}

// remove takes the rules of o away.
func (s *script) remove(at place, o Opening) {
	s.line(at, append([]string{"-D", openChain}, o.accept()...)...)
	if drop := o.drop(); drop != nil {
		s.line(at, append([]string{"-D", openChain}, drop...)...)
	}
}

// ChangeOpenings takes the openings closed back, and then lets those of opened in until they are
// closed or Lock is called; Apply keeps them. All of it is done or, on an error, nothing. It is no
// error if one of closed is not open, or one of opened is open already. ChangeOpenings needs a Lock
// or an Apply before it. It takes one process, however many there are, and none if nothing changes.
func (f *Firewall) ChangeOpenings(closed, opened []Opening) error {
	f.lockTurn()
	defer f.turn.Unlock()
	if err := f.changeOpenings(closed, opened); err != nil {
		return fmt.Errorf("firewall: close %d and open %d openings: %w", len(closed), len(opened), err)
	}
	return nil
}

func (f *Firewall) changeOpenings(closed, opened []Opening) error {
	whole := place{Filter, -1}
	next := slices.Clone(f.openings)
	var s script
	s.begin(Filter)
	unchanged := len(s.lines)
	for _, o := range closed {
		clean, err := o.clean()
		if err != nil {
			return fmt.Errorf("%+v: %w", o, err)
		}
		if i := slices.Index(next, clean); i >= 0 {
			next = slices.Delete(next, i, i+1)
			s.remove(whole, clean)
		}
	}
	for _, o := range opened {
		clean, err := o.clean()
		if err != nil {
			return fmt.Errorf("%+v: %w", o, err)
		}
		if !slices.Contains(next, clean) {
			next = append(next, clean)
			s.add(whole, clean)
		}
	}
	if len(s.lines) == unchanged && !f.unsure {
		return nil
	}
	s.commit(Filter)
	known := f.seen[Filter] == info(Filter)
	var err error
	var refused *refusal
	if !f.unsure {
		err = f.restore(&s)
	}
	if f.unsure || errors.As(err, &refused) && refused.line > 0 {
		// Somebody else may have changed the chain. What it should hold is known.
		var anew script
		anew.begin(Filter)
		anew.line(whole, "-F", openChain)
		for _, o := range next {
			anew.add(whole, o)
		}
		anew.commit(Filter)
		err = f.restore(&anew)
	}
	if f.unsure = err != nil; err != nil {
		return err
	}
	f.setOpenings(next)
	if !known {
		f.written = nil
	} else if f.written != nil {
		f.seen[Filter] = info(Filter)
	}
	return nil
}

// Openings returns the openings, oldest first. The zero Addr stands for any address. It
// never waits for a process.
func (f *Firewall) Openings() []Opening {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.openings)
}

// setOpenings replaces the openings. The caller holds turn.
func (f *Firewall) setOpenings(openings []Opening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.openings = openings
}
