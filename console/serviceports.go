package console

import (
	"errors"
	"slices"
	"strings"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
)

// This file has the menu of connection tracking's helpers.
// https://help.mikrotik.com/docs/spaces/ROS/pages/250708066/NAT

const helperMenuPath = "ip firewall service-port"

// absentHelpers are the rows of RouterOS's menu that Postern lacks: helpers, and protocols that are not tracked by their ports.
var absentHelpers = []string{"tftp", "irc", "h323", "sip", "pptp", "rtsp", "udplite", "dccp", "sctp"}

// helperMenu is off unless a line enables a helper, and so is a configuration from before there was one.
func helperMenu() *menu {
	return &menu{
		path: helperMenuPath, help: "protocols whose hosts agree on further connections, which are then related to the first",
		commands: commandsLike(listCommands, "add remove move unset comment find", printLive), fixed: []string{"ftp"},
		rows: (*execution).helperRows, legend: "Flags: X - disabled", flags: []string{"X"},
		columns:  []column{{"name", 10}, {"ports", 0}},
		readOnly: []readOnly{{name: "name", help: "name of the protocol"}},
		properties: bind(func(c *Config, _ int) *firewall.Helper { return &c.Firewall.FTP },
			prop("ports", helperPorts(), "21", "TCP ports of the servers whose clients are helped",
				func(h *firewall.Helper) *[]uint16 { return &h.Ports }),
			prop("disabled", boolean(), "yes", "whether nothing is read; with no, active FTP works through masquerade, and what a host of the LAN says to such a port opens a connection to it",
				func(h *firewall.Helper) *bool { return &h.Disabled }),
		),
	}
}

// helperPorts is the kind of a helper's ports.
func helperPorts() kind[[]uint16] {
	k := listOf(integer[uint16](1, 65535), firewall.MaxHelperPorts)
	parse := k.parse
	k.unset = ""
	k.parse = func(s string) ([]uint16, error) {
		all, err := parse(s)
		if err == nil && len(all) == 0 {
			err = match.Refusal("a helper needs a port; disabled=yes does without it")
		}
		for i, p := range all {
			if slices.Contains(all[:i], p) {
				return nil, match.Refusal("each port once")
			}
		}
		return all, err
	}
	return k
}

func (x *execution) helperRows() ([]row, error) {
	r := row{id: fixedID(0), pairs: []Pair{textPair("name", "ftp")}}
	for _, p := range x.menu(helperMenuPath).properties {
		if p.name != "disabled" {
			r.pairs = append(r.pairs, Pair{p.name, p.value(&x.cfg, 0)})
		}
	}
	if x.cfg.Firewall.FTP.Disabled {
		r.flags = flagDisabled
	}
	return []row{r}, nil
}

// present takes the names of helpers that Postern lacks from those of items of m that are to be set, and reports whether one is left. That
// such a helper is disabled is true: an export of RouterOS says so.
func (m *menu) present(names word, values []assignment) (word, bool, error) {
	if m.path != helperMenuPath || names.find != nil {
		return names, true, nil
	}
	var there []string
	for name := range strings.SplitSeq(names.text, ",") {
		if !slices.Contains(absentHelpers, name) {
			there = append(there, name)
		} else if slices.ContainsFunc(values, func(a assignment) bool { return a.property.name == "disabled" && a.value != "yes" }) {
			return names, false, errors.New("Postern has no helper for " + name + "; expected disabled=yes")
		}
	}
	names.text = strings.Join(there, ",")
	return names, len(there) > 0, nil
}
