package firewall

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Helper is a part of connection tracking that reads what hosts say on a connection, to learn which other connection
// is to follow: that is then related, and translated as the first one is.
type Helper struct {
	// Ports are the TCP ports of servers: at most MaxHelperPorts, each once.
	Ports    []uint16
	Disabled bool
}

// MaxHelperPorts is how many ports a Helper can have.
const MaxHelperPorts = 8

// FTPPort is the port of FTP's servers (RFC 959).
const FTPPort = 21

const (
	// helperChain assigns the helper, and helperEnd accepts behind that.
	helperChain = "postern-helpers"
	helperEnd   = "postern-helpers-end"
)

// helped are the ports of FTP's servers whose connections through the router are read.
func (c *Config) helped() []uint16 {
	if c.FTP.Disabled {
		return nil
	}
	return c.FTP.Ports
}

// withHelper adds to the chains of Raw, which are those of es, what assigns FTP's helper to the connections that begin
// at one of ports. It comes last, as a packet that the target CT has seen once is not looked at again: notrack must come before. So where a rule
// accepts, helperEnd does. A chain that does so may be one of output too: what the router itself says, as for a client of SOCKS, opens none of its own ports.
func withHelper(chains []kernelChain, es []entry, ports []uint16) []kernelChain {
	if len(ports) == 0 {
		return chains
	}
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = strconv.Itoa(int(p))
	}
	which := []string{"-m", "tcp", "--dport", words[0]}
	if len(words) > 1 {
		which = []string{"-m", "multiport", "--dports", strings.Join(words, ",")}
	}
	k := kernelChains{place: map[string]int{}}
	for _, name := range []string{helperChain, helperEnd} {
		k.chain(-1, name)
	}
	k.add(helperChain, kernelRule{entry: -1, match: slices.Concat([]string{"-p", "tcp"}, which, []string{"-m", "addrtype", "!", "--src-type", "LOCAL"}), target: []string{"-j", "CT", "--helper", "ftp"}})
	k.add(helperEnd, kernelRule{entry: -1, target: []string{"-j", helperChain}})
	k.add(helperEnd, kernelRule{entry: -1, target: []string{"-j", "ACCEPT"}})
	accepts := func(e entry) bool { return e.chain != "OUTPUT" }
	return append(endBy(chains, es, "PREROUTING", helperChain, helperEnd, accepts), k.all...)
}

// endBy returns chains, which are those of es, with a jump to the chain last at the end of the built-in one. Where an entry for
// which which says so accepts, it goes to the chain end instead.
func endBy(chains []kernelChain, es []entry, builtin, last, end string, which func(entry) bool) []kernelChain {
	chains = slices.Clone(chains)
	for i, c := range chains {
		rules := slices.Clone(c.rules)
		for n, r := range rules {
			if r.entry >= 0 && which(es[r.entry]) && slices.Equal(r.target, []string{"-j", "ACCEPT"}) {
				rules[n].target = []string{"-j", end}
			}
		}
		if c.name == builtin {
			rules = append(rules, kernelRule{entry: -1, target: []string{"-j", last}})
		}
		chains[i].rules = rules
	}
	return chains
}

// check refuses what iptables would, or would read in another sense.
func (h Helper) check() error {
	seen := map[uint16]bool{}
	for _, p := range h.Ports {
		if p == 0 || seen[p] {
			return fmt.Errorf("helper: ports=%d: expected ports of 1..65535, each once", p)
		}
		seen[p] = true
	}
	if len(h.Ports) > MaxHelperPorts {
		return fmt.Errorf("helper: expected at most %d ports, got %d", MaxHelperPorts, len(h.Ports))
	}
	return nil
}
