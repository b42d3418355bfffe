package console

import (
	"slices"
	"strings"
	"sync"
)

// This file has what RouterOS has and Postern has not, so that lines of RouterOS's exports are
// told what they lack, and no abbreviation of a word of Postern means something else there.

// absentProperties are, for each menu, the properties of RouterOS that it lacks. Behind "=" are
// the values, separated by "|", that mean what Postern does anyway: these are accepted. "*" is
// any value: the property has no effect without another that Postern lacks, or none that a
// user could see.
//
// The properties are those of RouterOS's manual (https://help.mikrotik.com/docs), of versions
// 6 and 7.
var absentProperties = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"interface ethernet": "arp-timeout=auto bandwidth=unlimited/unlimited " +
			"cable-settings=default combo-mode=auto disable-running-check=no fec-mode full-duplex=yes l2mtu=* " +
			"loop-protect=default|off loop-protect-disable-time=* loop-protect-send-interval=* master-port=none " +
			"mdix-enable=yes orig-mac-address=* passthrough-interface poe-out=off poe-priority=* rx-flow-control=off sfp-rate-select " +
			"sfp-shutdown-temperature switch tx-flow-control=off",
		"interface bridge": "add-dhcp-option82=no ageing-time=5m arp-timeout=auto " +
			"dhcp-snooping=no ether-type=0x8100 fast-forward=* forward-delay=15s forward-reserved-addresses=no " +
			"igmp-snooping=no igmp-version=* l2mtu=* max-message-age=20s multicast-querier=no " +
			"multicast-router=* mvrp=no port-cost-mode=* priority=0x8000 transmit-hold-count=6",
		"interface bridge port": "auto-isolate=no bpdu-guard=no broadcast-flood=yes edge=* fast-leave=no " +
			"horizon=none hw=* internal-path-cost=10 learn=auto multicast-router=* mvrp-applicant-state=* " +
			"mvrp-registrar-state=* path-cost=10 point-to-point=auto priority=0x80 restricted-role=no " +
			"restricted-tcn=no tag-stacking=no trusted=* unknown-multicast-flood=yes unknown-unicast-flood=yes",
		"interface vlan": "arp-timeout=auto l3-hw-offloading=* loop-protect=default|off " +
			"loop-protect-disable-time=* loop-protect-send-interval=* mvrp=no use-service-tag=no",
		"interface pppoe-client": "dial-on-demand=no host-uniq= mrru=disabled profile=default|default-encryption",
		"ip address":             "broadcast vrf=main",
		"ip route": "bgp-as-path bgp-communities bgp-local-pref route-tag routing-mark " +
			"scope=* suppress-hw-offload=* target-scope=* vrf-interface",
		"queue simple": "direction=both dst-address dst-port interface=all p2p target-addresses total-bucket-size=* total-burst-limit=0 total-burst-threshold=0 " +
			"total-burst-time=* total-limit-at=0 total-max-limit=0 total-priority=* total-queue=*",
		"routing table": "disabled=no",
		"routing rule":  "min-prefix",
		"ip dns": "address-list-extra-time=* doh-max-concurrent-queries=* doh-max-server-connections=* doh-timeout=* mdns-repeat-ifaces= use-doh-server= " +
			"verify-doh-cert=no vrf=main",
		"ip dns static":  "address-list=",
		"ip dhcp-client": "allow-reconfigure=no check-gateway=none default-route-tables=* dscp=* name=* script= use-broadcast=* vlan-priority=*",
		"ip dhcp-server": "add-dns-entries=* address-lists= allow-dual-stack-queue=* bootp-lease-time=* bootp-support=* " +
			"client-mac-limit=unlimited dhcp-option-set=none dynamic-lease-identifiers=client-mac,client-id insert-queue-before=* " +
			"lease-script= parent-queue=none support-broadband-tr101=no use-framed-as-classless=* use-radius=no use-reconfigure=no",
		"ip dhcp-server network": "caps-manager= dhcp-option-set= ntp-none=no",
		"ip dhcp-server lease":   "address-lists= allow-dual-stack-queue=* dhcp-option-set= insert-queue-before=* parent-queue=none rate-limit= routes= use-src-mac=no",
		"ip neighbor discovery-settings": "discover-interval=* lldp-mac-phy-config=* lldp-max-frame-size=* lldp-med-net-policy-vlan=disabled " +
			"lldp-poe-power=* lldp-vlan-info=no mode=tx-and-rx",
		"ip settings": "allow-fast-path=* arp-timeout=* icmp-errors-use-inbound-interface-address=no icmp-rate-limit=* icmp-rate-mask=* " +
			"ip-forward=yes ipv4-multipath-hash-policy=l3 max-neighbor-entries=* route-cache=* tcp-timestamps=*",
		"ip firewall connection tracking": "enabled=auto|yes",
		"ip firewall service-port":        "sip-direct-media=* sip-timeout=*",
		"ip firewall address-list":        "creation-time=* dynamic=no|yes",
		"ip firewall filter":              absentMatchers + " hw-offload=* tcp-mss",
		"ip firewall mangle":              absentMatchers + " new-priority route-dst sniff-id sniff-target sniff-target-port",
		"ip firewall raw":                 absentMatchers + " tcp-mss connection-limit connection-mark connection-nat-state connection-state",
		"ip firewall nat":                 absentMatchers + " tcp-mss connection-nat-state randomise-ports socks5-port socks5-server socksify-service",
		"ip service":                      absentOfServices + "tls-version=any vrf=main",
		"certificate":                     absentOfCertificates,
		"ip socks":                        "vrf=main",
		"system clock":                    "time-zone-autodetect=*",
		"system logging":                  "regex=",
		"system note":                     "show-at-cli-login=no",
		"system logging action":           "bsd-syslog=no email-to remember src-address=0.0.0.0 syslog-facility syslog-severity target=remote",
		"system ntp client servers":       "auth-key=none disabled=no iburst=* max-poll=* min-poll=*",
		"system ntp client":               "mode=unicast primary-ntp secondary-ntp server-dns-names= vrf=main",
		"user":                            "inactivity-policy=none inactivity-timeout",
		"user group":                      "skin=default",
	}
})

