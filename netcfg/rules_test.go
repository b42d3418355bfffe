package netcfg

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tabled is a router with two tables besides main.
func tabled() Config {
	c := router()
	c.Tables = []Table{{Name: "isp1", Number: 7, Mark: 0x70000, Mask: 0xff0000}, {Name: "isp2", Number: 250}}
	first, second := by("0.0.0.0/0", "10.0.0.9", 1), by("0.0.0.0/0", "192.168.0.9", 1)
	first.Table, second.Table = "isp1", "isp2"
	c.Routes = append(c.Routes, first, second)
	c.Rules = []Rule{
		{SrcAddress: netip.MustParsePrefix("192.168.0.64/26"), Interface: "ether2", Action: "lookup", Table: "isp2"},
		{Action: "unreachable", Disabled: true},
		{DstAddress: netip.MustParsePrefix("203.0.113.0/24"), Action: "drop"},
		{Mark: "isp1", Action: "lookup-only-in-table", Table: "main"},
		{Mark: "main", DstAddress: netip.MustParsePrefix("203.0.114.0/24"), Action: "unreachable"},
	}
	return c
}

const tabledShown = `0: from all lookup local
1000: from all fwmark 0x70000/0xff0000 lookup 7
2000: from 192.168.0.64/26 iif ether2 lookup 250
2004: from all to 203.0.113.0/24 blackhole
2006: from all fwmark 0x70000/0xff0000 lookup main
2007: from all fwmark 0x70000/0xff0000 blackhole
2008: from all to 203.0.114.0/24 fwmark 0/0xff0000 unreachable
32766: from all lookup main
32767: from all lookup default`

// rulesShown are the rules and the routes of the tables besides main.
func rulesShown(t *testing.T) string {
	text := strings.NewReplacer("\t", " ", " linkdown", "").Replace(ip(t, "-4 rule"))
	for _, table := range []string{"7", "250"} {
		out, _ := exec.Command("ip", "-4", "route", "show", "table", table).Output() // an error if it is empty
		if routes := strings.TrimSpace(strings.ReplaceAll(string(out), " linkdown", "")); routes != "" {
			text += "\n" + table + ": " + routes
		}
	}
	return strings.ReplaceAll(text, " \n", "\n")
}

func TestTables(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(router()))
	plain := rulesShown(t)
	assert.False(t, m.ruled, "a kernel without rules is asked for none")
	c := tabled()
	require.NoError(t, m.Apply(c))
	routes := "\n7: default via 10.0.0.9 dev ether1 proto static metric 1\n250: default via 192.168.0.9 dev ether2 proto static metric 1"
	assert.Equal(t, tabledShown+routes, rulesShown(t))
	looks(t, routerShown)
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Empty(t, w.Routes)
	_, others, err := m.Dynamic()
	require.NoError(t, err)
	for _, r := range others {
		assert.NotEqual(t, 0, r.Destination.Bits())
	}

	// Sources are checked loosely where a table's route leaves, and strictly elsewhere.
	filter := func(link string) string {
		text, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + link + "/rp_filter")
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	assert.Equal(t, "2 2 1", filter("ether1")+" "+filter("ether2")+" "+filter("lo"))
	c.Routes = c.Routes[:3]
	require.NoError(t, m.Apply(c))
	assert.Equal(t, "2 1 1", filter("ether1")+" "+filter("ether2")+" "+filter("lo"))

	// What the kernel refuses leaves all as it was.
	before := rulesShown(t)
	bad := tabled()
	bad.Rules[0].Interface = ""
	bad.Rules = append(bad.Rules, Rule{Action: "drop"})
	bad.Routes = append(bad.Routes, Route{Destination: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("192.168.0.255"), Distance: 1, Table: "isp1"})
	require.Error(t, m.Apply(bad))
	assert.Equal(t, before, rulesShown(t))

	running(t, m)
	ip(t, "rule del priority 2004")
	ip(t, "rule add priority 1500 to 1.2.3.4 blackhole")
	ip(t, "rule add priority 500 to 1.2.3.4 blackhole") // not one of ours
	want := strings.Replace(before, "1000:", "500: from all to 1.2.3.4 blackhole\n1000:", 1)
	for end := time.Now().Add(patience); rulesShown(t) != want && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
	}
	assert.Equal(t, want, rulesShown(t))
	ip(t, "rule del priority 500")
	require.NoError(t, m.Apply(router()))
	assert.Equal(t, plain, rulesShown(t))
}

