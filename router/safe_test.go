package router

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
)

// An import that replaces all is undone with Safe Mode, and what the system refuses changes nothing.
func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip address add address=192.168.0.1/24 interface=ether2", "/interface bridge add name=b")
		c := g.connect()
		c.prompt()
		before := g.r.snapshot().config
		replace := func(answer string, lines ...string) string {
			c.send('L', "/import replace=yes")
			for _, line := range append(slices.Clone(lines), ".", answer) {
				c.until("A")
				c.send('L', line)
			}
			return c.prompt()
		}
		text := []string{"/ip address", "add address=10.0.0.1/8 interface=ether1"}
		g.fails["network"] = []error{errFake}
		assert.Contains(t, replace("y", text...), "refused by the test")
		assert.True(t, before.Equal(g.r.snapshot().config))
		assert.Equal(t, before.Addresses, g.network.config.Addresses)

		c.send('X', "")
		c.prompt()
		assert.Contains(t, replace("yes", text...), "Script loaded and executed successfully\n"+safePrompt)
		after := console.Export(g.r.snapshot().config)
		assert.Equal(t, "/ip address\nadd address=10.0.0.1/8 interface=ether1\n", after)
		require.Len(t, g.network.config.Addresses, 1)
		assert.Equal(t, "10.0.0.1/8", g.network.config.Addresses[0].Address.String())
		c.send('D', "")
		assert.Equal(t, "[Safe Mode unrolled]\n"+prompt, c.prompt())
		assert.True(t, before.Equal(g.r.snapshot().config))
		assert.Equal(t, before.Addresses, g.network.config.Addresses)

		assert.Contains(t, replace("y", text...), prompt)
		c.send('L', "/export")
		assert.Equal(t, after+prompt, c.prompt())
		c.hangUp()
	})
}

