package neighbor

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/service"
)

func TestMain(m *testing.M) { testnet.Main(m) }

var announcement = Announcement{
	MAC: ether.MAC{2, 0, 0, 0, 0, 1}, Address: netip.MustParseAddr("192.168.0.1"), Identity: "postérn", Platform: "Postern", Version: "v1.2",
	Board: "malta", Interface: "ether2", Uptime: 90061 * time.Second,
}

// What is announced is what a neighbor reads.
func TestAnnouncement(t *testing.T) {
	n, err := parseMNDP(announcement.MNDP(7), true)
	require.NoError(t, err)
	assert.Equal(t, Neighbor{Protocol: MNDP, MAC: announcement.MAC, Address: announcement.Address, Identity: "postérn", Platform: "Postern",
		Version: "v1.2", Board: "malta", Interface: "ether2", Uptime: announcement.Uptime, Hold: mndpHold}, n)
	n, err = parseLLDP(announcement.LLDP(3, false))
	require.NoError(t, err)
	assert.Equal(t, Neighbor{Protocol: LLDP, MAC: announcement.MAC, Address: announcement.Address, Identity: "postérn",
		Description: "Postern v1.2 malta", Interface: "ether2", Can: canRoute, Does: canRoute, Hold: 2 * time.Minute}, n)

	bare := Announcement{MAC: announcement.MAC, Identity: strings.Repeat("x", 500), Interface: "a", Bridge: true}
	n, err = parseMNDP(bare.MNDP(0xFFFF), true)
	require.NoError(t, err)
	assert.Equal(t, Neighbor{Protocol: MNDP, MAC: bare.MAC, Identity: strings.Repeat("x", MaxText), Interface: "a", Hold: mndpHold}, n)
	n, err = parseLLDP(bare.LLDP(1, true))
	require.NoError(t, err)
	assert.Zero(t, n.Hold, "it goes away")
	assert.Equal(t, "bridge,router", Names(n.Does))
	assert.False(t, n.Address.IsValid())
}

// lldpOf is a frame of fields, each its type and its value in hexadecimal digits.
func lldpOf(t testing.TB, fields ...string) []byte {
	b := bytes.Clone(announcement.LLDP(1, false)[:ether.Header])
	for _, f := range fields {
		kind, value, _ := strings.Cut(f, ":")
		bytes, err := hex.DecodeString(value)
		require.NoError(t, err)
		k, err := hex.DecodeString(kind)
		require.NoError(t, err)
		b = append(append(b, k[0]<<1|byte(len(bytes)>>8), byte(len(bytes))), bytes...)
	}
	return b
}

func TestParseLLDP(t *testing.T) {
	begin := []string{"01:04020000000009", "02:0565", "03:0078"}
	whole := append(begin, "00")
	for _, test := range []struct {
		name   string
		frame  []byte
		reason string
	}{
		{"whole", lldpOf(t, whole...), ""},
		{"padding behind the end", append(lldpOf(t, whole...), make([]byte, 40)...), ""},
		{"a field that nobody knows", lldpOf(t, begin[0], begin[1], begin[2], "7F:00120f01", "00"), ""},
		{"no end", lldpOf(t, begin...), "without an end"},
		{"nothing", nil, "no announcement"},
		{"only a header", lldpOf(t), "without an end"},
		{"another order", lldpOf(t, begin[1], begin[0], begin[2], "00"), "does not begin with"},
		{"no time", lldpOf(t, begin[0], begin[1], "00"), "does not begin with"},
		{"a port twice", lldpOf(t, begin[0], begin[1], begin[2], begin[1], "00"), "does not begin with"},
		{"an empty chassis", lldpOf(t, "01:", begin[1], begin[2], "00"), "too short"},
		{"a time of one byte", lldpOf(t, begin[0], begin[1], "03:78", "00"), "too short"},
		{"a field that is not whole", lldpOf(t, whole...)[:ether.Header+5], "not whole"},
	} {
		_, err := parseLLDP(test.frame)
		if test.reason == "" {
			assert.NoError(t, err, test.name)
		} else {
			assert.ErrorContains(t, err, test.reason, test.name)
		}
	}
	n, err := parseLLDP(lldpOf(t, "01:0762", "02:03020000000009", "03:FFFF", "05:"+hex.EncodeToString([]byte("a\x1b[2J\xff\nb")), "06:"+strings.Repeat("78", 511), "00"))
	require.NoError(t, err)
	assert.Equal(t, "02:00:00:00:00:09", n.Interface)
	assert.Equal(t, "a?[2J??b", n.Identity, "no terminal obeys it")
	assert.Equal(t, strings.Repeat("x", MaxText), n.Description)
	assert.Equal(t, time.Hour, n.Hold, "at most")
	group := lldpOf(t, whole...)
	group[6] |= 1
	_, err = parseLLDP(group)
	require.ErrorContains(t, err, "of one device")
}

