package console

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/firewall"
)

// goldenPrints is a file with everything that can be printed. POSTERN_GOLDEN=write rewrites
// it, so that a person can read what has changed.
const goldenPrints = "testdata/prints.txt"

const printConfig = linksConfig + `
/system identity set name=MikroTik
/system clock manual set time-zone=+05:30
/system logging action set remote remote=192.168.0.2
/system logging add topics=firewall,!warning action=remote
/interface ethernet set [find default-name=ether1] name=wan comment="to the outside"
/interface ethernet set usb1 disabled=yes
/interface bridge vlan add bridge=bridge1 vlan-ids=30-40,50 tagged=ether2 comment="servers"
/interface bridge vlan add bridge=bridge1 vlan-ids=60 tagged=bridge1,ether2 untagged=usb1 disabled=yes
/ip dhcp-client add interface=wan
/ip dhcp-client add interface=usb1 add-default-route=no use-peer-dns=no disabled=yes comment="for the modem"
/interface pppoe-client add name=pppoe-out1 interface=usb1 user=me@isp password=secret add-default-route=yes disabled=no
/interface pppoe-client add name=spare interface=ether2 comment="for hard times"
/interface list add name=WAN comment="to the outside"
/interface list add name=LAN exclude=WAN
/interface list member add list=WAN interface=wan
/interface list member add list=LAN interface=usb1 disabled=yes comment="not yet"
/ip route add gateway=10.1.0.1 comment="all the rest"
/ip dns set servers=9.9.9.9
/ip dns static add name=nas.lan address=192.168.0.5
/ip dns static add name=ads.example type=NXDOMAIN match-subdomain=yes ttl=1h comment="no advertising"
/ip dns static add name=www.lan type=CNAME cname=nas.lan disabled=yes
/ip dns static add regexp="^ads?[0-9]*\\.example\$" type=NXDOMAIN
/ip dns static add name=nas.lan type=AAAA address=2001:db8::5
/ip dns static add name=lan type=MX mx-preference=10 mx-exchange=mail.lan
/ip dns static add name=lan type=NS ns=router.lan
/ip dns static add name=_sip._udp.lan type=SRV srv-priority=10 srv-weight=5 srv-port=5060 srv-target=pbx.lan
/ip firewall address-list add list=friends address=198.51.100.0/24
/ip firewall address-list add list=friends address=203.0.113.1-203.0.113.9 disabled=yes comment="the branch office"
/ip firewall nat add chain=srcnat action=masquerade src-address=192.168.0.0/24 out-interface=wan
/ip firewall filter add chain=forward action=drop in-interface-list=!LAN out-interface-list=WAN
/ip firewall nat add chain=dstnat action=dst-nat to-addresses=192.168.0.10 to-ports=8080 dst-port=80 protocol=tcp disabled=yes comment="a server within"
/routing table add fib name=to-isp2 comment="the second provider"
/ip route add gateway=192.168.0.253 routing-table=to-isp2
/routing rule add src-address=192.168.0.64/26 action=lookup-only-in-table table=to-isp2 comment="guests"
/routing rule add dst-address=203.0.113.0/24 action=unreachable disabled=yes
/ip firewall mangle add chain=prerouting action=mark-connection new-connection-mark=voip connection-mark=no-mark protocol=udp dst-port=5060 passthrough=no comment="the phones"
/ip firewall mangle add chain=forward action=change-mss new-mss=clamp-to-pmtu protocol=tcp tcp-flags=syn out-interface=wan
/ip firewall mangle add chain=postrouting action=change-dscp new-dscp=46 connection-mark=voip disabled=yes
/ip firewall raw add chain=prerouting action=notrack protocol=udp dst-port=53
/ip pool add name=lan ranges=192.168.0.10-192.168.0.99 comment="for everybody"
/ip dhcp-server add name=home interface=ether2 address-pool=lan comment="the house"
/ip dhcp-server option add name=tftp code=150 value="'192.168.0.1'"
/ip dhcp-server network add address=192.168.0.0/24 gateway=192.168.0.1 dns-server=192.168.0.1,9.9.9.9 domain=lan dhcp-option=tftp
/ip dhcp-server lease add address=192.168.0.10 mac-address=02:00:00:00:00:0a comment="the printer"
/ip dhcp-server lease add address=192.168.0.11 client-id=1:2:0:0:0:0:b server=home disabled=yes
/ip dhcp-server lease add mac-address=02:00:00:00:00:0c block-access=yes
/user ssh-keys add user=admin key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home"
/user ssh-keys add user=admin key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPhJUyyKRr1cjQmTp7FnpVXgFJnZfy9Phe1Sbs1g8VV8"
/ip service set ssh address=192.168.0.0/24,10.0.0.0/8 disabled=no
/ip socks set enabled=yes
/ip socks access add src-address=192.168.0.2 dst-port=21
/ip socks access add action=deny comment="nobody else"
/ip socks users add name=alice password-hash="\$x" only-one=yes rate-limit=1500k comment="from the third floor"
/ip socks users add name=bob password-hash="\$y" disabled=yes
`

