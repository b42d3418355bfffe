package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
)

// What is undone and done again is in force in the system, and kept.
func TestUndo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip address add address=192.168.0.1/24 interface=ether2")
		c := g.connect()
		c.prompt()
		start := g.r.snapshot().config
		assert.Equal(t, "failure: nothing to undo\n"+prompt, c.run("/undo"))
		assert.Equal(t, "failure: nothing to redo\n"+prompt, c.run("/redo"))
		c.run("/ip firewall filter add chain=input action=drop")
		time.Sleep(time.Minute)
		c.run("/ip firewall filter add chain=forward action=drop place-before=0; /system identity set name=x")
		ids := func() string {
			rows, err := console.Query(g.r.snapshot().config, console.Live{}, "ip firewall filter", nil, nil)
			require.NoError(t, err)
			var b strings.Builder
			for _, r := range rows {
				chain, _ := r.Get("chain")
				b.WriteString(chain.String() + r.ID.String() + " ")
			}
			return b.String()
		}
		before, after := ids(), console.Export(g.r.snapshot().config)
		entry := g.r.snapshot().history.entries[0]
		first := entry.at.UTC()
		assert.Equal(t, "Flags: U - undoable, R - redoable, F - floating-undo\n"+
			"  ACTION                                     BY       POLICY       TIME\n"+
			"U system identity changed, filter rule added admin    write        "+first.Add(time.Minute).Format(time.DateTime)+"\n"+
			"U filter rule added                          admin    write        "+first.Format(time.DateTime)+"\n"+"[admin@x] > ", c.run("/system history print"))
		assert.Equal(t, prompt, c.run("/undo"))
		assert.Len(t, g.firewall.config.Filter, 1)
		assert.Len(t, g.lastKept().Firewall.Filter, 1)
		assert.Equal(t, prompt, c.run("/undo"))
		assert.Empty(t, g.firewall.config.Filter)
		assert.True(t, start.Equal(g.r.snapshot().config))
		assert.Contains(t, c.run("/system history print terse"), "R action=\"system identity changed, filter rule added\" by=admin policy=write time=")
		c.run("/redo")
		c.run("/redo")
		assert.Equal(t, after, console.Export(g.r.snapshot().config))
		assert.Equal(t, before, ids(), "items are the same as before")
		assert.Len(t, g.firewall.config.Filter, 2)
		assert.Equal(t, "failure: nothing to redo\n[admin@x] > ", c.run("/redo"))

		assert.Contains(t, c.run("/undo; /undo"), "failure: undo and redo need a line of their own\n")
		assert.Equal(t, after, console.Export(g.r.snapshot().config))

		// What the system refuses is not undone.
		g.fail("firewall", errFake)
		assert.Contains(t, c.run("/undo"), "refused by the test")
		assert.Equal(t, after, console.Export(g.r.snapshot().config))
		assert.Len(t, g.firewall.config.Filter, 2)
		assert.Equal(t, prompt, c.run("/undo"))

		// After another change there is nothing to do again.
		c.run("/ip firewall filter disable 0")
		assert.Equal(t, "failure: nothing to redo\n"+prompt, c.run("/redo"))
		assert.Contains(t, c.run("/system history print"), "U filter rule changed ")
		c.hangUp()
	})
}

// The helper of a service port goes and comes as anything else.
func TestUndoServicePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		c := g.connect()
		c.prompt()
		row := func(flag, ports string) string {
			return "Flags: X - disabled\n #   NAME       PORTS\n 0 " + flag + " ftp        " + ports + "\n" + prompt
		}
		const show = "/ip firewall service-port print"
		assert.Equal(t, row("X", "21"), c.run(show))
		assert.Equal(t, prompt, c.run("/ip firewall service-port enable ftp"))
		assert.Equal(t, prompt, c.run("/ip firewall service-port set ftp ports=21,2121"))
		assert.Equal(t, prompt, c.run("/ip firewall service-port disable sip"))
		assert.Equal(t, row(" ", "21,2121"), c.run(show))
		assert.Equal(t, firewall.Helper{Ports: []uint16{21, 2121}}, g.firewall.config.FTP)
		assert.Equal(t, 2, strings.Count(c.run("/system history print"), "U ip firewall service port ftp changed"))
		c.run("/undo")
		assert.Equal(t, row(" ", "21"), c.run(show))
		assert.Equal(t, firewall.Helper{Ports: []uint16{21}}, g.firewall.config.FTP)
		c.run("/undo")
		assert.Equal(t, row("X", "21"), c.run(show))
		assert.True(t, g.firewall.config.FTP.Disabled)
		assert.NotContains(t, console.Export(g.lastKept()), "service-port")
		c.run("/redo")
		c.run("/redo")
		assert.Equal(t, row(" ", "21,2121"), c.run(show))
		assert.Equal(t, firewall.Helper{Ports: []uint16{21, 2121}}, g.firewall.config.FTP)
		c.hangUp()
	})
}

