package match_test

import (
	"fmt"
	"net/netip"

	"github.com/postern-router/postern/match"
)

func ExampleParseAddresses() {
	lan, err := match.ParseAddresses("192.168.0.0/255.255.255.0")
	if err != nil {
		fmt.Println(err)
		return
	}
	others, err := match.ParseAddresses("!10.0.0.1-10.0.0.9")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lan, lan.Match(netip.MustParseAddr("192.168.0.77")))
	fmt.Println(others, others.Match(netip.MustParseAddr("10.0.0.5")))
	_, err = match.ParseAddresses("10.0.0.9-10.0.0.1")
	fmt.Println(err)
	// Output:
	// 192.168.0.0/24 true
	// !10.0.0.1-10.0.0.9 false
	// "10.0.0.9-10.0.0.1" is not an IPv4 address, prefix, netmask or range: the range ends before it begins
}

func ExampleParsePorts() {
	ports, err := match.ParsePorts("21,1024-65535")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ports, ports.Match(21), ports.Match(80))
	fmt.Println(match.Ports{}.Any(), match.Ports{}.Match(80))
	// Output:
	// 21,1024-65535 true false
	// true true
}

func ExampleAddresses_Prefix() {
	for _, text := range []string{"10.0.0.0-10.0.0.255", "10.0.0.1-10.0.0.9"} {
		a, err := match.ParseAddresses(text)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(a.Prefix())
	}
	// Output:
	// 10.0.0.0/24 true
	// invalid Prefix false
}