// absentMatchers are the absent properties that rules of all tables have in common.
// Of some an export has the empty value, which matches each packet.
const absentMatchers = "connection-bytes= " +
	"connection-rate= connection-type= content= " +
	"fragment helper hotspot= in-bridge-port in-bridge-port-list ingress-priority " +
	"ipv4-options layer7-protocol= out-bridge-port out-bridge-port-list " +
	"p2p= priority psd realm " +
	"routing-table= tls-host="

// absentProperty reports whether name is exactly a property that RouterOS has in m and Postern
// lacks. accepted are the values that it may have all the same, separated by "|", or "*".
func (m *menu) absentProperty(name string) (accepted string, some, ok bool) {
	if _, own := m.property(name); own {
		return "", false, false
	}
	for entry := range strings.FieldsSeq(absentProperties()[m.path]) {
		if absent, values, some := strings.Cut(entry, "="); absent == name {
			return values, some, true
		}
	}
	return "", false, false
}

// checkAbsent is the error of a property that Postern lacks, or nil if its value means what
// Postern does anyway.
func (m *menu) checkAbsent(name string, w word, unset bool) error {
	accepted, some, _ := m.absentProperty(name)
	if unset || some && w.find == nil && (accepted == "*" || slices.Contains(strings.Split(accepted, "|"), w.text)) {
		return nil
	}
	e := &lineError{message: "Postern has no " + name, place: w.place}
	if some {
		e.message += "=" + shown(w.text)
		e.expected = name + "=" + strings.ReplaceAll(accepted, "|", " | ")
		if accepted == "" {
			e.expected += `""`
		}
	}
	return e
}

// absentActions are RouterOS's actions of rules that Postern lacks in all tables.
const absentActions = " clear-df endpoint-independent-nat route set-priority sniff-pc sniff-tzsp socksify strip-ipv4-options tarpit "

// absentMenus are the menus of RouterOS that Postern lacks, for each menu above them.
// What is below one of them is absent too.
var absentMenus = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"": absentCertificate + "app beep blink caps-man console container disk dot1x dude iot ipv6 kvm lcd lora metarouter mpls openflow port ppp " +
			"quickset radius rsync-daemon setup snmp special-login store task user-manager zerotier",
		"interface": "6to4 amt bonding detect-internet dot1x eoip eoipv6 gre gre6 ipip ipipv6 l2tp-client l2tp-ether l2tp-server " +
			"lte macsec macvlan mesh ovpn-client ovpn-server pwr-line ppp-client ppp-server pppoe-server pptp-client " +
			"pptp-server sstp-client sstp-server traffic-eng veth virtual-ethernet vpls vrrp vxlan w60g wifi wifiwave2 " +
			"wireguard wireless",
		"interface bridge":   "calea filter host mdb mlag msti nat port-controller port-extender settings",
		"interface ethernet": "blink cable-test poe reset-mac-address switch",
		"ip": "accounting cloud dhcp-relay hotspot ipsec kid-control media nat-pmp packing " +
			"proxy reverse-proxy smb ssh tftp traffic-flow upnp vrf",
		"ip dhcp-client":        "option",
		"ip dhcp-server":        "alert config matcher option-sets setup vendor-class-id",
		"ip dhcp-server option": "sets",
		"ip service":            "webserver",
		"ip dns":                "adlist forwarders",
		"system resource":       "cpu hardware irq pci usb",
		"ip firewall":           "calea layer7-protocol",
		"ip route":              "cache nexthop rule vrf",
		"queue":                 "interface tree type",
		"routing":               "bfd bgp fantasy filter gmp id igmp-proxy isis mme nexthop ospf ospf-v3 pim pimsm pimsm-rp rip route rpki settings stats",
		"system": "backup check-installation cloud console default-configuration device-mode gps hardware lcd leds license regulatory scheduler " +
			"script serial-terminal sntp ssh sup-output swos telnet ups watchdog",
		"system health":      "settings",
		"system ntp":         "server",
		"system package":     "local-update",
		"system routerboard": "mode-button reset-button settings usb wps-button",
		"tool": "bandwidth-server bandwidth-test cable-test calea dns-update e-mail fetch flood-ping graphing ip-scan mac-scan mac-server " +
			"mac-telnet netwatch ping-speed profile romon sms sniffer snmp-walk snooper speed-test telnet traffic-generator " +
			"traffic-monitor wol",
		"user": "aaa settings",
	}
})