func TestSafeMode(t *testing.T) {
	const line = "/ip address add address=192.168.0.1/24 interface=ether2"
	const undone = "what was changed is undone: "
	has := func(g *rig) bool {
		g.Helper()
		in := len(g.network.config.Addresses) > 0
		assert.Equal(g, in, len(g.r.snapshot().config.Addresses) > 0, "system and configuration")
		return in
	}
	taken := func(t *testing.T) (*rig, *guest) {
		g := started(t)
		c := g.connect()
		c.prompt()
		c.send('X', "")
		require.Equal(t, "[Safe Mode taken]\n"+safePrompt, c.prompt())
		require.Equal(t, safePrompt, c.run(line))
		require.True(t, has(g), "changes have effect at once")
		require.Empty(t, g.kept, "a power cut undoes them")
		return g, c
	}
	// other is a session that presses Ctrl-X, and answers.
	other := func(g *rig, kind byte, answer string) *guest {
		c := g.connect()
		c.prompt()
		c.send('X', "")
		c.until("A")
		c.send(kind, answer)
		return c
	}
	for _, test := range []struct {
		name string
		do   func(g *rig, c *guest)
		stay bool
		said string
	}{
		{"released", func(g *rig, c *guest) {
			c.send('X', "")
			assert.Equal(g, "[Safe Mode released]\n"+prompt, c.prompt())
		}, true, "Safe Mode released by console:admin@ttyS0"},
		{"Ctrl-D", func(g *rig, c *guest) {
			c.send('D', "")
			assert.Equal(g, "[Safe Mode unrolled]\n"+prompt, c.prompt())
			assert.Contains(g, c.run("/ip address print count-only"), "0\n"+prompt)
		}, false, undone + "it was given up"},
		{"the connection breaks", func(_ *rig, c *guest) { c.hangUp() }, false, undone + "the session has ended"},
		{"quit", func(_ *rig, c *guest) {
			c.send('L', "/quit")
			c.until("E")
			<-c.over
		}, true, "Safe Mode released by console:admin@ttyS0"},
		{"a bad frame", func(_ *rig, c *guest) {
			c.send('Z', "")
			<-c.over
		}, false, undone + "the session has ended"},
		{"another unrolls it", func(g *rig, c *guest) {
			second := g.connect()
			second.prompt()
			assert.Equal(g, "failure: another session is in Safe Mode: nothing can be changed until it leaves that; Ctrl-X takes it over\n"+prompt,
				second.run("/ip address remove [find]"))
			second.hangUp()
			second = other(g, 'L', "u")
			assert.Equal(g, "[Safe Mode taken]\n"+safePrompt, second.prompt())
			// The first is told, and does nothing more in the belief that it is safe.
			assert.Equal(g, "failure: Safe Mode has ended meanwhile (see the log); nothing was done now\n"+prompt, c.run(line))
			assert.Contains(g, c.run(line), "failure: another session is in Safe Mode")
			second.hangUp()
		}, false, "Safe Mode of console:admin@ttyS0 ended without a change: the session has ended"},
		{"another releases it", func(g *rig, c *guest) {
			second := other(g, 'L', "r")
			assert.Equal(g, "[Safe Mode taken]\n"+safePrompt, second.prompt())
			c.hangUp()
			second.hangUp()
		}, true, "Safe Mode of console:admin@ttyS0 ended without a change: the session has ended"},
		{"another leaves it", func(g *rig, c *guest) {
			second := other(g, 'D', "")
			assert.Equal(g, prompt, second.prompt())
			c.send('X', "")
			assert.Equal(g, "[Safe Mode released]\n"+prompt, c.prompt())
		}, true, "Safe Mode released by console:admin@ttyS0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, c := taken(t)
				test.do(g, c)
				assert.Contains(t, g.log(), test.said)
				assert.Equal(t, test.stay, has(g))
				assert.Equal(t, test.stay, len(g.lastKept().Addresses) > 0, "what survives")
				// And the next is free to change.
				g.must("/system identity set name=x")
				assert.Equal(t, "x", g.lastKept().Identity)
			})
		})
	}
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, c := taken(t)
			// Who types is heard.
			for range 10 {
				time.Sleep(safeSilence - time.Second)
				c.send('T', "/ip ")
				c.until("C")
			}
			synctest.Wait()
			assert.True(t, has(g))
			time.Sleep(safeSilence)
			synctest.Wait()
			assert.False(t, has(g))
			assert.Contains(t, g.log(), "what was changed is undone: nothing was heard for 9m0s")
			assert.Equal(t, "failure: Safe Mode has ended meanwhile (see the log); nothing was done now\n"+prompt, c.run(line))
			assert.Equal(t, prompt, c.run(line))
			assert.True(t, has(g))
		})
	})
	t.Run("a line that repeats itself is silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, c := taken(t)
			c.send('L', "/ip address print interval=500ms")
			assert.Contains(t, c.prompt(), "failure: Safe Mode has ended meanwhile")
			assert.False(t, has(g))
		})
	})
	t.Run("what cannot be undone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, c := taken(t)
			g.fail("network", errFake)
			c.send('D', "")
			assert.Contains(t, c.prompt(), "undo: refused by the test")
			assert.Contains(t, g.log(), "Safe Mode of console:admin@ttyS0: what was changed cannot be undone: refused by the test")
			assert.True(t, has(g))
		})
	})
	t.Run("one who is not in it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t)
			for _, request := range []session.SafeRequest{session.ReleaseSafeMode, session.UnrollSafeMode} {
				require.EqualError(t, g.r.safe(&session.Session{}, request), "failure: this session is not in Safe Mode")
			}
		})
	})
	t.Run("the end of the router", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, _ := taken(t)
			g.r.Shutdown()
			time.Sleep(2 * safeSilence)
			synctest.Wait()
			assert.NotContains(t, g.log(), "undone")
			assert.Empty(t, g.kept, "the next start has what there was before")
		})
	})
}

// Safe Mode on a router whose configuration was wrong as a whole goes back to one that is
// closed, and stays so: it used to forget that the firewall had not been mended.
func TestSafeModeOfARescue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.onFlash("/ip address\nadd address=10.0.0.1/8 interface=ether9\n")
		g.r.start()
		s := &session.Session{}
		require.NoError(t, g.r.safe(s, session.TakeSafeMode))
		_, err := g.run(s, "/ip firewall filter add chain=forward action=accept")
		require.NoError(t, err)
		assert.True(t, g.network.config.Forwarding)
		g.r.endSession(s)
		assert.False(t, g.network.config.Forwarding)
		assert.Contains(t, g.must("/system identity set name=x"), "warning: forwarding stays closed")
		assert.False(t, g.network.config.Forwarding)
	})
}
