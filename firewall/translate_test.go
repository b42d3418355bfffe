package firewall

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTranslation(t *testing.T) {
	at := netip.MustParseAddrPort
	connection := Tracked{Protocol: "tcp", Src: at("192.168.0.2:1238"), Dst: at("10.5.8.8:21"), ReplySrc: at("10.5.8.8:21"), ReplyDst: at("10.1.0.104:1238")}
	masquerade := Rule{Chain: "srcnat", Action: "masquerade", SrcAddress: addresses("192.168.0.0/24")}
	byWAN := Rule{Chain: "srcnat", Action: "masquerade", OutInterface: "ether1"}
	with := func(r Rule, change func(*Rule)) Rule {
		change(&r)
		return r
	}
	for _, c := range []struct {
		name      string
		old, next []Rule
		same      bool
	}{
		{"no rules", nil, nil, true},
		{"the same", []Rule{masquerade}, []Rule{masquerade}, true},
		{"a new one", nil, []Rule{masquerade}, false},
		{"one less", []Rule{masquerade}, nil, false},
		{"disabled", []Rule{masquerade}, []Rule{with(masquerade, func(r *Rule) { r.Disabled = true })}, false},
		{"a comment", []Rule{masquerade}, []Rule{with(masquerade, func(r *Rule) { r.Comment = "x" })}, true},
		{"one for another network", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "masquerade", SrcAddress: addresses("192.168.1.0/24")}, masquerade}, true},
		{"one for another protocol", []Rule{masquerade}, []Rule{with(masquerade, func(r *Rule) { r.Protocol = "udp" }), masquerade}, true},
		{"one for the protocol, to other ports", []Rule{masquerade}, []Rule{with(masquerade, func(r *Rule) { r.Protocol, r.ToPorts = "tcp", ports("1024-2047") }), masquerade}, false},
		{"one for the protocol by number", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "accept", Protocol: "6"}, masquerade}, false},
		{"one for all other protocols", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "accept", Protocol: "!tcp"}, masquerade}, true},
		{"one for another port", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "accept", Protocol: "tcp", DstPort: ports("22")}, masquerade}, true},
		{"one for the port", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "accept", Protocol: "tcp", DstPort: ports("20-25")}, masquerade}, false},
		{"one for later packets", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "accept", ConnectionState: "established"}, masquerade}, true},
		{"one for first packets", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "accept", ConnectionState: "new,related"}, masquerade}, false},
		{"one that only counts", []Rule{masquerade}, []Rule{{Chain: "srcnat", Action: "passthrough"}, {Chain: "srcnat", Action: "log"}, masquerade}, true},
		{"one behind the one that decides", []Rule{masquerade}, []Rule{masquerade, {Chain: "srcnat", Action: "src-nat", ToAddresses: addresses("1.2.3.4")}}, true},
		{"the other order", []Rule{masquerade, {Chain: "srcnat", Action: "accept"}}, []Rule{{Chain: "srcnat", Action: "accept"}, masquerade}, false},
		{"by an interface", []Rule{byWAN}, []Rule{byWAN}, true},
		{"by another interface", []Rule{byWAN}, []Rule{with(byWAN, func(r *Rule) { r.OutInterface = "ether2" })}, false},
		{"one behind one that may not decide", []Rule{byWAN}, []Rule{byWAN, {Chain: "srcnat", Action: "src-nat", ToAddresses: addresses("1.2.3.4")}}, false},
		{"a destination", nil, []Rule{{Chain: "dstnat", Action: "dst-nat", DstAddress: addresses("10.5.8.8"), ToAddresses: addresses("192.168.0.9")}}, false},
		{"another destination", nil, []Rule{{Chain: "dstnat", Action: "dst-nat", DstAddress: addresses("10.1.0.104"), ToAddresses: addresses("192.168.0.9")}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.same, connection.translation(translations(Config{NAT: c.old}, nil)) == connection.translation(translations(Config{NAT: c.next}, nil)))
		})
	}
	ping := Tracked{Protocol: "icmp", Src: at("192.168.0.2:0"), Dst: at("10.5.8.8:0"), icmpType: 8}
	for options, want := range map[string]bool{"8": true, "8:0": true, "0:0": false, "8:1": false, "8:0-255": true, "": true} {
		assert.Equal(t, want, ping.mayMatch(translation{Rule: Rule{Chain: "srcnat", Protocol: "icmp", ICMPOptions: options}}, "srcnat"), options)
	}
}

// New rules reach connections that are open: without that, a flow goes on as it began for as
// long as it lasts.
func TestForgetRetranslated(t *testing.T) {
	s := newSite(t)
	s.apply(nil)
	client, server := s.udp()
	conn, _ := s.tcp()
	other := s.tracked("tcp", "established")
	assert.Equal(t, clientIP, s.exchange(client, server).Addr().String())

	udpOnly := []Rule{{Chain: "srcnat", Action: "masquerade", Protocol: "udp"}}
	s.apply(udpOnly)
	n, err := s.firewall.ForgetRetranslated(Config{}, Config{NAT: udpOnly})
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.Equal(t, "10.5.8.1", s.exchange(client, server).Addr().String())
	assert.Equal(t, other.flow(), s.tracked("tcp", "established").flow(), "what is treated as before")
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)

	s.apply(nil)
	n, err = s.firewall.ForgetRetranslated(Config{NAT: udpOnly}, Config{})
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.Equal(t, clientIP, s.exchange(client, server).Addr().String())
	n, err = s.firewall.ForgetRetranslated(Config{}, Config{})
	require.NoError(t, err)
	assert.Zero(t, n)
}

// RouterOS's default rule of forward drops what comes from outside, unless a nat rule has sent it
// to a host.
func TestConnectionNATState(t *testing.T) {
	s := newSite(t)
	require.NoError(t, s.firewall.Apply(Config{
		Filter: []Rule{{Chain: "forward", Action: "drop", ConnectionState: "new", ConnectionNATState: "!dstnat", InInterface: "ether1"}},
		NAT: []Rule{masquerade[0], {Chain: "dstnat", Action: "dst-nat", Protocol: "tcp", DstAddress: addresses("10.5.8.1"),
			DstPort: ports("8080"), ToAddresses: addresses(clientIP), ToPorts: ports("80")}},
	}))
	l, err := s.client.Listen(clientIP + ":80")
	require.NoError(t, err)
	defer l.Close()
	conn, err := s.server.Dial(&net.Dialer{Timeout: time.Minute}, "10.5.8.1:8080")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	_, err = s.server.Dial(&net.Dialer{Timeout: time.Second}, clientIP+":80")
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout(), "%v", err)
	s.tcp() // the other way
}
