package kmsg

import "strings"

// packetLine words what the kernel says of a packet that a rule logs
// (net/netfilter/nf_log_syslog.c) as RouterOS does:
//
//	note IN=ether2 OUT=ether1 MAC=... SRC=192.168.0.2 DST=10.5.8.8 LEN=60 ... PROTO=TCP SPT=51234 DPT=21 ... SYN URGP=0
//	note forward: in:ether2 out:ether1, src-mac 02:70:6f:73:74:02, proto TCP (SYN), 192.168.0.2:51234->10.5.8.8:21, len 60
//
// The chain is known by the interfaces, and by nat whether it is one of that table. It
// returns false if the message is not about a packet. RouterOS also gives the state of the
// connection, which the kernel does not log.
func packetLine(message string, nat bool, called func(string) string) (line string, ok bool) {
	prefix, rest, ok := strings.Cut(message, "IN=")
	if !ok {
		return "", false
	}
	rest, _, _ = strings.Cut(rest, " [") // the packet that an ICMP error is about
	fields := map[string]string{"IN": ""}
	var flags []string
	for i, word := range strings.Fields("IN=" + rest) {
		name, value, isField := strings.Cut(word, "=")
		switch _, again := fields[name]; {
		case !isField:
			flags = append(flags, word)
		case i == 0, !again: // UDP has a length of its own
			fields[name] = value
		}
	}
	for _, name := range []string{"OUT", "SRC", "DST", "LEN", "PROTO"} {
		if _, ok := fields[name]; !ok {
			return "", false
		}
	}
	in, out := fields["IN"], fields["OUT"]
	chain := "forward"
	switch {
	case nat && out == "":
		chain = "dstnat"
	case nat:
		chain = "srcnat"
	case out == "":
		chain = "input"
	case in == "":
		chain = "output"
	}
	interfaceName := func(name string) string {
		if name == "" {
			return "(unknown 0)"
		}
		return called(name)
	}
	if prefix = strings.TrimRight(prefix, " "); prefix != "" {
		prefix += " "
	}
	b := prefix + chain + ": in:" + interfaceName(in) + " out:" + interfaceName(out)
	// Destination, source and type.
	if mac := strings.Split(fields["MAC"], ":"); len(mac) == 14 {
		b += ", src-mac " + strings.Join(mac[6:12], ":")
	}
	b += ", proto " + fields["PROTO"]
	from, to := fields["SRC"], fields["DST"]
	if detail := packetDetail(fields, flags); detail != "" {
		b += " (" + detail + ")"
	}
	if fields["SPT"] != "" {
		from, to = from+":"+fields["SPT"], to+":"+fields["DPT"]
	}
	return b + ", " + from + "->" + to + ", len " + fields["LEN"], true
}

// packetDetail is the flags of TCP, or type and code of ICMP.
func packetDetail(fields map[string]string, flags []string) string {
	switch fields["PROTO"] {
	case "TCP":
		var set []string
		for _, name := range []string{"SYN", "ACK", "FIN", "RST", "PSH", "URG", "ECE", "CWR"} {
			for _, flag := range flags {
				if flag == name {
					set = append(set, name)
				}
			}
		}
		return strings.Join(set, ",")
	case "ICMP":
		return "type " + fields["TYPE"] + ", code " + fields["CODE"]
	}
	return ""
}
