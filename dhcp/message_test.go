package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func offer() *Message {
	m := &Message{
		Op: BootReply, XID: 0x01020304, Secs: 5, Flags: FlagBroadcast, Client: ip("0.0.0.0"), Your: ip("192.0.2.10"), Next: ip("192.0.2.1"),
		Relay: ip("198.51.100.1"), HardwareType: 1, Hardware: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	}
	m.Options.SetByte(OptionType, byte(Offer))
	m.Options.SetAddrs(OptionServerID, ip("192.0.2.1"))
	m.Options.SetUint32(OptionLeaseTime, 600)
	m.Options.SetAddrs(OptionNameServers, ip("192.0.2.1"), ip("192.0.2.2"))
	m.Options.Set(OptionDomain, []byte("example.com\x00"))
	return m
}

func TestStaticRoutes(t *testing.T) {
	for destination, want := range map[string]string{
		"10.0.0.0": "10.0.0.0/8", "10.1.0.0": "10.1.0.0/16", "10.128.0.0": "10.128.0.0/9", "10.1.2.3": "10.1.2.3/32", "172.16.0.0": "172.16.0.0/16",
		"172.16.4.0": "172.16.4.0/22", "192.168.1.0": "192.168.1.0/24", "192.168.1.128": "192.168.1.128/25", "0.0.0.0": "",
	} {
		var o Options
		o.SetAddrs(OptionStaticRoutes, netip.MustParseAddr(destination), netip.MustParseAddr("192.0.2.1"))
		var got string
		for _, r := range o.StaticRoutes(8) {
			assert.Equal(t, r.Destination.Masked(), r.Destination)
			got += r.Destination.String()
		}
		assert.Equal(t, want, got, destination)
	}
	var o Options
	o.Set(OptionStaticRoutes, make([]byte, 12))
	assert.Empty(t, o.StaticRoutes(8))
	o.Set(OptionStaticRoutes, []byte(strings.Repeat("\x0a\x00\x00\x00\xc0\x00\x02\x01", 31)))
	assert.Len(t, o.StaticRoutes(8), 8)
}

func TestMessage(t *testing.T) {
	m := offer()
	b, err := m.Marshal(MinMaxSize)
	require.NoError(t, err)
	assert.Len(t, b, minMessage, "a BOOTP message has that many")
	got, err := Parse(b)
	require.NoError(t, err)
	assert.Equal(t, m, got)

	o := got.Options
	assert.Equal(t, Offer, o.Type())
	assert.Equal(t, ip("192.0.2.1"), o.Addr(OptionServerID))
	d, ok := o.Seconds(OptionLeaseTime)
	assert.True(t, ok)
	assert.Equal(t, 10*time.Minute, d)
	assert.Equal(t, []netip.Addr{ip("192.0.2.1")}, o.Addrs(OptionNameServers, 1))
	assert.Equal(t, "example.com", o.Text(OptionDomain))

	clear(b) // what Parse returned shares nothing with it
	assert.Equal(t, m, got)
}

// TestOverload fills a message until nothing more fits, and reads each back.
func TestOverload(t *testing.T) {
	for _, size := range []int{1, 50, 255, 256, 300} {
		m := offer()
		fits := 0
		for code := byte(128); ; code++ {
			m.Options.Set(code, bytes.Repeat([]byte{code}, size))
			b, err := m.Marshal(MinMaxSize)
			if err != nil {
				require.ErrorIs(t, err, ErrTooLong)
				break
			}
			fits++
			require.LessOrEqual(t, len(b), MinMaxSize)
			got, err := Parse(b)
			require.NoError(t, err)
			overload, ok := got.Options.Get(OptionOverload)
			if ok {
				require.Len(t, overload, 1)
				got.Options = append(got.Options[:got.Options.find(OptionOverload)], got.Options[got.Options.find(OptionOverload)+1:]...)
			}
			require.Equal(t, m.Options, got.Options, "options of %d bytes", size)
			if code == 254 {
				break
			}
		}
		assert.NotZero(t, fits, "options of %d bytes", size)
	}
}

