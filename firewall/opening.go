package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/coreos/go-iptables/iptables"
)

// Opening lets one peer reach one TCP or UDP port of the router, ahead of the user's input
// rules: the port on which a BIND of SOCKS waits, or the one to which the client of a UDP
// ASSOCIATE sends. The zero or unspecified address stands for any address. An opening lets in
// packets, not connections: unless the user's rules accept established connections, it must
// stay for as long as the connection.
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

func (o Opening) args() []string {
	a := []string{"-p", o.Protocol()}
	if o.Peer.IsValid() {
		a = append(a, "-s", o.Peer.String())
	}
	if o.Local.IsValid() {
		a = append(a, "-d", o.Local.String())
	}
	return append(a, "-m", o.Protocol(), "--dport", strconv.Itoa(int(o.Port)), "-j", "ACCEPT")
}

// Open lets o in until Close or Lock; Apply keeps it. An opening that is there already
// stays one. Open needs a Lock or an Apply before it, and takes one process.
func (f *Firewall) Open(o Opening) error {
	clean, err := o.clean()
	if err != nil {
		return fmt.Errorf("firewall: open %+v: %w", o, err)
	}
	f.lockTurn()
	defer f.turn.Unlock()
	if slices.Contains(f.openings, clean) {
		return nil
	}
	tables, err := f.handle()
	if err != nil {
		return fmt.Errorf("firewall: open %+v: %w", o, err)
	}
	err = f.bounded(func() error { return tables.Append(string(Filter), openChain, clean.args()...) })
	if err != nil {
		return fmt.Errorf("firewall: open %+v: %w", o, err)
	}
	f.setOpenings(append(slices.Clone(f.openings), clean))
	return nil
}

// Close takes o back. It is no error if o is not open. Close takes one process.
func (f *Firewall) Close(o Opening) error {
	clean, err := o.clean()
	if err != nil {
		return fmt.Errorf("firewall: close %+v: %w", o, err)
	}
	f.lockTurn()
	defer f.turn.Unlock()
	i := slices.Index(f.openings, clean)
	if i < 0 {
		return nil
	}
	tables, err := f.handle()
	if err != nil {
		return fmt.Errorf("firewall: close %+v: %w", o, err)
	}
	err = f.bounded(func() error { return tables.Delete(string(Filter), openChain, clean.args()...) })
	var gone *iptables.Error
	if err != nil && !(errors.As(err, &gone) && gone.IsNotExist()) {
		return fmt.Errorf("firewall: close %+v: %w", o, err)
	}
	f.setOpenings(slices.Delete(slices.Clone(f.openings), i, i+1))
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