// A frame of RouterOS 6.47 (packet-mndp.c's fields), as its payload alone.
func TestParseMNDP(t *testing.T) {
	payload, err := hex.DecodeString("00000a1b" + "00010006080027f0d1c2" + "0005000a" + hex.EncodeToString([]byte("MikroTik-1")) +
		"00070010" + hex.EncodeToString([]byte("6.47.10 (stable)")) + "00080008" + hex.EncodeToString([]byte("MikroTik")) +
		"000a0004" + "10270000" + "000b0009" + hex.EncodeToString([]byte("AAAA-BBBB")) + "000c0003" + hex.EncodeToString([]byte("CHR")) +
		"000e000101" + "000f0010" + "fe80000000000000a00000fffef0d1c2" + "00100006" + hex.EncodeToString([]byte("ether1")) + "00110004c0a80158")
	require.NoError(t, err)
	frame := func(payload []byte) []byte {
		f := announcement.MNDP(1)
		const headers = ether.Header + 20 + 8
		f = append(f[:headers:headers], payload...)
		total, length := 28+len(payload), 8+len(payload)
		f[ether.Header+2], f[ether.Header+3] = byte(total>>8), byte(total)
		f[ether.Header+24], f[ether.Header+25] = byte(length>>8), byte(length)
		f[ether.Header+26], f[ether.Header+27] = 0, 0 // no UDP checksum
		f[ether.Header+10], f[ether.Header+11] = 0, 0
		var sum uint32
		for i := 0; i < 20; i += 2 {
			sum += uint32(f[ether.Header+i])<<8 | uint32(f[ether.Header+i+1])
		}
		sum = ^(sum>>16 + sum&0xFFFF)
		f[ether.Header+10], f[ether.Header+11] = byte(sum>>8), byte(sum)
		return f
	}
	n, err := parseMNDP(frame(payload), true)
	require.NoError(t, err)
	assert.Equal(t, Neighbor{Protocol: MNDP, MAC: announcement.MAC, Address: netip.MustParseAddr("192.168.1.88"), Identity: "MikroTik-1",
		Platform: "MikroTik", Version: "6.47.10 (stable)", Board: "CHR", Interface: "ether1", SoftwareID: "AAAA-BBBB",
		Uptime: 10000 * time.Second, Hold: mndpHold}, n)
	for name, test := range map[string]struct {
		payload []byte
		reason  string
	}{
		"a request":       {make([]byte, 4), "a request"},
		"nothing":         {nil, "no announcement"},
		"half a field":    {payload[:6], "not whole"},
		"a field cut off": {payload[:len(payload)-1], "not whole"},
	} {
		_, err := parseMNDP(frame(test.payload), true)
		assert.ErrorContains(t, err, test.reason, name)
	}
}

// Whatever comes, what is made of it is bounded and printable, and goes through the link.
func FuzzParse(f *testing.F) {
	f.Add(true, announcement.LLDP(1, false))
	f.Add(false, announcement.MNDP(1))
	f.Add(true, lldpOf(f, "01:04020000000009", "02:0565", "03:0078", "08:05010a000001020000000100", "00"))
	f.Fuzz(func(t *testing.T, lldp bool, frame []byte) {
		n, err := parse(lldp, true, frame)
		if err != nil {
			return
		}
		var e service.Encoder
		n.encode(&e)
		d := service.NewDecoder(e.Bytes())
		assert.Equal(t, n, decode(d))
		require.NoError(t, d.End())
		for _, s := range n.texts() {
			assert.LessOrEqual(t, len(*s), MaxText)
			assert.Equal(t, text([]byte(*s)), *s)
		}
	})
}

// A process that says what cannot be is not believed.
func TestDecode(t *testing.T) {
	for name, change := range map[string]func(*Neighbor){
		"a group's address": func(n *Neighbor) { n.MAC[0] = 1 },
		"an IPv6 address":   func(n *Neighbor) { n.Address = netip.IPv6Loopback() },
		"a long hold":       func(n *Neighbor) { n.Hold = maxHold + 1 },
		"a negative uptime": func(n *Neighbor) { n.Uptime = -1 },
		"a long text":       func(n *Neighbor) { n.Board = strings.Repeat("x", MaxText+1) },
	} {
		n := Neighbor{Protocol: LLDP, MAC: announcement.MAC}
		change(&n)
		var e service.Encoder
		n.encode(&e)
		d := service.NewDecoder(e.Bytes())
		decode(d)
		require.Error(t, d.End(), name)
	}
	n := Neighbor{Protocol: LLDP, MAC: announcement.MAC, Identity: "a\x1bb"}
	var e service.Encoder
	n.encode(&e)
	assert.Equal(t, "a?b", decode(service.NewDecoder(e.Bytes())).Identity)
}
