package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// elsewhere is an address that only the stranger has, who is no gateway but by the table of his name.
const elsewhere = "10.9.9.9"

// mangled are rules with every target and matcher of marks and of the tables mangle and raw.
const mangled = `/routing table
add fib name=stranger
/ip route
add gateway=` + strangerAddress + ` routing-table=stranger
/routing rule
add action=unreachable dst-address=203.0.113.0/24
/ip firewall mangle
add action=mark-connection chain=prerouting connection-mark=no-mark dst-port=5000 in-interface=ether2 new-connection-mark=marked protocol=tcp
add action=mark-routing chain=prerouting connection-mark=marked in-interface=ether2 new-routing-mark=stranger passthrough=no
add action=change-mss chain=forward connection-mark=marked new-mss=700 protocol=tcp tcp-flags=syn
add action=change-mss chain=forward new-mss=clamp-to-pmtu out-interface=ether1 protocol=tcp tcp-flags=syn
add action=mark-packet chain=forward connection-mark=marked new-packet-mark=marked
add action=change-ttl chain=forward new-ttl=set:40 packet-mark=marked
add action=change-dscp chain=forward new-dscp=46 packet-mark=marked
add action=passthrough chain=postrouting comment=matches dscp=46 ttl=equal:40
add action=passthrough chain=postrouting comment=matches nth=2,1 packet-mark=marked
add action=passthrough chain=postrouting comment=matches packet-mark=marked random=99
add action=passthrough chain=postrouting comment=matches packet-mark=marked routing-mark=stranger
/ip firewall raw
add action=notrack chain=prerouting dst-port=5002 protocol=udp
/ip firewall nat
add action=netmap chain=dstnat dst-address=10.99.0.0/24 to-addresses=10.1.0.0/24
`

// seeMangled sends what these rules take, and what they leave.
func (r *router) seeMangled(t *testing.T) {
	require.NoError(t, r.n[stranger].IP("addr add "+elsewhere+"/32 dev lo"))
	l, err := r.n[stranger].Listen(elsewhere + ":5000")
	require.NoError(t, err)
	defer l.Close()
	for range 20 { // that random=99 leaves each of them is not to be expected
		conn, err := r.n.dial(client, elsewhere+":5000", patience)
		require.NoError(t, err)
		taken, err := l.AcceptTCP()
		require.NoError(t, err)
		raw, err := taken.SyscallConn()
		require.NoError(t, err)
		var mss int
		require.NoError(t, errors.Join(raw.Control(func(fd uintptr) { mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }), err))
		assert.LessOrEqual(t, mss, 700)
		conn.Close()
		taken.Close()
	}
	_, err = r.n.dial(client, elsewhere+":5001", patience)
	assert.Error(t, err, "the gateway knows no way there")
	_, err = r.n.dial(client, "203.0.113.1:80", patience)
	assert.ErrorContains(t, err, "network is unreachable")
	conn, err := r.n.dial(client, strings.Replace(gatewayAddress, "10.1.0.", "10.99.0.", 1)+":1", patience)
	if err == nil {
		conn.Close()
	}
	assert.ErrorContains(t, err, "connection refused", "by the gateway")
	assert.Equal(t, "4", strings.TrimSpace(r.command(t, "/ip firewall mangle print count-only where comment=matches packets>0")))
}
