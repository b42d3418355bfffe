package console

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/netcfg"
)

func TestEthernetModes(t *testing.T) {
	live := linkLive()
	live.PortModes = func(port string) (netcfg.PortModes, error) {
		switch port {
		case "ether1":
			return netcfg.PortModes{AutoNegotiation: true, Speed: 1000, FullDuplex: true, Advertising: netcfg.ModeNamed("1000M-full") | netcfg.ModeNamed("100M-full"),
				Neighbors: netcfg.ModeNamed("1G-baseT-full")}, nil
		case "ether2":
			return netcfg.PortModes{}, unix.EOPNOTSUPP
		}
		return netcfg.PortModes{}, errors.New("broken")
	}
	for _, test := range []struct{ name, screen string }{
		{"set, by the names of both versions", `[admin@postern] > interface ethernet set ether1 advertise=10M-full,100M-baseT-full,1000M-full speed=100Mbps
[admin@postern] > interface ethernet set ether2 auto-negotiation=no speed=2.5Gbps
[admin@postern] > interface ethernet set usb1 speed=100M-baseT-half advertise=10M-half,10M-full,100M-half,100M-full,1000M-half,1000M-full
[admin@postern] > interface ethernet export
/interface ethernet
set ether1 advertise=10M-baseT-full,100M-baseT-full,1G-baseT-full \
    speed=100M-baseT-full
set ether2 auto-negotiation=no speed=2.5G-baseT
set usb1 speed=100M-baseT-half
[admin@postern] > interface ethernet print detail where auto-negotiation=no
Flags: X - disabled, I - invalid, R - running, S - slave
 0   S name=ether2 default-name=ether2 mtu=1500 mac-address=52:54:00:12:34:57
       arp=enabled auto-negotiation=no speed=2.5G-baseT
[admin@postern] > interface ethernet set ether1 !advertise !speed
[admin@postern] > interface ethernet set ether2 !speed auto-negotiation=yes
[admin@postern] > interface ethernet set usb1 !speed
[admin@postern] > interface ethernet export
`},
		{"what cannot be", `[admin@postern] > interface ethernet set ether1 advertise=10M-full,fast
input does not match any value of advertise; expected 10M-baseT-half | 10M-baseT-full | 100M-baseT-half | 100M-baseT-full | 1G-baseT-half | 1G-baseT-full | 2.5G-baseT | 5G-baseT | 10G-baseT, or a list of them, not "10M-full,fast"
[admin@postern] > interface ethernet set ether1 speed=100G-baseSR4
invalid value for argument speed; expected 10M-baseT-half | 10M-baseT-full | 100M-baseT-half | 100M-baseT-full | 1G-baseT-half | 1G-baseT-full | 2.5G-baseT | 5G-baseT | 10G-baseT, not "100G-baseSR4": Postern sets the speeds of copper cables alone
`},
		{"monitor", `[admin@postern] > interface ethernet monitor ether1,ether2 once
                      name: ether1
                    status: link-ok
          auto-negotiation: done
                      rate: 1Gbps
               full-duplex: yes
               advertising: 100M-baseT-full,1G-baseT-full
  link-partner-advertising: 1G-baseT-full
                      name: ether2
                    status: no-link
`},
	} {
		t.Run(test.name, func(t *testing.T) { checkScreen(t, linksConfig, live, 80, test.screen) })
	}
	for speed, want := range map[int]string{10: "10Mbps", 100: "100Mbps", 1000: "1Gbps", 2500: "2.5Gbps", 10000: "10Gbps"} {
		require.Equal(t, want, rateText(speed))
	}
}
