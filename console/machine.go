package console

import (
	"fmt"
	"time"
)

// This file has the menus that programs for RouterOS ask for before all else, to find out what they
// talk to: Ansible, RANCID, Oxidized, Home Assistant. They say what is so, and nothing can be set.

// RouterOSVersion is the version of RouterOS whose language and protocols programs find here. They
// compare it with versions in which something changed, and some cannot read any other form. From 7.18 on clients of the API would
// have to expect !empty.
const RouterOSVersion = "7.16"

// https://help.mikrotik.com/docs/spaces/ROS/pages/40992878/RouterBOARD
func routerboardMenu() *menu {
	return &menu{
		path: "system routerboard", help: "whether this is hardware of MikroTik", commands: []command{printScreen("show that it is none"), getSetting},
		live:   func(*execution) ([]Pair, error) { return []Pair{booleanPair("routerboard", false)}, nil },
		indent: 7,
		readOnly: []readOnly{
			{name: "routerboard", help: "no: boards of others, and virtual ones, have no settings of a boot loader here"},
		},
	}
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/40992872/Packages
func packageMenu() *menu {
	return &menu{
		path: "system package", help: "the software", commands: liveCommands,
		needs: hasResource, rows: (*execution).packageRows, identify: []string{"name"}, legend: legendItem, flags: flagsItem,
		columns: []column{{"name", 7}, {"version", 24}, {"build-time", 0}}, rare: []string{"build-time"},
		readOnly: []readOnly{
			{name: "name", help: "name of the software: there is one for all"},
			{name: "version", help: "version of the software"},
			{name: "build-time", help: "date of the version"},
		},
	}
}

func packageUpdateMenu() *menu {
	return &menu{
		path: "system package update", help: "newer versions of the software, on a web server",
		commands: commandsLike(unsetCommands, "", printScreen("show what runs, and what the server had"), getSetting, checkUpdateCommand, installUpdateCommand),
		needs:    hasResource, live: (*execution).packageUpdate, indent: 2,
		properties: bind(func(c *Config, _ int) *Config { return c },
			prop("url", optional(webFolder(), "none"), "", "folder on a web server that \"make release\" has filled",
				func(c *Config) *string { return &c.UpdateURL }),
		),
		readOnly: []readOnly{
			{name: "channel", help: "stable: what is released"},
			{name: "installed-version", help: "version of RouterOS whose language and protocols programs find here"},
			{name: "postern-version", help: "version of the software"},
			{name: "latest-postern-version", help: "version that the server had when it was asked last"},
			{name: "status", help: "what came of that"},
		},
	}
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/40992868/Health
func healthMenu() *menu {
	return &menu{
		path: "system health", help: "voltages and temperatures; boards of Postern measure none", commands: liveCommands,
		rows:    func(*execution) ([]row, error) { return nil, nil },
		columns: []column{{"name", 16}, {"value", 5}, {"type", 0}},
		readOnly: []readOnly{
			{name: "name", help: "what is measured"},
			{name: "value", help: "how much it is"},
			{name: "type", help: "unit of the value"},
		},
	}
}

func hasResource(l Live) bool { return l.Resource != nil }

func (x *execution) packageRows() ([]row, error) {
	r, err := x.live.Resource()
	if err != nil {
		return nil, fmt.Errorf("read version: %w", err)
	}
	pairs := []Pair{textPair("name", "postern"), textPair("version", r.Version)}
	if !r.Date.IsZero() {
		pairs = append(pairs, textPair("build-time", r.Date.UTC().Format(time.DateTime)))
	}
	return []row{{id: fixedID(0), pairs: pairs}}, nil
}

func (x *execution) packageUpdate() ([]Pair, error) {
	r, err := x.live.Resource()
	if err != nil {
		return nil, fmt.Errorf("read version: %w", err)
	}
	pairs := []Pair{wordPair("channel", "stable"), textPair("installed-version", RouterOSVersion), textPair("postern-version", r.Version)}
	if x.live.Update == nil {
		return pairs, nil
	}
	state := x.live.Update()
	if state.Latest != "" {
		pairs = append(pairs, textPair("latest-postern-version", state.Latest))
	}
	if state.Status != "" {
		pairs = append(pairs, textPair("status", state.Status))
	}
	return pairs, nil
}
