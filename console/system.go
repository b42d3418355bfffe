package console

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-router/postern/fetch"
	"github.com/postern-router/postern/ntp"
)

// UpgradeArguments are what /system upgrade was given.
type UpgradeArguments struct {
	URL   string
	Force bool
}

// SlotState is a place on flash for an image, as /partitions shows it.
type SlotState struct {
	Name string
	// Running is set for the one that the router was started from.
	Running bool
	// Active is set for the one that the next start is from.
	Active bool
	// Version is "" if it is not known, or if there is no image.
	Version string
	// Size is that of the image, in bytes.
	Size int64
	// State is empty, untried, on trial, failed or confirmed.
	State string
}

// NTPState is what the time client has found out.
type NTPState struct {
	// Status is stopped, waiting or synchronized. The rest is of the last answer.
	Status  string
	Server  string
	Stratum int
	Offset  time.Duration
}

var (
	upgradeCommand = command{name: "upgrade", help: "write another version of the software to flash, and restart with it",
		needs: Upgrade, unnamed: []string{"url"},
		arguments: []argument{
			option(prop("url", httpURL(), "", "where the upgrade image is",
				func(o *options) *string { return &o.upgrade.URL })),
			option(prop("force", boolean(), "no", "take a version that is older than the present one",
				func(o *options) *bool { return &o.upgrade.Force })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			x.result.Upgrade = a.upgrade
			return x.ask(Upgrade)
		}}

	partitionsMenu = &menu{
		path: "partitions", help: "versions of the software on flash", commands: liveCommands,
		needs: func(l Live) bool { return l.Slots != nil },
		rows:  (*execution).slotRows, legend: "Flags: A - active, R - running", flags: 2,
		columns: []column{{"name", 6}, {"version", 24}, {"size", 8}, {"state", 0}},
		readOnly: []readOnly{
			{name: "name", help: "the slot"},
			{name: "version", help: "version of the software"},
			{name: "size", help: "size of the image"},
			{name: "state", help: "empty, untried, on trial, failed or confirmed"},
		},
	}

	// https://help.mikrotik.com/docs/spaces/ROS/pages/40992869/NTP
	ntpMenu   = &menu{path: "system ntp", help: "network time"}
	ntpClient = &menu{
		path: "system ntp client", help: "who is asked for the time",
		commands: []command{setCommand, printNTPCommand, resetCommand}, indent: 2, needs: hasNTP,
		properties: bind(func(c *Config, _ int) *ntp.Config { return &c.NTP },
			prop("enabled", boolean(), "no", "whether time servers are asked",
				func(n *ntp.Config) *bool { return &n.Enabled }),
			prop("servers", hostList(ntp.MaxServers), "", "time servers: the next is asked when one does not answer",
				func(n *ntp.Config) *[]string { return &n.Servers }),
		),
	}
	printNTPCommand = command{name: "print", help: "show what is set, and what the servers say",
		arguments: []argument{intervalArgument}, run: (*execution).printNTP}
)

func hasNTP(l Live) bool { return l.NTP != nil }

// httpURL is an address of a file.
func httpURL() kind[string] {
	return kind[string]{
		accepts: "http://ADDRESS[:PORT]/PATH",
		parse: func(s string) (string, error) {
			_, err := fetch.ParseURL(s)
			return s, err
		},
		format: func(v string) string { return v },
	}
}

// hostList is up to limit hosts, separated by commas.
func hostList(limit int) kind[[]string] {
	host := hostName()
	return kind[[]string]{
		accepts: fmt.Sprintf("IP address or host name, or several with commas between: at most %d", limit),
		unset:   "none",
		parse: func(s string) ([]string, error) {
			if s == "" {
				return nil, nil
			}
			all := strings.Split(s, ",")
			for _, h := range all {
				if _, err := host.parse(h); err != nil {
					return nil, err
				}
			}
			if len(all) > limit {
				return nil, errors.New("too many hosts")
			}
			return all, nil
		},
		format: func(v []string) string { return strings.Join(v, ",") },
	}
}

func (x *execution) slotRows() ([]row, error) {
	slots, err := x.live.Slots()
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	rows := make([]row, len(slots))
	for i, s := range slots {
		if s.Active {
			rows[i].flags = "A"
		}
		if s.Running {
			rows[i].flags += "R"
		}
		rows[i].fields = []pair{{"name", s.Name}}
		if s.Version != "" {
			rows[i].fields = append(rows[i].fields, pair{"version", s.Version})
		}
		if s.Size > 0 {
			rows[i].fields = append(rows[i].fields, pair{"size", fmt.Sprintf("%dKiB", (s.Size+1023)>>10)})
		}
		rows[i].fields = append(rows[i].fields, pair{"state", s.State})
	}
	return rows, nil
}

func (x *execution) printNTP(m *menu, a arguments) error {
	x.result.Repeat = a.interval
	state, err := x.live.NTP()
	if err != nil {
		return fmt.Errorf("read time client: %w", err)
	}
	var lines []pair
	for _, p := range m.properties {
		lines = append(lines, pair{p.name, p.get(&x.cfg, 0)})
	}
	lines = append(lines, pair{"status", state.Status})
	if state.Server != "" {
		lines = append(lines, pair{"synced-server", state.Server}, pair{"synced-stratum", fmt.Sprint(state.Stratum)},
			pair{"system-offset", fmt.Sprintf("%.3f ms", float64(state.Offset)/1e6)})
	}
	x.pairs(m.indent, lines)
	return nil
}