// checkMenu is the error of a name that is exactly that of a menu which RouterOS has below m and
// Postern lacks, else nil.
func (m *menu) checkMenu(name string, at place) *lineError {
	for absent := range strings.FieldsSeq(absentMenus()[m.path]) {
		if absent == name {
			path := strings.TrimLeft(m.path+" "+name, " ")
			return &lineError{message: "Postern has no /" + path, place: at, hint: absentHints()[path]}
		}
	}
	if m.path == "" && name != "" && strings.Contains(scriptWords, " "+name+" ") {
		return &lineError{message: noScripts, place: at}
	}
	return nil
}

// scriptWords are commands of scripts, which users type without their colon.
const scriptWords = " delay do environment error execute for foreach global if local onerror parse put resolve terminal while "

// absentHints say what there is instead of some of absentMenus.
var absentHints = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"certificate":      noTLS,
		"system backup":    "/export show-sensitive shows all that is set, which /import replace=yes takes again",
		"queue tree":       "/queue simple with packet-marks= has what is marked",
		"system script":    noScripts,
		"system scheduler": noScripts,
		"snmp":             "the metrics of the page are at /metrics",
	}
})

// idleMenus are menus that Postern lacks, and of which RouterOS's home configuration has lines all the
// same. They say who may reach what Postern has not, or are settings of what is not there, so nothing
// is different without them: an import may have them.
var idleMenus = []string{
	"disk settings", "interface lte apn", "interface ovpn-server server", "interface wireless security-profiles", "ip hotspot profile",
	"ip hotspot user profile", "ip upnp interfaces", "ipv6 firewall address-list", "ipv6 firewall filter", "port", "queue interface", "queue type", "snmp community", "system leds",
	"system leds settings",
	"system routerboard settings", "tool mac-server", "tool mac-server mac-winbox",
}

// idleSettings are menus that Postern lacks, with properties and values as in absentProperties that mean that what the menu is
// about is off, or is as Postern has it: an import may have lines of them that set these, and no others.
var idleSettings = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"interface bridge settings": "allow-fast-path=* use-ip-firewall=no use-ip-firewall-for-pppoe=no use-ip-firewall-for-vlan=no",
		"ip cloud":                  "back-to-home-vpn=revoked-and-disabled ddns-enabled=no|auto ddns-update-interval=* update-time=no",
		"ip dhcp-server config":     "accounting=no interim-update=* radius-password=* store-leases-disk=*",
		"ip proxy":                  "always-from-cache=* anonymous=* cache-administrator=* cache-on-disk=* enabled=no max-cache-size=* port=* src-address=*",
		"ip smb":                    "comment=* domain=* enabled=no|auto interfaces=*",
		// The SSH server of Postern has strong ciphers only, an Ed25519 key, forwards nothing, and takes no password of who has a key.
		"ip ssh": "allow-none-crypto=no always-allow-password-login=no ciphers=auto forwarding-enabled=no host-key-size=* host-key-type=ed25519 " +
			"password-authentication=yes-if-no-key publickey-authentication-options=none strong-crypto=yes",
		"ip traffic-flow":             "active-flow-timeout=* cache-entries=* enabled=no interfaces=*",
		"ip upnp":                     "allow-disable-external-interface=* enabled=no show-dummy-rule=*",
		"ipv6 settings":               "accept-redirects=* accept-router-advertisements=* disable-ipv6=yes forward=no max-neighbor-entries=*",
		"snmp":                        "contact=* enabled=no engine-id=* engine-id-suffix=* location=* trap-community=* trap-version=*",
		"system ntp server":           "auth-key=* broadcast=no broadcast-addresses=* enabled=no local-clock-stratum=* manycast=* multicast=no use-local-clock=* vrf=*",
		"system package local-update": "enabled=no",
		"system watchdog":             "auto-send-supout=no automatic-supout=* ping-start-after-boot=* watch-address=none watchdog-timer=yes",
		"tool bandwidth-server":       "allocate-udp-ports-from=* authenticate=* enabled=no max-sessions=*",
		"tool graphing":               "page-refresh=* store-every=*",
		"tool mac-server ping":        "enabled=*",
		"tool romon":                  "enabled=no id=*",
		"tool sms":                    "receive-enabled=no",
		"user aaa":                    "accounting=* default-group=* exclude-groups=* interim-update=* use-radius=no",
	}
})

