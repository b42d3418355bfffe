package match

import "slices"

// ProtocolNames are the IP protocols that matchers know by name, which iptables shares; all
// others go by their number, 1..255.
var ProtocolNames = []string{"tcp", "udp", "icmp"}

// numberedProtocols are further protocols that RouterOS has names for, with their numbers (IANA,
// Protocol Numbers). Matchers have them by number, because iptables has other names.
var numberedProtocols = []struct{ name, number string }{
	{"igmp", "2"}, {"ggp", "3"}, {"ipencap", "4"}, {"st", "5"}, {"egp", "8"}, {"pup", "12"}, {"hmp", "20"},
	{"xns-idp", "22"}, {"rdp", "27"}, {"iso-tp4", "29"}, {"dccp", "33"}, {"xtp", "36"}, {"ddp", "37"},
	{"idpr-cmtp", "38"}, {"ipv6-encap", "41"}, {"rsvp", "46"}, {"gre", "47"}, {"ipsec-esp", "50"},
	{"ipsec-ah", "51"}, {"icmpv6", "58"}, {"rspf", "73"}, {"vmtp", "81"}, {"ospf", "89"}, {"ipip", "94"},
	{"encap", "98"}, {"pim", "103"}, {"vrrp", "112"}, {"l2tp", "115"}, {"sctp", "132"}, {"udp-lite", "136"},
}

// RouterOSProtocols are the names that RouterOS has for IP protocols: first those of
// ProtocolNames.
func RouterOSProtocols() []string {
	names := slices.Clone(ProtocolNames)
	for _, p := range numberedProtocols {
		names = append(names, p.name)
	}
	return names
}

// ProtocolFromRouterOS returns how a matcher has the protocol that RouterOS knows by that name,
// which is its number for one that is not in ProtocolNames, and anything else as it is.
func ProtocolFromRouterOS(name string) string {
	for _, p := range numberedProtocols {
		if p.name == name {
			return p.number
		}
	}
	return name
}

// ProtocolToRouterOS is the reverse of ProtocolFromRouterOS.
func ProtocolToRouterOS(protocol string) string {
	for _, p := range numberedProtocols {
		if p.number == protocol {
			return p.name
		}
	}
	return protocol
}

// ConnectionStates are the states of a connection that a packet can be matched by, as
// RouterOS and iptables (xt_conntrack) name them.
var ConnectionStates = []string{"established", "related", "new", "invalid", "untracked"}

// NATStates are what address translation has made of a connection, as a packet can be matched by
// it: RouterOS's names of the states SNAT and DNAT of iptables (xt_conntrack).
var NATStates = []string{"srcnat", "dstnat"}

// ProtocolName returns the name of the IP protocol with that number, in decimal digits
// (IANA, Protocol Numbers), and anything else as it is.
func ProtocolName(number string) string {
	switch number {
	case "1":
		return "icmp"
	case "6":
		return "tcp"
	case "17":
		return "udp"
	}
	return number
}