func TestValidateTables(t *testing.T) {
	ports := []Port{{"ether1", "eth0"}, {"ether2", "eth1"}}
	require.NoError(t, tabled().Validate(ports))
	for want, edit := range map[string]func(*Config){
		`routing table: name="isp1": expected a name of its own, and not main`:                                                     func(c *Config) { c.Tables[1].Name = "isp1" },
		`routing table: name="main": expected a name of its own, and not main`:                                                     func(c *Config) { c.Tables[1].Name = "main" },
		"routing table isp2: number=7: expected one of its own of 1..250":                                                          func(c *Config) { c.Tables[1].Number = 7 },
		"routing table isp2: number=251: expected one of its own of 1..250":                                                        func(c *Config) { c.Tables[1].Number = 251 },
		"routing table isp1: mark=0x0: expected one that is not 0, of the bits 0xff0000":                                           func(c *Config) { c.Tables[0].Mark = 0 },
		"routing table isp1: mark=0x1: expected one that is not 0, of the bits 0xff0000":                                           func(c *Config) { c.Tables[0].Mark = 1 },
		"route 0.0.0.0/0: routing-table=isp3: expected main, isp1, isp2":                                                           func(c *Config) { c.Routes[2].Table = "isp3" },
		"route 0.0.0.0/0: distance=1: expected another distance, the route by 10.0.0.9 has this one":                               func(c *Config) { c.Routes[3].Table = "isp1" },
		"routing rule 0: src-address=192.168.0.65/26: expected an IPv4 network without bits beyond the prefix, such as 10.0.0.0/8": func(c *Config) { c.Rules[0].SrcAddress = netip.MustParsePrefix("192.168.0.65/26") },
		"routing rule 0: interface=ether9: expected an interface (ether1, ether2)":                                                 func(c *Config) { c.Rules[0].Interface = "ether9" },
		"routing rule 0: action=x: expected lookup, lookup-only-in-table, drop, unreachable":                                       func(c *Config) { c.Rules[0].Action = "x" },
		"routing rule 0: action=lookup: needs table":                                                                               func(c *Config) { c.Rules[0].Table = "" },
		"routing rule 0: table=isp3: expected main, isp1, isp2":                                                                    func(c *Config) { c.Rules[0].Table = "isp3" },
		"routing rule 2: table=isp1: needs action=lookup or action=lookup-only-in-table":                                           func(c *Config) { c.Rules[2].Table = "isp1" },
		"routing rule 3: routing-mark=isp3: expected main, isp1, isp2":                                                             func(c *Config) { c.Rules[3].Mark = "isp3" },
		"routing rule 3: routing-mark=isp2: expected a table that packets with its mark take":                                      func(c *Config) { c.Rules[3].Mark = "isp2" },
	} {
		c := tabled()
		edit(&c)
		assert.EqualError(t, c.Validate(ports), want)
	}
}

// A table that gets another number has its routes before packets are led there, and as long as they are led to the old number.
func TestTableChangesNumber(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(tabled()))
	c := tabled()
	c.Tables[0].Number, c.Tables[0].Mark = 8, 0x80000
	c.Rules = c.Rules[:1]
	m.config = &c
	changes, err := m.repair()
	require.NoError(t, err)
	assert.Equal(t, []string{
		"add route 0.0.0.0/0 by 10.0.0.9 distance 1 table 8",
		"add rule 1000 fwmark 0x80000/0xff0000 table 8",
		"delete rule 1000 fwmark 0x70000/0xff0000 table 7",
		"delete rule 2004 to 203.0.113.0/24 blackhole",
		"delete rule 2006 fwmark 0x70000/0xff0000 table 254",
		"delete rule 2007 fwmark 0x70000/0xff0000 blackhole",
		"delete rule 2008 to 203.0.114.0/24 fwmark 0x0/0xff0000 unreachable",
		"delete route 0.0.0.0/0 by 10.0.0.9 distance 1 table 7",
	}, changes)
	require.NoError(t, m.Apply(router())) // other tests have no rules
}