// An import is one step, and so is what a program does.
func TestUndoImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip address add address=192.168.0.1/24 interface=ether2", "/user add name=eva group=full")
		start := g.r.snapshot().config
		s := &session.Session{Session: console.Session{User: "eva"}}
		text := "/ip firewall filter\n" + strings.Repeat("add chain=input action=drop\n", 20) + "/ip socks set enabled=yes\n/ip dns set servers=9.9.9.9\n/system identity set name=y\n"
		_, err := g.r.importLines(s, text, console.ImportArguments{Replace: true})
		require.NoError(t, err)
		after := g.r.snapshot().config
		program := g.r.programHandler(s)
		rows, err := program.Query("system/history", nil, nil)
		require.NoError(t, err)
		require.Len(t, rows, 1)
		for name, want := range map[string]string{"action": "configuration changed", "by": "eva", "policy": "write", "undoable": "yes", "floating-undo": "no"} {
			v, ok := rows[0].Get(name)
			assert.True(t, ok, name)
			assert.Equal(t, want, v.String(), name)
		}
		_, err = program.Do("", "undo", nil)
		require.NoError(t, err)
		assert.True(t, start.Equal(g.r.snapshot().config))
		assert.NotEmpty(t, g.network.config.Addresses)
		_, err = program.Do("", "redo", nil)
		require.NoError(t, err)
		assert.True(t, after.Equal(g.r.snapshot().config))
		assert.Empty(t, g.network.config.Addresses)
		_, err = g.r.importLines(s, "/undo", console.ImportArguments{})
		assert.EqualError(t, err, "this command does not belong in an import (line 1)")
	})
}

// What the system refuses of an import names its line, if one line is what it is about.
func TestRefusedImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		text := "/ip address\nadd address=10.0.0.1/24 interface=ether1\nadd address=10.0.1.1/24 interface=ether1\n/ip firewall filter\n" +
			"add action=drop chain=input protocol=tcp\nadd action=drop chain=input \\\n    protocol=tcp dst-port=22\nadd chain=input\nadd chain=input\n"
		for _, test := range []struct{ part, says, want string }{
			{"network", "netcfg: add address 10.0.1.1/24 to ether1: no buffer space available", " (line 3)"},
			{"firewall", "firewall: apply: filter rule 1 (chain=input action=drop dst-port=22 protocol=tcp): invalid argument", " (line 6)"},
			{"firewall", "firewall: apply: filter rule 2 (chain=input): invalid argument", ""},
			{"firewall", "firewall: apply: table filter as a whole: out of memory", ""},
		} {
			g.fail(test.part, errors.New(test.says))
			_, err := g.r.importLines(&session.Session{}, text, console.ImportArguments{})
			require.EqualError(t, err, test.says+test.want)
			require.Empty(t, g.r.snapshot().config.Addresses)
		}
	})
}

