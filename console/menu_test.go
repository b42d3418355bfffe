package console

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
)

// The tables are complete: they have all that help and errors need.
func TestTables(t *testing.T) {
	required := map[string][]string{
		"ip address": {"address", "interface"}, "queue simple": {"name"},
		"certificate":           {"name"},
		"ip route":              {"gateway"},
		"ip arp":                {"address", "interface"},
		"ip firewall filter":    {"chain"},
		"interface bridge":      {"name"},
		"interface vlan":        {"name", "interface"},
		pppoePath:               {"name", "interface"},
		bridgeVLANPath:          {"bridge", "vlan-ids"},
		"interface bridge port": {"interface", "bridge"}, "interface list": {"name"}, "interface list member": {"list", "interface"},
		"ip firewall nat": {"chain"}, "routing table": {"name"}, "ip firewall mangle": {"chain"}, "ip firewall raw": {"chain"}, "ip firewall address-list": {"address", "list"}, "system ntp client servers": {"address"},
		"ip socks users": {"name", "password"}, "user ssh-keys": {"user", "key"}, "user": {"name", "group"}, "user group": {"name"},
		"ip dhcp-client": {"interface"},
		"ip pool":        {"name", "ranges"}, "ip dhcp-server": {"name", "interface"}, "ip dhcp-server network": {"address"},
		"ip dhcp-server option": {"name", "code", "value"},
	}
	paths := map[string]bool{}
	for _, m := range menus() {
		assert.False(t, paths[m.path], "%q is there twice", m.path)
		// Users refer to groups.
		assert.True(t, m.path == "" || paths[m.parent()] || m.path == userGroupPath, "%q stands before its parent", m.path)
		paths[m.path] = true
		assert.NotEmpty(t, m.help, m.path)
		seen := map[string]bool{}
		for _, c := range m.commands {
			assert.False(t, seen[c.name], "/%s %s is there twice", m.path, c.name)
			seen[c.name] = true
			assert.NotEmpty(t, c.help, "/%s %s", m.path, c.name)
			assert.NotNil(t, c.run, "/%s %s", m.path, c.name)
			for _, a := range c.arguments {
				name := "/" + m.path + " " + c.name + " " + a.name
				assert.NotEmpty(t, a.help, "%s lacks help", name)
				assert.NotEmpty(t, a.accepts, "%s lacks type and range", name)
				assert.True(t, a.def == "" || a.unset == "", name)
				assert.Equal(t, !a.item, a.set != nil, name)
				if a.def != "" {
					require.NoError(t, a.set(&options{}, a.def), "%s does not take its default", name)
				}
			}
			if c.name == "set" || c.name == "find" {
				assert.True(t, slices.ContainsFunc(m.commands, func(c command) bool { return c.name == "get" }), "/%s has %s, but not get", m.path, c.name)
			}
			for _, name := range c.positional {
				_, ok := c.argument(name)
				assert.True(t, ok, "/%s %s has no argument %s", m.path, c.name, name)
			}
			for _, w := range c.plainWords(m) {
				assert.NotEmpty(t, w.Help, "/%s %s %s", m.path, c.name, w.Name)
			}
		}
		for _, p := range m.readOnly {
			assert.NotEmpty(t, p.help, "/%s %s lacks help", m.path, p.name)
			_, settable := m.property(p.name)
			assert.False(t, settable, "/%s %s", m.path, p.name)
			assert.Equal(t, m.rows == nil && m.items != nil && !p.counted, p.of != nil, "/%s %s", m.path, p.name)
		}
		for _, name := range m.rare {
			assert.True(t, slices.ContainsFunc(m.columns, func(c column) bool { return c.name == name }), "/%s has no column %s", m.path, name)
		}
		for _, c := range m.columns {
			assert.True(t, slices.Contains(choiceNames(m.rowProperties()), c.name), "/%s has no %s", m.path, c.name)
		}
		clear(seen)
		var mandatory []string
		cfg := Default()
		if !m.isPorts { // a port that has no other name
			cfg.Links = []Port{{Link: netcfg.Link{Name: "ether1"}}}
		}
		if m.items != nil {
			m.items.add(&cfg)
		}
		for _, p := range m.properties {
			name := "/" + m.path + " " + p.name
			assert.False(t, seen[p.name], "%s is there twice", name)
			seen[p.name] = true
			assert.NotEmpty(t, p.help, "%s lacks help", name)
			assert.NotEmpty(t, p.accepts, "%s lacks type and range", name)
			assert.Equal(t, strings.ToLower(p.name), p.name)
			if p.required() {
				mandatory = append(mandatory, p.name)
				assert.Equal(t, p.waived != nil, p.set(&cfg, 0, "") == nil, "%s can be unset", name)
				continue
			}
			assert.True(t, p.def == "" || p.unset == "" || p.def != p.unset, name)
			require.NoError(t, p.set(&cfg, 0, p.def), "%s does not take its default", name)
			assert.Equal(t, p.def, p.get(&cfg, 0), name)
			for _, v := range p.values {
				require.NoError(t, p.set(&cfg, 0, v), name)
				want := v
				if p.typ == Boolean && v == p.unset {
					want = "" // as if it had never been given
				}
				assert.Equal(t, want, p.get(&cfg, 0), name)
				assert.Contains(t, p.accepts, v, name)
			}
		}
		assert.Equal(t, required[m.path], mandatory, m.path)
	}
}

// Each list of a configuration has exactly one menu.
func TestItemLists(t *testing.T) {
	for list, l := range itemLists {
		n := 0
		for _, m := range menus() {
			if m.items == l {
				n++
			}
		}
		assert.Equal(t, 1, n, "list %d", list)
		var cfg Config
		l.add(&cfg)
		assert.Len(t, cfg.ids[list], 1)
		assert.Equal(t, &cfg.ids[list], l.ids(&cfg))
	}
}

// The defaults in the tables are those of Default.
func TestDefault(t *testing.T) {
	cfg := Default()
	assert.Empty(t, Export(cfg))
	require.NoError(t, Validate(cfg, nil))
	for _, m := range menus() {
		if m.items != nil {
			assert.Equal(t, len(m.initial), m.items.count(&cfg), m.path)
			continue
		}
		for _, p := range m.properties {
			assert.Equal(t, p.def, p.get(&cfg, 0), "/%s %s", m.path, p.name)
		}
	}
}
