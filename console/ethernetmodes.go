package console

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
)

// This file has the speeds of ports (https://help.mikrotik.com/docs/spaces/ROS/pages/8323191/Ethernet).

// modeFields are the properties of /interface ethernet about them.
func modeFields() []field[*Port] {
	return []field[*Port]{
		prop("auto-negotiation", inverse(boolean()), "yes", "whether the port negotiates its speed with its neighbor", func(l *Port) *bool { return &l.NoAutoNegotiation }),
		prop("advertise", modeList(), "", "speeds that it offers its neighbor, of those that its card can", func(l *Port) *netcfg.Modes { return &l.Advertise }),
		prop("speed", fixedSpeed(), "", "its speed with auto-negotiation=no", func(l *Port) *netcfg.Modes { return &l.Fixed }),
	}
}

// modeList is the kind of a list of speeds, by the names of RouterOS 6 or 7.
func modeList() kind[netcfg.Modes] {
	names := netcfg.ModeNames()
	k := kind[netcfg.Modes]{typ: List, list: true, values: names, accepts: strings.Join(names, " | ") + ", or a list of them", unset: "all that its card can"}
	k.parse = func(s string) (all netcfg.Modes, err error) {
		for name := range strings.SplitSeq(s, ",") {
			mode, err := modeNamed(name)
			if err != nil {
				return 0, err
			}
			all |= mode
		}
		// What RouterOS's ports offer by default, which go up to 1 or 2.5 Gbit/s.
		if known := all.String(); known == upToGigabit || known == upToGigabit+",2.5G-baseT" {
			return 0, nil
		}
		return all, nil
	}
	k.format = netcfg.Modes.String
	return k
}

const upToGigabit = "10M-baseT-half,10M-baseT-full,100M-baseT-half,100M-baseT-full,1G-baseT-half,1G-baseT-full"

// modeNamed is a mode by its name in RouterOS 6 or 7, or the beginning of that.
func modeNamed(name string) (netcfg.Modes, error) {
	if mode := netcfg.ModeNamed(name); mode != 0 {
		return mode, nil
	}
	full, err := oneOf(name, netcfg.ModeNames()...)
	return netcfg.ModeNamed(full), err
}

// fixedSpeed is the kind of one speed. RouterOS 6 writes 100Mbps, and full duplex apart.
func fixedSpeed() kind[netcfg.Modes] {
	names := netcfg.ModeNames()
	k := kind[netcfg.Modes]{typ: Enumeration, values: names, accepts: strings.Join(names, " | "), unset: "that which it has"}
	k.parse = func(s string) (netcfg.Modes, error) {
		for _, unit := range []struct{ old, new string }{{"Mbps", "M"}, {"Gbps", "G"}} {
			number, ok := strings.CutSuffix(s, unit.old)
			if !ok {
				continue
			}
			for _, rest := range []string{"-baseT-full", "-baseT"} {
				if mode := netcfg.ModeNamed(number + unit.new + rest); mode != 0 {
					return mode, nil
				}
			}
		}
		mode, err := modeNamed(s)
		if strings.Contains(s, "base") && !strings.Contains(s, "baseT") && errors.Is(err, errNoMatch) {
			err = match.Refusal("Postern sets the speeds of copper cables alone")
		}
		return mode, err
	}
	k.format = netcfg.Modes.String
	return k
}

// monitorEthernet shows what ports do, as RouterOS's command does.
var monitorEthernet = command{name: "monitor", help: "show what ports do", shows: true, positional: []string{"numbers"},
	arguments: []argument{numbersArgument, intervalArgument}, words: []Choice{{"once", "once, as without interval="}},
	able: func(l Live) bool { return l.PortModes != nil && l.Links != nil }, run: (*execution).monitorEthernet}

func (x *execution) monitorEthernet(m *menu, a arguments) error {
	x.result.Repeat = a.interval
	keys, err := x.chosen(m, a.items["numbers"])
	if err != nil {
		return err
	}
	for _, k := range keys {
		pairs, err := x.portModePairs(k.port)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			fmt.Fprintln(&x.out, strings.TrimRight(fmt.Sprintf("%26s: %s", p.Name, Printable(p.Value.text)), " "))
		}
	}
	return nil
}

// portModePairs is what monitor shows of a port. Some drivers know no modes.
func (x *execution) portModePairs(port string) ([]Pair, error) {
	l := x.linkState(port)
	status := "no-link"
	if l.Running {
		status = "link-ok"
	}
	pairs := []Pair{textPair("name", x.cfg.Called(port)), wordPair("status", status)}
	if !l.Present {
		return pairs, nil
	}
	modes, err := x.live.PortModes(port)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return pairs, nil
	}
	if err != nil {
		return nil, err
	}
	negotiation := "disabled"
	switch {
	case modes.AutoNegotiation && l.Running:
		negotiation = "done"
	case modes.AutoNegotiation:
		negotiation = "incomplete"
	}
	pairs = append(pairs, wordPair("auto-negotiation", negotiation))
	if l.Running && modes.Speed > 0 {
		pairs = append(pairs, textPair("rate", rateText(modes.Speed)), booleanPair("full-duplex", modes.FullDuplex))
	}
	if modes.AutoNegotiation {
		for _, list := range []struct {
			name  string
			modes netcfg.Modes
		}{{"advertising", modes.Advertising}, {"link-partner-advertising", modes.Neighbors}} {
			pairs = append(pairs, Pair{list.name, Value{Type: List, text: list.modes.String()}})
		}
	}
	return pairs, nil
}

// rateText writes a speed in Mbit/s as RouterOS does.
func rateText(speed int) string {
	if speed < 1000 {
		return strconv.Itoa(speed) + "Mbps"
	}
	return strings.TrimSuffix(strconv.FormatFloat(float64(speed)/1000, 'f', 1, 64), ".0") + "Gbps"
}