func TestParseRefuses(t *testing.T) {
	whole, err := offer().Marshal(MinMaxSize)
	require.NoError(t, err)
	with := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(whole)) }
	options := func(o ...byte) []byte { return append(bytes.Clone(whole[:headerSize]), o...) }
	for _, c := range []struct {
		name string
		b    []byte
		want string // of the error; none if it is empty
	}{
		{"nothing", nil, "a DHCP message of 0 bytes"},
		{"one byte short", whole[:headerSize-1], "of 239 bytes"},
		{"no options", whole[:headerSize], ""},
		{"no cookie", with(func(b []byte) []byte { b[236] = 0; return b }), "magic cookie"},
		{"a hardware address too long", with(func(b []byte) []byte { b[2] = 17; return b }), "17 bytes"},
		{"an operation that is none", with(func(b []byte) []byte { b[0] = 3; return b }), "operation 3"},
		{"no end", options(53, 1, 2), ""},
		{"only pads", options(0, 0, 0), ""},
		{"a code alone", options(53), "option 53 is longer"},
		{"a value too long", options(53, 2, 2), "option 53 is longer"},
		{"behind the end", options(255, 53, 9), ""},
		{"overload of a file with a wrong length", append(with(func(b []byte) []byte { b[234], b[235] = 6, 4; clear(b[108:234]); return b[:240] }), 52, 1, 1), "option 6 is longer"},
		{"overload in overload", append(with(func(b []byte) []byte { copy(b[108:], []byte{52, 1, 3, 255}); return b[:240] }), 52, 1, 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.b)
			if c.want == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestOptionsOfWrongLength(t *testing.T) {
	var o Options
	for _, code := range []byte{OptionType, OptionServerID, OptionLeaseTime, OptionNameServers, OptionMaxSize, OptionClasslessRoutes} {
		o.Set(code, []byte{1, 2, 3})
	}
	assert.Zero(t, o.Type())
	assert.False(t, o.Addr(OptionServerID).IsValid())
	_, ok := o.Seconds(OptionLeaseTime)
	assert.False(t, ok)
	_, ok = o.Uint16(OptionMaxSize)
	assert.False(t, ok)
	assert.Nil(t, o.Addrs(OptionNameServers, 8))
	_, ok = o.ClasslessRoutes(8)
	assert.False(t, ok)
	o.Set(OptionHostName, []byte("a\x1b[2J\xff\n"))
	assert.Equal(t, "a?[2J??", o.Text(OptionHostName))
}

func TestClasslessRoutes(t *testing.T) {
	routes := []Route{
		{netip.MustParsePrefix("0.0.0.0/0"), ip("192.0.2.1")}, {netip.MustParsePrefix("10.0.0.0/8"), ip("192.0.2.2")},
		{netip.MustParsePrefix("10.229.0.128/25"), ip("192.0.2.3")}, {netip.MustParsePrefix("203.0.113.7/32"), ip("0.0.0.0")},
	}
	var o Options
	o.SetClasslessRoutes(routes)
	v, _ := o.Get(OptionClasslessRoutes)
	// The forms of RFC 3442's table.
	assert.Equal(t, []byte{0, 192, 0, 2, 1, 8, 10, 192, 0, 2, 2, 25, 10, 229, 0, 128, 192, 0, 2, 3, 32, 203, 0, 113, 7, 0, 0, 0, 0}, v)
	got, ok := o.ClasslessRoutes(64)
	assert.True(t, ok)
	assert.Equal(t, routes, got)
	got, ok = o.ClasslessRoutes(2)
	assert.True(t, ok)
	assert.Equal(t, routes[:2], got)
	for _, v := range [][]byte{{33, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 1, 2, 3}, {24, 1, 2, 3, 4, 5, 6}, {}} {
		o.Set(OptionClasslessRoutes, v)
		_, ok := o.ClasslessRoutes(64)
		assert.False(t, ok, "%v", v)
	}
	// Bits behind the prefix are none of it.
	o.Set(OptionClasslessRoutes, []byte{20, 10, 1, 255, 192, 0, 2, 1})
	got, _ = o.ClasslessRoutes(64)
	assert.Equal(t, netip.MustParsePrefix("10.1.240.0/20"), got[0].Destination)
}

func TestTypeNames(t *testing.T) {
	assert.Equal(t, "DISCOVER", Discover.String())
	assert.Equal(t, "type 99", Type(99).String())
}

func FuzzParse(f *testing.F) {
	plain, _ := offer().Marshal(MinMaxSize)
	long := offer()
	long.Options.Set(OptionVendor, []byte(strings.Repeat("x", 300)))
	overloaded, _ := long.Marshal(MinMaxSize)
	f.Add(plain)
	f.Add(overloaded)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		total := 0
		for _, o := range m.Options {
			total += len(o.Value)
		}
		if total > len(b) {
			t.Fatalf("options of %d bytes from a message of %d", total, len(b))
		}
		_, _ = m.Options.ClasslessRoutes(8)
		_ = m.Options.Addrs(OptionNameServers, 8)
		_ = m.Options.Text(OptionHostName)
		again, err := m.Marshal(1 << 17)
		if err != nil {
			t.Fatal(err)
		}
		read, err := Parse(again)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range m.Options {
			v, ok := read.Options.Get(o.Code)
			if o.Code != OptionOverload && (!ok || !bytes.Equal(v, o.Value)) {
				t.Fatalf("option %d is %v, and was %v", o.Code, v, o.Value)
			}
		}
	})
}
