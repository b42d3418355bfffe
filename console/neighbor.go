package console

import (
	"strings"
	"time"

	"github.com/postern-router/postern/neighbor"
)

// This file has the menus of neighbor discovery
// (https://help.mikrotik.com/docs/spaces/ROS/pages/24805517/Neighbor+discovery).

// DiscoveredNeighbor is a device that has announced itself on an interface, by one protocol or both.
type DiscoveredNeighbor struct {
	neighbor.Neighbor
	// Interface is the router's, by the board's name.
	Interface string
	// By are the protocols, separated by a comma.
	By string
	// Age is the time since it was last heard of.
	Age time.Duration
}

func neighborMenu() *menu {
	return &menu{
		path: "ip neighbor", help: "devices that announce themselves to the router", commands: liveCommands,
		needs: hasDiscovery, rows: (*execution).discoveredRows, identify: []string{"interface", "mac-address"},
		columns: []column{{"interface", 9}, {"address", 15}, {"mac-address", 17}, {"identity", 16}, {"version", 16}, {"board", 0}},
		rare:    []string{"version", "board"},
		readOnly: []readOnly{
			{name: "interface", help: "the router's interface, on which the device is"},
			{name: "address", help: "IP address of the device"},
			{name: "mac-address", help: "hardware address that it announces itself by"},
			{name: "identity", help: "name of the device"},
			{name: "platform", help: "what software it runs"},
			{name: "version", help: "version of its software"},
			{name: "age", help: "time since it was last heard of, to half a minute"},
			{name: "uptime", help: "time since its start"},
			{name: "software-id", help: "its license"},
			{name: "board", help: "what hardware it is"},
			{name: "interface-name", help: "its own interface"},
			{name: "system-description", help: "what it says of itself by LLDP"},
			{name: "system-caps", help: "what it could be by LLDP"},
			{name: "system-caps-enabled", help: "what it is by LLDP"},
			{name: "discovered-by", help: "mndp or lldp, or both"},
		},
	}
}

func discoverySettingsMenu() *menu {
	return &menu{
		path: "ip neighbor discovery-settings", help: "where the router announces itself, and hears of others",
		commands: singleCommands(), indent: 2, needs: hasDiscovery,
		properties: bind(func(c *Config, _ int) *neighbor.Config { return &c.Discovery },
			prop("discover-interface-list", negatable(knownList()), "none", "interfaces by which it does",
				func(d *neighbor.Config) *string { return &d.List }),
			prop("protocol", protocolList(), neighbor.LLDP+","+neighbor.MNDP, "by which protocols",
				func(d *neighbor.Config) *string { return &d.Protocols }),
		),
	}
}

// protocolList is one or more protocols of discovery.
func protocolList() kind[string] {
	k := wordList(neighbor.LLDP, neighbor.MNDP)
	parse := k.parse
	k.accepts, k.unset = strings.TrimPrefix(k.accepts, "[!]"), ""
	k.parse = func(s string) (string, error) {
		if strings.HasPrefix(s, "!") {
			return "", errNoMatch
		}
		v, err := parse(s)
		if v == neighbor.MNDP+","+neighbor.LLDP {
			v = neighbor.LLDP + "," + neighbor.MNDP
		}
		return v, err
	}
	return k
}

func hasDiscovery(l Live) bool { return l.Discovered != nil }

// Discovers returns whether the configuration has the router look for neighbors on an interface, by its
// name or by that of the bridge whose port it is.
func (cfg Config) Discovers() func(name string) bool {
	network := cfg.Network()
	sets := cfg.interfaceSets(network.Actual)
	list, not := strings.CutPrefix(cfg.Discovery.List, "!")
	set := sets[list]
	if not {
		set = set.Others()
	}
	return func(name string) bool { return set.Has(network.Actual(name)) }
}

func (x *execution) discoveredRows() ([]row, error) {
	all, err := x.live.Discovered()
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, len(all))
	for _, n := range all {
		pairs := []Pair{textPair("interface", x.cfg.Called(n.Interface))}
		if n.Address.IsValid() {
			pairs = append(pairs, addressPair("address", n.Address))
		}
		pairs = append(pairs, textPair("mac-address", strings.ToUpper(n.MAC.String())))
		add := func(name, text string) {
			if text != "" {
				pairs = append(pairs, textPair(name, text))
			}
		}
		add("identity", n.Identity)
		add("platform", n.Platform)
		add("version", n.Version)
		pairs = append(pairs, durationPair("age", n.Age))
		if n.Uptime > 0 {
			pairs = append(pairs, durationPair("uptime", n.Uptime))
		}
		add("software-id", n.SoftwareID)
		add("board", n.Board)
		add("interface-name", n.Neighbor.Interface)
		add("system-description", n.Description)
		add("system-caps", neighbor.Names(n.Can))
		add("system-caps-enabled", neighbor.Names(n.Does))
		add("discovered-by", n.By)
		rows = append(rows, row{pairs: pairs})
	}
	return rows, nil
}
