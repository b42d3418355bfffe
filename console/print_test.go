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
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/queue"
)

// goldenPrints is a file with everything that can be printed. POSTERN_GOLDEN=write rewrites
// it, so that a person can read what has changed.
const goldenPrints = "testdata/prints.txt"

const printConfig = linksConfig + `
/system identity set name=MikroTik
/system clock manual set time-zone=+05:30
/system logging action set remote remote=192.168.0.2
/system logging add action=remote topics=firewall,!warning
/interface ethernet set [find default-name=ether1] name=wan comment="to the outside"
/interface ethernet set usb1 disabled=yes
/interface bridge vlan add bridge=bridge1 vlan-ids=30-40,50 tagged=ether2 comment="servers"
/interface bridge vlan add bridge=bridge1 disabled=yes tagged=bridge1,ether2 untagged=usb1 vlan-ids=60
/ip dhcp-client add interface=wan
/ip dhcp-client add add-default-route=no comment="for the modem" disabled=yes interface=usb1 use-peer-dns=no
/interface pppoe-client add name=pppoe-out1 interface=usb1 user=me@isp password=secret add-default-route=yes disabled=no
/interface pppoe-client add comment="for hard times" interface=ether2 name=spare
/interface list add comment="to the outside" name=WAN
/interface list add exclude=WAN name=LAN
/interface list member add interface=wan list=WAN
/interface list member add comment="not yet" disabled=yes interface=usb1 list=LAN
/ip route add comment="all the rest" gateway=10.1.0.1
/ip dns set servers=9.9.9.9
/ip dns static add address=192.168.0.5 name=nas.lan
/ip dns static add name=ads.example type=NXDOMAIN match-subdomain=yes ttl=1h comment="no advertising"
/ip dns static add cname=nas.lan disabled=yes name=www.lan type=CNAME
/ip dns static add regexp="^ads?[0-9]*\\.example\$" type=NXDOMAIN
/ip dns static add address=2001:db8::5 name=nas.lan type=AAAA
/ip dns static add mx-exchange=mail.lan mx-preference=10 name=lan type=MX
/ip dns static add name=lan ns=router.lan type=NS
/ip dns static add name=_sip._udp.lan srv-port=5060 srv-priority=10 srv-target=pbx.lan srv-weight=5 type=SRV
/ip firewall address-list add list=friends address=198.51.100.0/24
/ip firewall address-list add list=friends address=203.0.113.1-203.0.113.9 disabled=yes comment="the branch office"
/ip firewall nat add action=masquerade chain=srcnat out-interface=wan src-address=192.168.0.0/24
/ip firewall filter add action=drop chain=forward in-interface-list=!LAN out-interface-list=WAN
/ip firewall nat add action=dst-nat chain=dstnat comment="a server within" disabled=yes dst-port=80 protocol=tcp to-addresses=192.168.0.10 to-ports=8080
/routing table add fib name=to-isp2 comment="the second provider"
/ip route add gateway=192.168.0.253 routing-table=to-isp2
/ip arp add address=192.168.0.2 interface=ether2 mac-address=02:00:00:00:00:ab comment="the printer"
/ip arp add address=10.1.0.77 interface=ether2 published=yes
/ip arp add address=10.9.9.9 interface=ether2 mac-address=02:00:00:00:00:ac disabled=yes
/ip route add blackhole dst-address=10.0.0.0/8 distance=250
/ip route add type=prohibit dst-address=192.0.2.0/24
/routing rule add src-address=192.168.0.64/26 action=lookup-only-in-table table=to-isp2 comment="guests"
/routing rule add action=unreachable disabled=yes dst-address=203.0.113.0/24
/ip firewall mangle add chain=prerouting action=mark-connection new-connection-mark=voip connection-mark=no-mark protocol=udp dst-port=5060 passthrough=no comment="the phones"
/ip firewall mangle add action=change-mss chain=forward new-mss=clamp-to-pmtu out-interface=wan protocol=tcp tcp-flags=syn
/ip firewall mangle add action=change-dscp chain=postrouting connection-mark=voip disabled=yes new-dscp=46
/ip firewall raw add chain=prerouting action=notrack protocol=udp dst-port=53
/queue simple add name=total target=192.168.0.0/24 max-limit=20M/100M
/queue simple add name=tv target=192.168.0.20,ether2 parent=total max-limit=2M/10M limit-at=512k/1M priority=7/7 packet-marks=voip comment="the television"
/queue simple add name=night target=usb1 dst=198.51.100.0/24 max-limit=1M burst-limit=2M burst-threshold=750k burst-time=16s time=22h-6h,fri disabled=yes
/ip pool add comment="for everybody" name=lan ranges=192.168.0.10-192.168.0.99
/ip dhcp-server add address-pool=lan comment="the house" interface=ether2 name=home
/ip dhcp-server option add code=150 name=tftp value="'192.168.0.1'"
/ip dhcp-server network add address=192.168.0.0/24 dhcp-option=tftp dns-server=192.168.0.1,9.9.9.9 domain=lan gateway=192.168.0.1
/ip dhcp-server lease add address=192.168.0.10 mac-address=02:00:00:00:00:0a comment="the printer"
/ip dhcp-server lease add address=192.168.0.11 client-id=1:2:0:0:0:0:b disabled=yes server=home
/ip dhcp-server lease add mac-address=02:00:00:00:00:0c block-access=yes
/user ssh-keys add key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home" user=admin
/user ssh-keys add key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPhJUyyKRr1cjQmTp7FnpVXgFJnZfy9Phe1Sbs1g8VV8" user=admin
/certificate add name=router common-name=MikroTik subject-alt-name=DNS:MikroTik,IP:192.168.0.1 days-valid=3650 certificate="MIIBlDCCATmgAwIBAgIQUGs7RE8sBoJesM1ViHoidTAKBggqhkjOPQQDAjATMREwDwYDVQQDEwhNaWtyb1RpazAeFw0yNjExMjgwMDAwMDBaFw0zNjExMjcwMDAwMDBaMBMxETAPBgNVBAMTCE1pa3JvVGlrMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQoVgRH2SVQbQvKeXjk5VnEux9yvWuPl7e/wFpxp/AsBEWMCueL/ljkMRNWeMLE89jMqrhzXkqiqua36wbtVNt6NvMG0wDgYDVR0PAQH/BAQDAgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMBMAwGA1UdEwEB/wQCMAAwHQYDVR0OBBYEFPKra0gJBL5rwrywT8FfDXqD/VK5MBkGA1UdEQQSMBCCCE1pa3JvVGlrhwTAqAABMAoGCCqGSM49BAMCA0kAMEYCIQD4Wk4hCl7rjsd0ziLu76Rqm1SIIwTZ0naPlJ8IWQZPggIhAMAJjHv9H67RoHdZeKEy4xz9FUl9dq5DR1tRcrIU8XLA" key="MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGUKxBrCNmuMuDA556r2KHXO4FQWvwUhMYF9HC2W9VrChRANCAARChWBEfZJVBtC8p5eOTlWcS7H3K9a4+Xt7/AWnGn8CwERYwK54v+WOQxE1Z4wsTz2MyquHNeSqKq5rfrBu1U23"
/certificate add name=later days-valid=30
/ip service set ssh address=192.168.0.0/24,10.0.0.0/8 disabled=no
/ip service set www-ssl certificate=router disabled=no
/ip socks set enabled=yes
/ip socks access add dst-port=21 src-address=192.168.0.2
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
	live.QueueCounters = func() (map[uint16]netcfg.ClassCounters, error) {
		totals := queue.Total(cfg.Queues)
		return map[uint16]netcfg.ClassCounters{
			totals["total"][queue.Up]:   {Bytes: 81230, Packets: 177, Rate: 1500, PacketRate: 3},
			totals["total"][queue.Down]: {Bytes: 123456789, Packets: 98765, Rate: 12_500_000, PacketRate: 8300, Dropped: 12, QueuedBytes: 3000, QueuedPackets: 2},
			totals["tv"][queue.Down]:    {Bytes: 999, Packets: 9},
		}, nil
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
					assert.True(t, fits || strings.HasPrefix(strings.TrimSpace(row), "key=") || strings.HasPrefix(strings.TrimSpace(row), "invalid-") || strings.HasPrefix(strings.TrimSpace(row), "status: ") || m.path == "log" || strings.Contains(row, ";;;") && !strings.Contains(row, "warning"), "%s at %d columns: %q", line, width, row)
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