// The end of Safe Mode undoes its changes, and nothing of them can be done again.
func TestUndoInSafeMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		c := g.connect()
		c.prompt()
		c.run("/system identity set name=a")
		c.send('X', "")
		c.prompt()
		c.run("/ip dns set servers=9.9.9.9")
		screen := c.run("/system history print")
		assert.Contains(t, screen, "F dns changed ")
		assert.Contains(t, screen, "U system identity changed ")
		other := g.connect()
		other.prompt()
		assert.Contains(t, other.run("/undo"), "another session is in Safe Mode")
		c.run("/undo")
		c.run("/undo")
		assert.Contains(t, c.run("/system history print"), "R system identity changed ")
		c.run("/ip dns set servers=8.8.8.8")
		c.send('D', "")
		assert.Contains(t, c.prompt(), "[Safe Mode unrolled]\n[admin@a] > ")
		screen = c.run("/system history print")
		assert.Contains(t, screen, "U system identity changed ")
		assert.NotContains(t, screen, "dns")
		c.run("/undo")
		assert.Equal(t, "postern", g.r.snapshot().config.Identity)
		c.run("/redo")

		c.send('X', "")
		c.prompt()
		c.run("/ip dns set servers=1.1.1.1")
		c.send('X', "")
		c.prompt()
		assert.Contains(t, c.run("/system history print"), "U dns changed ")
	})
}

// The history takes no more memory than it may, and what it knows of stays right: each step is compared.
func TestHistoryBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.r.historyRoom = 40000
		var seen []string
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 3 * maxHistory {
			seen = append(seen, console.Export(g.r.snapshot().config))
			switch rules := len(g.r.snapshot().config.Firewall.Filter); {
			case rules > 2 && random.IntN(3) == 0:
				g.must(fmt.Sprintf("/ip firewall filter remove %d", random.IntN(rules)))
			case rules > 2 && random.IntN(3) == 0:
				g.must(fmt.Sprintf("/ip firewall filter move %d 0; /ip firewall filter set %d log-prefix=x%d", 1+random.IntN(rules-1), random.IntN(rules), i))
			default:
				g.must(fmt.Sprintf("/ip firewall filter add chain=input comment=%d; /ip dns set servers=9.9.9.%d", i, i%200))
			}
			h := g.r.snapshot().history
			size := 0
			for _, e := range h.entries {
				size += e.size
			}
			require.LessOrEqual(t, size, g.r.historyRoom)
			require.LessOrEqual(t, len(h.entries), maxHistory)
		}
		seen = append(seen, console.Export(g.r.snapshot().config))
		steps := len(g.r.snapshot().history.entries)
		require.Greater(t, steps, 3)
		for i := range steps {
			g.must("/undo")
			require.Equal(t, seen[len(seen)-2-i], console.Export(g.r.snapshot().config))
		}
		again := len(g.r.snapshot().history.entries)
		for i := range again {
			g.must("/redo")
			require.Equal(t, seen[len(seen)-1-steps+i+1], console.Export(g.r.snapshot().config))
		}
		// A change that is too big for the room cannot be undone, and nothing before it.
		var text strings.Builder
		for i := range 250 {
			fmt.Fprintf(&text, "/ip firewall nat add chain=srcnat action=masquerade comment=%d\n", i)
		}
		s := &session.Session{}
		_, err := g.r.importLines(s, text.String(), console.ImportArguments{})
		require.NoError(t, err)
		_, err = g.r.importLines(s, "/system identity set name=z", console.ImportArguments{Replace: true})
		require.NoError(t, err)
		assert.Empty(t, g.r.snapshot().history.entries)
		assert.Equal(t, 64<<10, historyRoom(8<<20))
		assert.Equal(t, 96<<10, historyRoom(24<<20))
		assert.Equal(t, 1<<20, historyRoom(1<<30))
	})
}

// The error of a rule has the number that print shows, while dynamic rules stand before it too.
func TestNumberedErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip firewall filter add chain=input", "/ip firewall filter add chain=input protocol=tcp dst-port=22")
		c := g.connect()
		c.prompt()
		assert.Contains(t, c.run("/ip firewall filter set 1 !protocol"), "/ip firewall: filter rule 1: ")
		g.firewall.openings = []firewall.Opening{{Peer: netip.MustParseAddr("10.5.8.8"), Local: netip.MustParseAddr("10.1.0.104"), Port: 40000}}
		assert.Contains(t, c.run("/ip firewall filter print"), " 2   chain=input")
		assert.Contains(t, c.run("/ip firewall filter set 2 !protocol"), "/ip firewall: filter rule 2: ")
		assert.Contains(t, c.run("/ip firewall filter add chain=input dst-port=22"), "/ip firewall filter, the new rule: ")
	})
}