// checkIdle is the error of a command of a menu of idleSettings, or nil if it only says what is so. words are those behind it.
func checkIdle(path, command string, at place, words []word) error {
	failed := &lineError{message: "Postern has no /" + path, place: at}
	if command != "set" {
		return failed
	}
	for _, w := range words {
		if !w.assigned { // which item
			continue
		}
		known := false
		for entry := range strings.FieldsSeq(idleSettings()[path]) {
			name, accepted, _ := strings.Cut(entry, "=")
			if name != w.key {
				continue
			}
			if known = w.find == nil && (accepted == "*" || slices.Contains(strings.Split(accepted, "|"), w.text)); !known {
				failed.expected = name + "=" + strings.ReplaceAll(accepted, "|", " | ")
			}
		}
		if !known {
			failed.place = w.place
			return failed
		}
	}
	return nil
}

// checkQueueType is the error of a line that gives a kind of queues a rate, which queues of that kind would have too, or nil. A kind of
// one's own needs no look: queues that name it are refused.
func checkQueueType(words []word) error {
	for _, w := range words {
		if w.assigned && slices.Contains([]string{"pcq-rate", "pcq-burst-rate", "cake-bandwidth"}, w.key) && w.text != "0" {
			return &lineError{message: "Postern has no /queue type", place: w.place, expected: w.key + "=0",
				hint: "/queue simple bounds each host by a queue of its own with max-limit="}
		}
	}
	return nil
}

// idleMenu returns the one of idleMenus or idleSettings that a statement leads to (enters) or changes by add or set; "" for any
// other statement. current is the menu that the session is in.
func idleMenu(words []word, current string) (menu string, enters bool, err error) {
	path := current
	if absolute(words) {
		path = ""
	} else if idle(path) == "" {
		return "", false, nil
	}
	for i, w := range words {
		if !w.plain() {
			return "", false, nil
		}
		for name := range strings.FieldsFuncSeq(w.text, func(r rune) bool { return r == '/' }) {
			if name == "add" || name == "set" {
				if idleSettings()[path] != "" {
					err = checkIdle(path, name, w.place, words[i+1:])
				} else if path == "queue type" && name == "set" {
					err = checkQueueType(words[i+1:])
				}
				return idle(path), false, err
			}
			path = strings.TrimLeft(path+" "+name, " ")
		}
	}
	return idle(path), true, nil
}

// absentServices are the rows of RouterOS's /ip service that Postern lacks. Nothing is different without
// their settings: an import may have them.
var absentServices = append([]string{"ftp", "telnet", "winbox"}, absentTLS...)

// absentService returns the one of absentServices that a line sets, or "". current is the menu that the
// session is in.
func absentService(line importLine, current string) string {
	if current != serviceMenuPath && !strings.Contains(line.text, "service") {
		return ""
	}
	statements, err := parse(line.text, line.first)
	if err != nil || len(statements) != 1 {
		return ""
	}
	words := statements[0]
	if absolute(words) {
		current = ""
	}
	for i, w := range words {
		if !w.plain() {
			return ""
		}
		for name := range strings.FieldsFuncSeq(w.text, func(r rune) bool { return r == '/' }) {
			if name == "set" {
				if current == serviceMenuPath && i+1 < len(words) && words[i+1].plain() && slices.Contains(absentServices, words[i+1].text) {
					return words[i+1].text
				}
				return ""
			}
			current = strings.TrimLeft(current+" "+name, " ")
		}
	}
	return ""
}

// absolute reports whether a statement begins at the root of the menus.
func absolute(words []word) bool {
	return len(words) > 0 && words[0].plain() && strings.HasPrefix(words[0].text, "/")
}

// idle returns path if it is one of idleMenus or idleSettings, else "".
func idle(path string) string {
	if slices.Contains(idleMenus, path) || idleSettings()[path] != "" {
		return path
	}
	return ""
}

// noScripts is the error of a line of a script.
const noScripts = "Postern runs no scripts"
