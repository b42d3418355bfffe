package socks

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseDatagram(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name, bytes string
		want        datagram
		err         error
	}{
		{name: "address", bytes: "\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35data", want: datagram{addr: netip.MustParseAddr("1.2.3.4"), port: 53, data: []byte("data")}},
		{name: "no data", bytes: "\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35", want: datagram{addr: netip.MustParseAddr("1.2.3.4"), port: 53, data: []byte{}}},
		{name: "RSV means nothing", bytes: "\xff\xff\x00\x01\x01\x02\x03\x04\xff\xff!", want: datagram{addr: netip.MustParseAddr("1.2.3.4"), port: 65535, data: []byte("!")}},
		{name: "name", bytes: "\x00\x00\x00\x03\x04name\x01\x00data", want: datagram{host: []byte("name"), port: 256, data: []byte("data")}},
		{name: "the longest name", bytes: "\x00\x00\x00\x03\xff" + long + "\x00\x01", want: datagram{host: []byte(long), port: 1, data: []byte{}}},
		{name: "a fragment", bytes: "\x00\x00\x01\x01\x01\x02\x03\x04\x00\x35data", err: errFragment},
		{name: "the last fragment", bytes: "\x00\x00\x81\x01\x01\x02\x03\x04\x00\x35data", err: errFragment},
		{name: "IPv6", bytes: "\x00\x00\x00\x04" + strings.Repeat("\x00", 18) + "data", err: errAddressType},
		{name: "no such type", bytes: "\x00\x00\x00\x02\x01\x02\x03\x04\x00\x35", err: errAddressType},
		{name: "nothing", bytes: "", err: errShortHeader},
		{name: "half an address", bytes: "\x00\x00\x00\x01\x01\x02", err: errShortHeader},
		{name: "half a port", bytes: "\x00\x00\x00\x01\x01\x02\x03\x04\x00", err: errShortHeader},
		{name: "half a name", bytes: "\x00\x00\x00\x03\x05name", err: errShortHeader},
		{name: "a name and half a port", bytes: "\x00\x00\x00\x03\x04name\x00", err: errShortHeader},
		{name: "empty name", bytes: "\x00\x00\x00\x03\x00\x00\x35data", err: errEmptyName},
		{name: "port 0", bytes: "\x00\x00\x00\x01\x01\x02\x03\x04\x00\x00data", err: errNoPort},
		{name: "a name and port 0", bytes: "\x00\x00\x00\x03\x04name\x00\x00data", err: errNoPort},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseDatagram([]byte(c.bytes))
			assert.ErrorIs(t, err, c.err)
			assert.Equal(t, c.want, got)
		})
	}
}

// FuzzDatagram: a datagram that is taken has all its parts, in their order, and nothing else;
// the header of an answer is one that would be taken.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35data"))
	f.Add([]byte("\x00\x00\x00\x03\x04name\x01\x00data"))
	f.Add([]byte("\x00\x00\x01\x01\x01\x02\x03\x04\x00\x35"))
	f.Add([]byte("\x00\x00\x00\x04" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		d, err := parseDatagram(b)
		require.Equal(t, before, b)
		if err != nil {
			require.Equal(t, datagram{}, d)
			return
		}
		require.NotZero(t, d.port)
		require.Equal(t, d.host == nil, d.addr.IsValid())
		again := []byte{b[0], b[1], 0}
		if d.host == nil {
			var header [headerLength]byte
			putHeader(&header, netip.AddrPortFrom(d.addr, d.port))
			require.Equal(t, b[2:headerLength], header[2:])
			again = append(again, header[3:]...)
		} else {
			again = append(again, addressName, byte(len(d.host)))
			again = append(append(again, d.host...), byte(d.port>>8), byte(d.port))
		}
		require.Equal(t, b, append(again, d.data...))
	})
}
