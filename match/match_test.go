package match

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseAddresses(t *testing.T) {
	for _, c := range []struct{ in, out, inside, outside string }{
		{"192.168.0.2", "192.168.0.2", "192.168.0.2", "192.168.0.3"},
		{"192.168.0.2/32", "192.168.0.2", "192.168.0.2", "192.168.0.1"},
		{"192.168.0.0/24", "192.168.0.0/24", "192.168.0.255", "192.168.1.0"},
		{"192.168.0.77/24", "192.168.0.0/24", "192.168.0.0", "192.167.255.255"},
		{"10.0.0.0/255.0.0.0", "10.0.0.0/8", "10.255.1.1", "11.0.0.0"},
		{"10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9", "10.0.0.9", "10.0.0.10"},
		{"10.0.0.0-10.0.0.255", "10.0.0.0/24", "10.0.0.9", "10.0.1.0"},
		{"!10.0.0.0/8", "!10.0.0.0/8", "11.0.0.0", "10.0.0.0"},
		{"0.0.0.0/0", "0.0.0.0/0", "255.255.255.255", "::1"},
		{"0.0.0.0/0.0.0.0", "0.0.0.0/0", "1.2.3.4", "::1"},
		{"10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.2"},
	} {
		t.Run(c.in, func(t *testing.T) {
			a, err := ParseAddresses(c.in)
			require.NoError(t, err)
			assert.Equal(t, c.out, a.String())
			assert.True(t, a.Match(netip.MustParseAddr(c.inside)), "inside")
			assert.False(t, a.Match(netip.MustParseAddr(c.outside)), "outside")
		})
	}
	var any Addresses
	assert.True(t, any.Any() && any.Match(netip.MustParseAddr("1.2.3.4")))
	assert.Empty(t, any.String())
}

func TestParseAddressesErrors(t *testing.T) {
	for _, in := range []string{"!", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/255.0.255.0", "1.2.3.4/+8",
		"10.0.0.9-10.0.0.1", "10.0.0.1-", "-", "::1", "::ffff:1.2.3.4", "1.2.3.4/0x8", "01.2.3.4", "1.2.3.4 "} {
		_, err := ParseAddresses(in)
		assert.ErrorContains(t, err, in, "%q", in)
	}
}

func TestParsePorts(t *testing.T) {
	for _, c := range []struct {
		in      string
		inside  uint16
		outside uint16
	}{
		{"21", 21, 20},
		{"1024-65535", 65535, 1023},
		{"20-21,80,443", 443, 22},
		{"!21", 22, 21},
		{"!1-1023", 0, 1},
	} {
		t.Run(c.in, func(t *testing.T) {
			p, err := ParsePorts(c.in)
			require.NoError(t, err)
			assert.Equal(t, c.in, p.String())
			assert.True(t, p.Match(c.inside), "inside")
			assert.False(t, p.Match(c.outside), "outside")
		})
	}
	var any Ports
	assert.True(t, any.Any() && any.Match(0))
}

func TestParsePortsErrors(t *testing.T) {
	for _, in := range []string{"!", "65536", "5-4", "1,,2", "+1", "-", "1-", "http", "1-2-3",
		"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "1-2,3-4,5-6,7-8,9-10,11-12,13-14,15-16"} {
		_, err := ParsePorts(in)
		assert.ErrorContains(t, err, in)
	}
}

func FuzzParseAddresses(f *testing.F) {
	for _, s := range []string{"", "1.2.3.4", "!1.2.3.4/8", "1.2.3.4-5.6.7.8", "1.2.3.4/255.255.0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddresses(s)
		if err != nil {
			return
		}
		b, err := ParseAddresses(a.String())
		require.NoError(t, err)
		require.Equal(t, a, b)
	})
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"", "1", "!1,2-3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePorts(s)
		if err != nil {
			return
		}
		q, err := ParsePorts(p.String())
		require.NoError(t, err)
		require.Equal(t, p, q)
	})
}

// FuzzParsePrefix: a prefix, and an address, is written as it can be read again.
func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "1.2.3.0/24", "1.2.3.0/255.255.255.0", "01.2.3.4", "1.2.3.4/33"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseIPv4(s); err == nil {
			require.True(t, a.Is4())
			b, err := ParseIPv4(a.String())
			require.NoError(t, err)
			require.Equal(t, a, b)
		}
		p, err := ParsePrefix(s)
		if err != nil {
			return
		}
		require.True(t, p.IsValid() && p.Addr().Is4())
		q, err := ParsePrefix(p.String())
		require.NoError(t, err)
		require.Equal(t, p, q)
	})
}
