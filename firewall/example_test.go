package firewall_test

import (
	"fmt"
	"log"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
)

// A LAN behind one address: it is masqueraded, and what the outside begins is dropped. The
// tests of this package run in a network namespace; on a machine with a network of its own
// this replaces all of its rules.
func Example() {
	fw, err := firewall.New("iptables-legacy")
	if err != nil {
		log.Fatal(err)
	}
	lan, err := match.ParseAddresses("192.168.0.0/24")
	if err != nil {
		log.Fatal(err)
	}
	rules := firewall.Config{
		Filter: []firewall.Rule{
			{Chain: "forward", Action: "accept", ConnectionState: "established,related"},
			{Chain: "forward", Action: "drop", InInterface: "!ether2"},
		},
		NAT: []firewall.Rule{{Chain: "srcnat", Action: "masquerade", SrcAddress: lan}},
	}
	if err := fw.Apply(rules); err != nil {
		log.Fatal(err)
	}
	filter, err := fw.Counters(firewall.Filter)
	if err != nil {
		log.Fatal(err)
	}
	for i, r := range rules.Filter {
		fmt.Println(r, filter[i].Packets)
	}
	nat, err := fw.Counters(firewall.NAT)
	if err != nil {
		log.Fatal(err)
	}
	for i, r := range rules.NAT {
		fmt.Println(r, nat[i].Packets)
	}

	// A configuration with one bad rule changes nothing.
	rules.Filter[1].InInterface = "a port of the LAN"
	fmt.Println(fw.Apply(rules))
	// Output:
	// chain=forward action=accept connection-state=established,related 0
	// chain=forward action=drop in-interface=!ether2 0
	// chain=srcnat action=masquerade src-address=192.168.0.0/24 0
	// firewall: apply: filter rule 1: in-interface="a port of the LAN": expected a name of 1..15 letters, digits, ".", "_" or "-", "!" in front for any other
}

// What a router forwards before its rules are known: nothing.
func ExampleFirewall_Lock() {
	fw, err := firewall.New("iptables-legacy")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(fw.Lock())
	// Output: <nil>
}
