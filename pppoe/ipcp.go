package pppoe

import "net/netip"

// Options of IPCP (RFC 1332, section 3, and RFC 1877, section 1).
const (
	optionAddress    = 3
	optionPrimaryDNS = 129
	optionSecondDNS  = 131
)

// ipcp is what IPCP negotiates. An address of 0.0.0.0 asks for one.
type ipcp struct {
	local, remote netip.Addr
	// dns has the name servers that are asked for, by their options: not those that the other side
	// does not tell.
	dns map[byte]netip.Addr
}

func newIPCP(dns bool) *ipcp {
	c := &ipcp{local: netip.IPv4Unspecified(), dns: map[byte]netip.Addr{}}
	if dns {
		c.dns[optionPrimaryDNS], c.dns[optionSecondDNS] = netip.IPv4Unspecified(), netip.IPv4Unspecified()
	}
	return c
}

func (c *ipcp) wanted() []option {
	all := []option{{optionAddress, c.local.AsSlice()}}
	for _, typ := range []byte{optionPrimaryDNS, optionSecondDNS} {
		if a, asked := c.dns[typ]; asked {
			all = append(all, option{typ, a.AsSlice()})
		}
	}
	return all
}

func (c *ipcp) refused(all []option, outright bool) {
	for _, o := range all {
		a, ok := netip.AddrFromSlice(o.data)
		ok = ok && a.Is4()
		switch o.typ {
		case optionAddress:
			if ok && !outright {
				c.local = a
			}
		case optionPrimaryDNS, optionSecondDNS:
			if _, asked := c.dns[o.typ]; !asked {
				continue
			}
			if outright || !ok || !usable(a) {
				delete(c.dns, o.typ) // it has none
			} else {
				c.dns[o.typ] = a
			}
		}
	}
}

// judge accepts the other side's address. A server that asks for one, or for header compression, does
// not get it.
func (c *ipcp) judge(o option) (verdict, option) {
	if a, ok := netip.AddrFromSlice(o.data); o.typ == optionAddress && ok && a.Is4() && usable(a) {
		return accept, o
	}
	return reject, option{}
}

func (c *ipcp) agreed(all []option) {
	c.remote = netip.Addr{}
	for _, o := range all {
		if o.typ == optionAddress {
			c.remote, _ = netip.AddrFromSlice(o.data)
		}
	}
}

// nameServers are those that the other side has told.
func (c *ipcp) nameServers() []netip.Addr {
	var all []netip.Addr
	for _, typ := range []byte{optionPrimaryDNS, optionSecondDNS} {
		if a, asked := c.dns[typ]; asked && usable(a) && (len(all) == 0 || all[0] != a) {
			all = append(all, a)
		}
	}
	return all
}

// usable reports whether a host can have the address.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a.As4()[0] != 0 && a.As4()[0] < 240
}
