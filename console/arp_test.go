package console

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
)

// arpLive has two neighbours that come and go, and one that the DHCP server has added.
func arpLive() Live {
	live := linkLive()
	live.Neighbors = func() ([]Neighbor, error) {
		return []Neighbor{
			{Address: netip.MustParseAddr("192.168.0.2"), MAC: ether.MAC{2, 0, 0, 0, 0, 0xab}, Interface: "ether2"},
			{Address: netip.MustParseAddr("192.168.0.77"), Interface: "ether2"},
			{Address: netip.MustParseAddr("192.168.0.9"), MAC: ether.MAC{2, 0, 0, 0, 0, 9}, Interface: "ether2", Stays: true},
		}, nil
	}
	return live
}

func TestARP(t *testing.T) {
	var s Session
	cfg := Default()
	run := func(line string) Result {
		t.Helper()
		result, err := s.Execute(cfg, arpLive(), line)
		require.NoError(t, err, line)
		require.NoError(t, Validate(result.Config, []string{"ether1", "ether2"}), line)
		cfg = result.Config
		return result
	}
	fails := func(line, want string) {
		t.Helper()
		result, err := s.Execute(cfg, arpLive(), line)
		if err == nil {
			err = Validate(result.Config, []string{"ether1", "ether2"})
		}
		require.EqualError(t, err, want, line)
	}
	const legend = "Flags: X - disabled, I - invalid, D - dynamic, H - DHCP, P - published, C - complete\n #    ADDRESS         MAC-ADDRESS       INTERFACE\n"
	assert.Equal(t, legend+" 0 DC 192.168.0.2     02:00:00:00:00:AB ether2\n 1 D  192.168.0.77                      ether2\n 2 DH 192.168.0.9     02:00:00:00:00:09 ether2\n", run("/ip arp print").Output)

	removed := run("/ip arp remove [find address=192.168.0.77]").Action.ForgetNeighbors
	assert.Equal(t, []Neighbor{{Address: netip.MustParseAddr("192.168.0.77"), Interface: "ether2"}}, removed)
	fails("/ip arp remove 2", "failure: 192.168.0.9 is there by add-arp of a DHCP server, for as long as the lease")
	fails("/ip arp make-static 1", "failure: the hardware address of 192.168.0.77 is not known; expected an entry with the flag C")
	fails("/ip arp set 0 comment=x", "failure: can not change dynamic item: 0")
	run("/ip arp make-static 0")
	run("/ip arp add address=10.9.9.9 interface=ether2 published=yes")
	run("/ip arp add address=192.168.0.3 interface=ether2 mac-address=02:00:00:00:00:03 disabled=yes comment=spare")
	assert.Equal(t, "/ip arp\nadd address=192.168.0.2 interface=ether2 mac-address=02:00:00:00:00:AB\nadd address=10.9.9.9 interface=ether2 published=yes\n"+
		"add address=192.168.0.3 comment=spare disabled=yes interface=ether2 \\\n    mac-address=02:00:00:00:00:03\n", Export(cfg))
	assert.Equal(t, legend+" 0 D  192.168.0.77                      ether2\n 1 DH 192.168.0.9     02:00:00:00:00:09 ether2\n 2  C 192.168.0.2     02:00:00:00:00:AB ether2\n"+
		" 3  P 10.9.9.9                          ether2\n 4 XC ;;; spare\n      192.168.0.3     02:00:00:00:00:03 ether2\n", run("/ip arp print").Output)
	assert.Equal(t, "1\n", run("/ip arp print count-only where published").Output)
	run("/interface ethernet set ether2 name=lan")
	assert.Contains(t, run("/ip arp print terse where address=192.168.0.2").Output, "interface=lan\n")
	assert.Equal(t, "ether2", cfg.Network().Neighbors[0].Interface)
	fails("/ip arp add address=192.168.0.2 interface=lan mac-address=02:00:00:00:00:04", "arp: address=192.168.0.2: expected each address once on ether2")
	fails("/ip arp add address=192.168.0.4 interface=lan", "arp 192.168.0.4: needs mac-address or published")
	run("/ip arp remove [find !dynamic]")
	assert.Equal(t, "3\n", run("/ip arp print count-only where dynamic").Output)

	run("/interface ethernet set ether1 arp=reply-only; /interface bridge add name=b arp=proxy-arp; /interface vlan add name=v interface=ether1 arp=disabled")
	assert.Equal(t, "reply-only proxy-arp disabled", cfg.Links[1].ARP+" "+cfg.Bridges[0].ARP+" "+cfg.VLANs[0].ARP)
	run("/interface ethernet set ether1 arp=enabled; /interface bridge set b arp=local-proxy-arp; /interface vlan set v arp=enabled")
	assert.Equal(t, "local-proxy-arp ", cfg.Bridges[0].ARP+" "+cfg.VLANs[0].ARP)

	broken := arpLive()
	broken.Neighbors = func() ([]Neighbor, error) { return nil, errors.New("broken") }
	_, err := s.Execute(cfg, broken, "/ip arp remove 0")
	require.EqualError(t, err, "list neighbours: broken")
}

// What arp=reply-only closes it closes by destinations: a network that another interface has too is refused, where it is set.
func TestReplyOnlySharesNoNetwork(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	run := func(cfg Config, lines string) (Config, error) {
		result, err := new(Session).Execute(cfg, fullLive(), lines)
		require.NoError(t, err)
		return result.Config, ValidateChange(cfg, result.Config, ports)
	}
	const one, mode = "/ip address add address=10.0.0.1/24 interface=ether1", "/interface ethernet set ether2 arp=reply-only"
	const refused = "/ip address: 10.0.0.1/24 on ether1 is in the network of ether2 too, whose arp=reply-only would close it on both: expected another network, or another mode of arp"
	two, err := run(Default(), one+"; /ip address add address=10.0.0.2/24 interface=ether2")
	require.NoError(t, err)
	kept, err := run(two, mode)
	assert.EqualError(t, err, refused)
	require.NoError(t, Validate(kept, ports))
	_, err = run(kept, "/system identity set name=x")
	assert.NoError(t, err, "what was kept stays")
	_, err = run(kept, "/ip address set [find interface=ether1] comment=x")
	assert.NoError(t, err, "what was kept stays")
	const second = "/ip address add address=10.1.0.1/24 interface=ether1; /ip address add address=10.1.0.2/24 interface=ether2"
	_, err = run(kept, second)
	assert.EqualError(t, err, strings.Replace(refused, "10.0.0.1", "10.1.0.1", 1), "a second network beside one that is shared already")
	_, err = run(Default(), one+"; "+mode+"; /ip address add address=10.0.0.2/24 interface=ether2")
	assert.EqualError(t, err, refused)
	for _, lines := range []string{
		one + "; " + mode + "; /ip address add address=10.0.0.2/25 interface=ether2",
		one + "; " + mode + "; /ip address add address=10.0.0.2/24 interface=ether2 disabled=yes",
		one + "; /ip address add address=10.0.0.2/24 interface=ether1; /interface ethernet set ether1 arp=reply-only",
	} {
		_, err = run(Default(), lines)
		assert.NoError(t, err, lines)
	}
}