// Every form of print in every menu, on a terminal of unknown width, of 80 and of 40 columns.
func TestPrints(t *testing.T) {
	cfg, err := Load("prints", strings.NewReader(printConfig))
	require.NoError(t, err)
	live := linkLive()
	live.Counters = func(t firewall.Table) ([]firewall.Counter, error) {
		return map[firewall.Table][]firewall.Counter{
			firewall.Filter: {{Packets: 12, Bytes: 840}, {Packets: 3, Bytes: 180}, {}, {Packets: 123456789, Bytes: 123456789012}, {}},
			firewall.NAT:    {{Packets: 9, Bytes: 9999}, {}},
			firewall.Mangle: {{Packets: 1, Bytes: 200}, {Packets: 77, Bytes: 4620}, {}},
			firewall.Raw:    {{Packets: 5, Bytes: 300}},
		}[t], nil
	}
	live.Invalid = func(menu string) ([]int, error) {
		return map[string][]int{"ip route": {0}, "interface vlan": {1}}[menu], nil
	}
	live.PPPoEClients = func() ([]PPPoEClientState, error) { return testPPPoE(), nil }
	live.DHCPClients = func() ([]DHCPClientState, error) { return testClients(), nil }
	live.DNSCache = func() ([]dns.CacheEntry, int, error) { return testCache(), 12, nil }
	live.Leases = func() ([]LeaseState, error) { return testLeases(), nil }
	live.Resource = func() (Resource, error) {
		return Resource{Uptime: 26*time.Hour + 5*time.Second, FreeMemory: 14_680_064, TotalMemory: 27_262_976, CPULoad: 0.0533, CPUCount: 1,
			Architecture: "mips", Board: "malta", Version: "v1.0", Date: time.Date(2026, 11, 29, 17, 0, 0, 0, time.UTC)}, nil
	}
	var got strings.Builder
	forms := 0
	for _, m := range menus() {
		var print *command
		for i := range m.commands {
			if m.commands[i].name == "print" {
				print = &m.commands[i]
			}
		}
		if print == nil {
			continue
		}
		words := []string{""}
		for _, w := range print.words {
			if w != pagingWord {
				words = append(words, w.Name)
			}
		}
		for _, word := range words {
			for _, width := range []int{0, 80, 40} {
				line := strings.TrimSpace("/" + m.path + " print " + word)
				session := Session{Width: width}
				result, err := session.Execute(cfg, live, line)
				require.NoError(t, err, line)
				for row := range strings.Lines(result.Output) {
					fits := width == 0 || len([]rune(strings.TrimRight(row, "\n"))) < width || word == terseWord.Name || !strings.Contains(strings.TrimSpace(row), " ")
					// A log line is as long as it is, and so is a comment, a key or a status.
					assert.True(t, fits || strings.HasPrefix(strings.TrimSpace(row), "key=") || strings.HasPrefix(strings.TrimSpace(row), "status: ") || m.path == "log" || strings.Contains(row, ";;;") && !strings.Contains(row, "warning"), "%s at %d columns: %q", line, width, row)
				}
				forms++
				fmt.Fprintf(&got, "== %s, %d columns\n%s\n", line, width, result.Output)
			}
		}
	}
	assert.Greater(t, forms, 100)
	if os.Getenv("POSTERN_GOLDEN") == "write" {
		require.NoError(t, os.MkdirAll(filepath.Dir(goldenPrints), 0o755))
		require.NoError(t, os.WriteFile(goldenPrints, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(goldenPrints)
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())
}
