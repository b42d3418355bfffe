package netcfg

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func address(prefix, port string) Address {
	return Address{Address: netip.MustParsePrefix(prefix), Interface: port}
}

func by(dst, gateway string, distance int) Route {
	return Route{Destination: netip.MustParsePrefix(dst), Gateway: netip.MustParseAddr(gateway), Distance: distance}
}

func TestValidate(t *testing.T) {
	addresses := func(a ...Address) Config { return Config{Addresses: a} }
	routes := func(r ...Route) Config { return Config{Routes: r} }
	links := func(l ...Link) Config { return Config{Links: l} }
	off := address("10.0.0.1/24", "ether1")
	off.Disabled = true

	tests := []struct {
		name   string
		config Config
		err    string
	}{
		{"nothing", Config{}, ""},
		{"an ordinary router", Config{
			Links:      []Link{{Name: "ether1", MTU: 1492}, {Name: "ether2"}},
			Addresses:  []Address{address("10.0.0.1/24", "ether1"), address("10.0.0.2/24", "ether1"), address("169.254.1.1/16", "ether2")},
			Routes:     []Route{by("0.0.0.0/0", "10.0.0.254", 1), by("0.0.0.0/0", "10.0.0.253", 2)},
			Forwarding: true,
		}, ""},
		{"a link that is no port", links(Link{Name: "ether9"}), "link: name=ether9: expected a port (ether1, ether2)"},
		{"a link twice", links(Link{Name: "ether1"}, Link{Name: "ether1"}), "link: name=ether1: expected each port once"},
		{"smallest MTU", links(Link{Name: "ether1", MTU: 68}), ""},
		{"MTU too small", links(Link{Name: "ether1", MTU: 67}), "link ether1: mtu=67: expected 68..65535, or 0 for the driver's"},
		{"MTU too large", links(Link{Name: "ether1", MTU: 65536}), "link ether1: mtu=65536: expected 68..65535, or 0 for the driver's"},
		{"an address on no port", addresses(address("10.0.0.1/24", "lan")), "address 10.0.0.1/24: interface=lan: expected an interface (ether1, ether2)"},
		{"no address", addresses(Address{Interface: "ether1"}), "address: address=invalid Prefix: expected an IPv4 address with prefix length, such as 192.168.0.1/24"},
		{"an IPv6 address", addresses(address("fd00::1/64", "ether1")), "address: address=fd00::1/64: expected an IPv4 address with prefix length, such as 192.168.0.1/24"},
		{"a prefix of no bits", addresses(address("10.0.0.1/0", "ether1")), "address: address=10.0.0.1/0: expected a prefix length of 1..32"},
		{"multicast", addresses(address("224.0.0.5/24", "ether1")), "address: address=224.0.0.5/24: expected a host address, neither unspecified, loopback, multicast nor broadcast"},
		{"loopback", addresses(address("127.0.0.2/8", "ether1")), "address: address=127.0.0.2/8: expected a host address, neither unspecified, loopback, multicast nor broadcast"},
		{"unspecified", addresses(address("0.0.0.0/8", "ether1")), "address: address=0.0.0.0/8: expected a host address, neither unspecified, loopback, multicast nor broadcast"},
		{"broadcast", addresses(address("255.255.255.255/32", "ether1")), "address: address=255.255.255.255/32: expected a host address, neither unspecified, loopback, multicast nor broadcast"},
		{"an address twice", addresses(address("10.0.0.1/24", "ether1"), address("10.0.0.1/16", "ether1")), "address: address=10.0.0.1/16: expected each address once, ether1 has 10.0.0.1/24 already"},
		{"an address twice, one disabled", addresses(off, address("10.0.0.1/24", "ether1")), ""},
		{"an address on two ports", addresses(address("10.0.0.1/24", "ether1"), address("10.0.0.1/24", "ether2")), ""},
		{"no destination", routes(Route{}), "route: dst-address=invalid Prefix: expected an IPv4 network, such as 10.0.0.0/8"},
		{"host bits", routes(by("10.0.0.1/24", "192.168.0.1", 1)), "route: dst-address=10.0.0.1/24: expected no bits beyond the prefix, such as 10.0.0.0/24"},
		{"an IPv6 gateway", routes(by("10.0.0.0/24", "fd00::1", 1)), "route 10.0.0.0/24: gateway=fd00::1: expected an IPv4 host address"},
		{"no gateway", routes(Route{Destination: netip.MustParsePrefix("10.0.0.0/24"), Distance: 1}), "route 10.0.0.0/24: expected a gateway, which only type=blackhole | unreachable | prohibit does without"},
		{"the router as its own gateway", Config{
			Addresses: []Address{address("192.168.0.1/24", "ether2")},
			Routes:    []Route{by("10.0.0.0/24", "192.168.0.1", 1)},
		}, "route 10.0.0.0/24: gateway=192.168.0.1: expected a neighbour, ether2 has this address itself"},
		{"distance 0", routes(by("10.0.0.0/24", "192.168.0.1", 0)), "route 10.0.0.0/24: distance=0: expected 1..255"},
		{"distance 256", routes(by("10.0.0.0/24", "192.168.0.1", 256)), "route 10.0.0.0/24: distance=256: expected 1..255"},
		{"a route twice", routes(by("10.0.0.0/24", "192.168.0.1", 1), by("10.0.0.0/24", "192.168.0.2", 1)), "route 10.0.0.0/24: distance=1: expected another distance, the route by 192.168.0.1 has this one"},
	}
	ports := []Port{{"ether1", "eth0"}, {"ether2", "eth1"}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.config.Validate(ports)
			if tt.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.err)
		})
	}
}

func TestNewRefusesPorts(t *testing.T) {
	tests := []struct {
		name  string
		ports []Port
		err   string
	}{
		{"no name", []Port{{"", "eth0"}}, `port: name="": expected an interface name of 1..15 bytes`},
		{"lo", []Port{{"lo", "eth0"}}, `port: name="lo": expected an interface name of 1..15 bytes`},
		{"a pattern", []Port{{"eth%d", "eth0"}}, `port: name="eth%d": expected an interface name of 1..15 bytes`},
		{"too long", []Port{{"sixteen-letters-", "eth0"}}, `port: name="sixteen-letters-": expected an interface name of 1..15 bytes`},
		{"no device", []Port{{"ether1", ""}}, `port ether1: device="": expected a path below /sys/devices or a kernel name`},
		{"a name twice", []Port{{"a", "eth0"}, {"a", "eth1"}}, `port a: device=eth1: expected each name and each device once`},
		{"a device twice", []Port{{"a", "eth0"}, {"b", "eth0"}}, `port b: device=eth0: expected each name and each device once`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.ports, t.Logf)
			assert.EqualError(t, err, tt.err)
		})
	}
}
