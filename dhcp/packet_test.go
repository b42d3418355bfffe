package dhcp

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
)

var (
	macA = ether.MAC{2, 0, 0, 0, 0, 1}
	macB = ether.MAC{2, 0, 0, 0, 0, 2}
)

func discover(payload string) Packet {
	return Packet{macA, ether.Broadcast, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), []byte(payload)}
}

func TestPacket(t *testing.T) {
	for _, payload := range []string{"", "x", "even", "odd"} {
		p := discover(payload)
		frame := p.Append([]byte("before"))[len("before"):]
		for _, tail := range [][]byte{nil, make([]byte, 18)} { // Ethernet has at least 60 bytes
			got, err := ParsePacket(append(frame, tail...), true)
			require.NoError(t, err)
			assert.Equal(t, p, got)
		}
	}
}

func TestParsePacketRefuses(t *testing.T) {
	whole := discover("payload").Append(nil)
	with := func(at int, value byte) []byte {
		b := bytes.Clone(whole)
		b[at] = value
		return b
	}
	// repaired has the right checksum of the header, so that what was changed is what is wrong.
	repaired := func(at int, value byte) []byte {
		b := with(at, value)
		b[24], b[25] = 0, 0
		sum := checksum(0, b[14:34])
		b[24], b[25] = byte(sum>>8), byte(sum)
		return b
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"nothing", nil, "too short"},
		{"too short", whole[:41], "too short"},
		{"IPv6", with(12, 0x86), "no UDP"},
		{"version", with(14, 0x65), "no UDP"},
		{"TCP", with(23, 6), "no UDP"},
		{"header too short", with(14, 0x44), "length in the IPv4"},
		{"header longer than the packet", with(14, 0x4F), "length in the IPv4"},
		{"longer than the frame", with(17, 0xFF), "length in the IPv4"},
		{"header checksum", with(25, whole[25]+1), "checksum of the IPv4"},
		{"first fragment", repaired(20, 0x20), "fragment"},
		{"later fragment", repaired(21, 1), "fragment"},
		{"UDP too short", with(39, 7), "length in the UDP"},
		{"UDP too long", with(39, 16), "length in the UDP"},
		{"UDP checksum", with(41, whole[41]+1), "UDP checksum"},
		{"payload", with(42, 'x'), "UDP checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParsePacket(c.frame, true)
			assert.ErrorContains(t, err, c.want)
		})
	}
	_, err := ParsePacket(with(41, whole[41]+1), false)
	assert.NoError(t, err, "a checksum that nobody has computed yet")
	none := with(40, 0)
	none[41] = 0
	_, err = ParsePacket(none, true)
	assert.NoError(t, err, "a sender that computes none (RFC 768)")
}

func TestARP(t *testing.T) {
	for _, a := range []ARP{
		Probe(macA, ip("192.0.2.7")),
		{Reply: true, SenderMAC: macB, Sender: ip("192.0.2.7"), TargetMAC: macA, Target: ip("0.0.0.0")},
	} {
		frame := a.Append(nil)
		assert.Len(t, frame, arpSize)
		got, err := ParseARP(append(frame, make([]byte, 18)...))
		require.NoError(t, err)
		assert.Equal(t, a, got)
		for at := 12; at < 22; at++ {
			wrong := bytes.Clone(frame)
			wrong[at] ^= 0x80
			_, err := ParseARP(wrong)
			assert.Error(t, err, "byte %d", at)
		}
		_, err = ParseARP(frame[:arpSize-1])
		assert.Error(t, err)
	}
}

func TestARPHas(t *testing.T) {
	seven, eight := ip("192.0.2.7"), ip("192.0.2.8")
	for _, c := range []struct {
		name string
		arp  ARP
		want bool
	}{
		{"a reply", ARP{Reply: true, SenderMAC: macB, Sender: seven, Target: ip("0.0.0.0")}, true},
		{"a request of its owner's", ARP{SenderMAC: macB, Sender: seven, Target: eight}, true},
		{"somebody's probe for it", Probe(macB, seven), true},
		{"one's own probe", Probe(macA, seven), false},
		{"a question for it", ARP{SenderMAC: macB, Sender: eight, Target: seven}, false},
		{"another address", ARP{Reply: true, SenderMAC: macB, Sender: eight}, false},
	} {
		assert.Equal(t, c.want, c.arp.Has(seven, macA), c.name)
	}
}

func FuzzParsePacket(f *testing.F) {
	f.Add(discover("payload").Append(nil), true)
	f.Add(Probe(macA, ip("192.0.2.7")).Append(nil), false)
	f.Fuzz(func(t *testing.T, frame []byte, ready bool) {
		if p, err := ParsePacket(frame, ready); err == nil {
			if len(p.Payload) > len(frame) {
				t.Fatal("more than came")
			}
			if again, err := ParsePacket(p.Append(nil), true); err != nil || !bytes.Equal(again.Payload, p.Payload) {
				t.Fatalf("%v: %v", p, err)
			}
		}
		if a, err := ParseARP(frame); err == nil {
			if again, err := ParseARP(a.Append(nil)); err != nil || again.Sender != a.Sender || again.SenderMAC != a.SenderMAC {
				t.Fatalf("%v: %v", a, err)
			}
		}
	})
}

func FuzzParseARP(f *testing.F) {
	f.Add(Probe(ether.MAC{2, 0, 0, 0, 0, 1}, ip("192.0.2.1")).Append(nil))
	f.Fuzz(func(t *testing.T, frame []byte) {
		a, err := ParseARP(frame)
		if err != nil {
			return
		}
		require.True(t, a.Sender.Is4() && a.Target.Is4())
		a.Has(ip("192.0.2.1"), ether.MAC{2, 0, 0, 0, 0, 1})
	})
}
