package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// TestManyRules has the smallest board use about 240 rules, with every matcher that there is, and 1,000
// entries of address lists. It says how long a change of them takes.
func TestManyRules(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		if b.Name != "malta" {
			continue
		}
		r := startRouter(t, b.Name, func(o *machineOptions) {
			o.capture = false
			var text strings.Builder
			text.WriteString("/ip firewall address-list\n")
			for i := range 998 {
				fmt.Fprintf(&text, "add list=many address=198.18.%d.%d\n", i/100, i%100*2)
			}
			text.WriteString("/ip firewall filter\n")
			// Every matcher of the kernel's that no other test boots with.
			for _, matcher := range []string{"dst-address-type=local", "src-address-type=!broadcast", "packet-size=20-1500", "limit=1000,100:packet",
				"connection-limit=!500,32 protocol=tcp", "src-mac-address=!02:00:00:00:00:01", "port=!9 protocol=tcp", "tcp-flags=!fin protocol=tcp"} {
				text.WriteString("add chain=input action=passthrough comment=matches " + matcher + "\n")
			}
			text.WriteString("add chain=input action=jump jump-target=own src-address-list=!many log=no\nadd chain=own action=return comment=matches src-address-list=!many\n")
			for i := range 225 {
				fmt.Fprintf(&text, "add chain=forward action=passthrough protocol=udp dst-port=%d\n", 1000+i)
			}
			text.WriteString("add chain=forward action=drop dst-address-list=many\n")
			text.WriteString("add chain=input action=add-src-to-address-list address-list=callers address-list-timeout=3w protocol=tcp dst-port=1080\n")
			text.WriteString(mangled)
			o.configuration += text.String()
		})
		r.awaitService(t)
		r.awaitLinks(t)
		free, _ := r.freeMemory(t)
		t.Logf("%.1f MiB free", free)
		timed := func(line string) string {
			start := time.Now()
			used, err := r.m.processorTime()
			require.NoError(t, err)
			out := r.command(t, line)
			took := time.Since(start)
			usedThen, err := r.m.processorTime()
			require.NoError(t, err)
			// The second is the time on a host that does nothing else.
			t.Logf("%v, %v of it by the machine's processor: %s", took.Round(time.Millisecond), (usedThen - used).Round(time.Millisecond), line)
			return out
		}
		timed("/ip firewall filter print count-only")
		timed("/ip firewall filter add chain=input action=log disabled=yes")
		timed("/ip firewall filter set [find action=log] disabled=no protocol=icmp")
		timed("/ip firewall address-list set [find address=198.18.0.2] address=198.18.200.1")
		timed("/ip firewall address-list add list=many address=198.18.200.2")
		timed("/ip firewall address-list add list=many address=198.18.200.3 timeout=3w")
		out := timed("/ip firewall filter print stats where dst-address-list=many")
		assert.Contains(t, out, "drop")
		timed("/ip firewall address-list print count-only")
		// This console is the serial line's: a connection has to come from elsewhere.
		conn, err := r.n.dial(client, lanAddress+":1080", patience)
		require.NoError(t, err)
		conn.Close()
		out = timed("/ip firewall address-list print where dynamic")
		assert.Contains(t, out, clientAddress+" ")
		assert.Contains(t, out, "198.18.200.3 ")
		assert.Equal(t, 2, strings.Count(out, " 2w6d23h"), out)
		assert.Equal(t, "9", strings.TrimSpace(timed("/ip firewall filter print count-only where comment=matches packets>0")))
		r.seeMangled(t)
		timed("/ip firewall mangle set [find new-dscp=46] new-dscp=34")
		timed("/ip firewall filter reset-counters-all")
		assert.Equal(t, "0", strings.TrimSpace(timed("/ip firewall filter print count-only where dst-address-list=many packets>0")))
		free, _ = r.freeMemory(t)
		t.Logf("%.1f MiB free", free)
	}
}
