package router

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/netcfg"
)

// While something that a session waits for never answers, everybody else goes on: the answer
// to the watchdog, prompts and lines of others, and the undo of Safe Mode.
func TestWhatHangsHoldsUpNobody(t *testing.T) {
	for _, c := range []struct {
		name, line string
		hang       func(g *rig, n never)
	}{
		{"the list of a service", "/ip socks access print stats", func(g *rig, n never) { g.first.hangs = n; g.second.hangs = n }},
		{"counters", "/ip firewall filter print stats", func(g *rig, n never) { g.firewall.hangs = n }},
		{"a hash", "/user set admin password=secret", func(g *rig, n never) {
			g.r.logins.make = func(string) (string, error) { n.wait(); return "", errFake }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := started(t, "/ip socks access add action=deny", "/ip firewall filter add chain=forward action=drop")
				safe := g.connect()
				safe.prompt()
				safe.send('X', "")
				safe.prompt()
				assert.Equal(t, safePrompt, safe.run("/ip address add address=10.0.0.1/8 interface=ether1"))

				n := make(never)
				c.hang(g, n)
				stuck := make(chan struct{})
				go func() {
					defer close(stuck)
					_, _ = g.run(&session.Session{}, c.line)
				}()
				synctest.Wait()
				select {
				case <-stuck:
					t.Fatal("it does not hang")
				default:
				}
				start := time.Now()
				require.NoError(t, g.r.Alive())
				require.NoError(t, g.r.health())
				other := g.connect()
				other.prompt()
				assert.Contains(t, other.run("/ip address print"), "10.0.0.1/8")
				safe.hangUp()
				assert.Empty(t, g.network.config.Addresses, "undone")
				assert.Equal(t, "[admin@x] > ", other.run("/system identity set name=x"))
				assert.Zero(t, time.Since(start))
				close(n)
				<-stuck
			})
		})
	}
}

// A process that does not take a change delays who made it for a moment, and nobody else: no
// other line, and no undo of Safe Mode.
func TestProcessThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		safe := g.connect()
		safe.prompt()
		safe.send('X', "")
		safe.prompt()
		g.second.slow = make(chan error)
		start := time.Now()
		assert.Equal(t, safePrompt, safe.run("/ip socks set port=1081"))
		assert.Equal(t, takeTime, time.Since(start))
		safe.send('L', "/ip socks set port=1082")
		synctest.Wait()
		other := g.connect()
		other.prompt()
		other.send('X', "")
		other.until("A")
		start = time.Now()
		other.send('L', "u")
		other.prompt()
		assert.EqualValues(t, 1080, g.second.config.Socks.Port, "undone")
		assert.Zero(t, time.Since(start))
		safe.prompt()
		other.send('L', "/ip socks set port=1083")
		time.Sleep(time.Second)
		g.second.slow <- errFake
		assert.Contains(t, other.prompt(), "warning: second: refused by the test\n")
	})
}

// A change that hangs in the kernel or in iptables is for the watchdog; health and prompts
// say so without waiting for it.
func TestChangeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		n := make(never)
		g.network.hangs = n
		done := make(chan error)
		go func() { _, err := g.run(&session.Session{}, everything); done <- err }()
		synctest.Wait()
		require.NoError(t, g.r.Alive())
		assert.Equal(t, prompt, g.r.prompt(&session.Session{}))
		time.Sleep(longChange + time.Second)
		require.EqualError(t, g.r.Alive(), "a change of the configuration has not ended for 1m0s")
		assert.Equal(t, prompt, g.r.prompt(&session.Session{}))
		close(n)
		require.NoError(t, <-done)
		require.NoError(t, g.r.Alive())
		g.second.ill.Store(&errFake)
		require.ErrorIs(t, g.r.Alive(), errFake)
	})
}

// A line whose configuration was changed while it ran runs again, on the new one: in the
// session's own place, and as if it had not run before.
func TestLineRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip dns set servers=1.1.1.1", "/ip socks access", "add action=deny comment=one", "add action=deny comment=two")
		g.first.lists, g.second.lists = make(chan struct{}), nil
		g.r.services = g.r.services[:1]
		slow := &session.Session{}
		type answer struct {
			out string
			err error
		}
		done := make(chan answer)
		go func() {
			out, err := g.run(slow, "/ip socks access; print stats; remove 0; /ip address")
			done <- answer{out, err}
		}()
		<-g.first.lists // it asks how often each rule has matched
		g.must("/ip socks access remove 0")
		g.first.lists <- struct{}{}
		<-g.first.lists // and again
		g.first.lists <- struct{}{}
		a := <-done
		require.NoError(t, a.err)
		assert.NotContains(t, a.out, "one")
		assert.Contains(t, a.out, "two")
		assert.Empty(t, g.r.snapshot().config.Socks.Access)
		assert.Equal(t, "[admin@postern] ip address> ", g.r.prompt(slow))
	})
}

// A session whose lines are slow has its turn, however many changes others make; one that is
// overtaken without end by what is no session's gives up.
func TestNobodyStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.r.logins.make = func(string) (string, error) { time.Sleep(3500 * time.Millisecond); return "", nil }
		stop := make(chan struct{})
		busy := make(chan struct{})
		go func() {
			defer close(busy)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
				g.must(fmt.Sprintf("/system identity set name=n%d", i))
			}
		}()
		start := time.Now()
		g.must("/user set admin password=secret; /ip dns set servers=1.1.1.1")
		assert.Less(t, time.Since(start), 30*time.Second)
		close(stop)
		<-busy
		assert.Len(t, g.machine.servers, 1)
	})
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		tries, state := 0, g.network.state
		g.network.state = func() ([]netcfg.LinkState, error) {
			tries++
			require.NoError(t, g.r.beginChange())
			next := g.r.now
			next.revision++
			g.r.set(next)
			g.r.endChange()
			return state()
		}
		_, err := g.run(&session.Session{}, "/interface print; /ip dns set servers=1.1.1.1")
		require.ErrorIs(t, err, errOutdated)
		assert.Equal(t, maxTries, tries)
		assert.Empty(t, g.calls())
	})
}

// A panic in a line ends its session, and holds up nobody.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		state := g.network.state
		g.network.state = func() ([]netcfg.LinkState, error) { panic("by the test") }
		c := g.connect()
		c.prompt()
		c.send('L', "/interface print")
		<-c.over
		g.network.state = state
		assert.Contains(t, g.log(), "panic: by the test")
		g.must("/system identity set name=x")
		assert.Equal(t, "x", g.machine.name)
	})
}
