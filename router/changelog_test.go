package router

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
)

// The log tells who has changed what, and by what way, and no value.
func TestChangesAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		var at int
		since := func() string {
			all := g.log()
			text := all[at:]
			at = len(all)
			return text
		}
		since()
		near := session.Origin{Via: viaSSH, Address: netip.MustParseAddr("192.168.0.2")}
		s := &session.Session{Session: console.Session{User: "admin"}, Origin: near}
		run := func(line string) string {
			t.Helper()
			_, err := g.run(s, line)
			require.NoError(t, err)
			return since()
		}
		const by = " by ssh:admin@192.168.0.2\n"
		assert.Contains(t, run("/ip firewall filter add chain=input action=drop comment=hush"), "info filter rule added"+by)
		assert.Contains(t, run("/ip firewall nat add chain=srcnat action=masquerade"), "info nat rule added"+by)
		assert.Contains(t, run("/ip address add address=10.9.0.1/24 interface=ether2"), "info address 10.9.0.1/24 added"+by)
		assert.Contains(t, run("/ip route add gateway=10.9.0.2"), "info route 0.0.0.0/0 added"+by)
		assert.Contains(t, run("/ip socks users add name=a password=hush1234; /ip socks set enabled=yes"), "info ip socks changed, ip socks users a added"+by)
		assert.Contains(t, run("/undo"), "info ip socks changed, ip socks users a added undone"+by)
		assert.Contains(t, run("/redo"), "info ip socks changed, ip socks users a added again"+by)
		assert.Contains(t, run("/ip firewall filter remove 0; /system identity set name=x"), "info system identity changed, filter rule removed"+by)
		assert.Empty(t, run("/ip firewall filter print"))
		assert.Empty(t, run("/system identity set name=x"), "no change")

		// What is told of users and their passwords is told once.
		said := run("/user add name=bob group=read password=hush5678; /system identity set name=y")
		assert.Contains(t, said, "info user bob added"+by)
		assert.Contains(t, said, "info system identity changed"+by)
		assert.Equal(t, 2, strings.Count(said, "\n"), said)
		said = run("/undo")
		assert.Contains(t, said, "info user bob removed"+by)
		assert.Contains(t, said, "info system identity changed undone"+by)
		assert.Equal(t, 2, strings.Count(said, "\n"), said)
		said = run("/redo")
		assert.Contains(t, said, "info user bob added"+by)
		assert.Contains(t, said, "info system identity changed again"+by)
		assert.Equal(t, 2, strings.Count(said, "\n"), said)
		assert.Contains(t, run("/user set bob comment=x"), "info user bob changed"+by)
		said = run("/undo") // a comment is in no line of its own
		assert.Equal(t, 1, strings.Count(said, "\n"), said)
		run("/user remove bob") // with a password of his, the serial line would ask for one

		// Another way in, and the serial line.
		s.Origin.Via = viaREST
		assert.Contains(t, run("/system identity set name=z"), "info system identity changed by rest-api:admin@192.168.0.2\n")
		c := g.connect()
		c.prompt()
		c.run("/ip firewall filter add chain=forward")
		assert.Contains(t, since(), "info filter rule added by console:admin@ttyS0\n")

		// An import is one change.
		var text strings.Builder
		for i := range 500 {
			fmt.Fprintf(&text, "/ip firewall address-list add list=l address=10.8.%d.%d\n", i/250, i%250)
		}
		_, err := g.r.importLines(s, text.String(), console.ImportArguments{})
		require.NoError(t, err)
		assert.Equal(t, 1, strings.Count(since(), "address list entry added by rest-api:admin@192.168.0.2\n"))

		// Of so many in a row a few are named.
		time.Sleep(sameTime + time.Second)
		for i := range 100 {
			_, err := g.run(s, fmt.Sprintf("/ip firewall address-list add list=m address=10.7.0.%d", i))
			require.NoError(t, err)
		}
		time.Sleep(sameTime + time.Second)
		synctest.Wait()
		said = since()
		assert.Contains(t, said, "info address list entry 10.7.0.4 added by rest-api:admin@192.168.0.2\n")
		assert.Contains(t, said, "info address list entry added by rest-api:admin@192.168.0.2 (95 more)\n")
		assert.Equal(t, sameNamed+1, strings.Count(said, "\n"), said)

		// The same one again is counted, with its name.
		for range 3 {
			for _, word := range []string{"no", "yes"} {
				_, err := g.run(s, "/ip address set [find address=10.9.0.1/24] disabled="+word)
				require.NoError(t, err)
			}
		}
		_, err = g.run(s, "/ip arp add address=10.9.0.7 mac-address=02:00:00:00:00:07 interface=ether2")
		require.NoError(t, err)
		said = since()
		assert.Contains(t, said, "info address 10.9.0.1/24 changed by rest-api:admin@192.168.0.2\n")
		assert.Contains(t, said, "info address 10.9.0.1/24 changed by rest-api:admin@192.168.0.2 (4 more)\n")
		assert.Contains(t, said, "info arp 10.9.0.7 added by rest-api:admin@192.168.0.2\n")
		assert.Equal(t, 3, strings.Count(said, "\n"), said)

		// Others too overwrite nothing.
		for i := range 500 {
			_, err := g.run(s, []string{"/system identity set name=x", "/ip settings set rp-filter=loose", "/system identity set name=y", "/ip settings set rp-filter=no"}[i%4])
			require.NoError(t, err)
		}
		lines := strings.Count(since(), "\n")
		assert.LessOrEqual(t, lines, changeBurst+1)
		assert.GreaterOrEqual(t, lines, changeBurst/2)
		assert.NotContains(t, g.log(), "hush")
	})
}
