package match

// ProtocolNames are the IP protocols that matchers know by name; all others go by their
// number, 1..255.
var ProtocolNames = []string{"tcp", "udp", "icmp"}

// ConnectionStates are the states of a connection that a packet can be matched by, as
// RouterOS and iptables (xt_conntrack) name them.
var ConnectionStates = []string{"established", "related", "new", "invalid", "untracked"}

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
