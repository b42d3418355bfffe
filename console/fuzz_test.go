package console

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const fuzzConfig = `
/interface ethernet set ether1 mtu=1400
/interface bridge add name=b1
/interface vlan add name=v1 interface=ether1 vlan-id=5
/interface bridge port add bridge=b1 interface=ether2
/ip address add address=192.168.0.1/24 interface=ether2
/ip route add gateway=192.168.0.254
/ip dns set servers=9.9.9.9
/ip firewall filter add chain=input in-interface=!ether2 comment="a b"
/ip firewall nat add chain=srcnat action=masquerade
/ip socks access add dst-port=21,80-90
/ip socks access add action=deny
/ip socks users add name=alice password-hash=x rate-limit=10M
/system logging add topics=socks,!info action=remote
`

// No line panics. One that fails changes nothing, and what one changes can be exported and
// read back.
func FuzzExecute(f *testing.F) {
	for _, line := range []string{
		"/ip socks access add dst-port=21 src-address=192.168.0.2 \\\n action=allow",
		"/ip firewall filter\nadd chain=forward action=drop protocol=tcp; print; print stats",
		"ip socks; set enabled=yes port=1 connection-idle-timeout=1d00:02:00; .. ; /",
		`/system identity set name="a\"b\\\$\?\_\41"`,
		"/ip socks access; remove 0,1; export",
		"/ip/socks/access set numbers=0 comment=é disabled=yes",
		"/interface ethernet; set ether1 mtu=\"\"; disable 0; print; set usb1",
		"/ip dns set servers=1.1.1.1,2.2.2.2; # comment",
		"/ip firewall nat set 0 to-ports=1-2 icmp-options=8:0 log-prefix=\"x \"",
		"/quit; /system reboot", `/system note set note="a\r\nb" show-at-login=no; print; export`, "/queue simple add name=q queue=pcq-upload-default/default; print",
		"/ip firewall filter add chain=input place-before=[find chain=input] copy-from=0",
		"/ip socks access move 0-1 destination=0; comment [find action=allow] \"x y\"; find",
		"/ip socks access remove [find where dst-port!=21 and !disabled comment~\"a\"]",
		"/ip socks access print where (dst-port>=21||!disabled) and !(hits<5)",
		"/ip socks access; print detail where action=allow; print terse; print count-only",
		"/ip socks access set 0 !dst-port action=d; /ip socks reset port",
		"/ip socks access check src-address=1.2.3.4 dst-address=5.6.7.8 dst-port=21",
		"/log print follow where topics~\"info\" message~\"x\"",
		"/user set admin password=secret; /user set admin password-hash=\"\\$x\"",
		"/system clock set date=jan/31/2030 time=12:00:00",
		"/interface bridge add name=b2 protocol-mode=stp; set b1 name=b3; /interface bridge port remove [find bridge=b1]",
		"/interface vlan set v1 vlan-id=4094 mtu=1280; /interface ethernet set ether1 mac-address=02:00:5e:00:53:01; /interface print stats",
		"/interface ethernet set ether1 name=wan; disable wan; export; /ip address add address=10.0.0.1/8 interface=wan",
		"/interface ethernet set [find default-name=ether2] name=lan; /interface comment lan x; /interface find name=lan",
		"/interface bridge set b1 name=b9; /interface vlan set v1 name=v9; /interface disable 0,b9",
		"/system clock manual set time-zone=-03:30; /import", "/ip arp print follow; /ip socks connections print follow",
		"/system logging add action=remote topics=!f; set 0 topics=s; action set remote remote=10.0.0.1; export",
		"/ip socks set version=5 auth-method=p udp=y; users add name=bob password=secret only-one=yes rate-limit=1k; print; set alice password=x",
		"/ip socks users add copy-from=alice name=\"\\C3\\A9\"; print where rate-limit>=1M; export show-sensitive; disable 0",
		"/ip firewall filter add chain=own action=jump jump-target=other log=yes tcp-flags=syn,!ack port=1-2 limit=10/1m,5:packet; reset-counters 0",
		"/ip firewall address-list add list=\"a b\" address=10.0.0.0/8; /ip firewall nat set 0 src-address-list=!a dst-address-type=!local",
		"/system ntp client; set servers=a,b; servers remove 0; servers add address=c; get servers; /ip address get 0 network",
		"/system logging add action=remote prefix=\"x\\\"y\"; /system clock set time-zone-name=Europe/Riga",
		"/ping 10.0.0.1 count=3 interval=20ms", "/tool traceroute example.org max-hops=5",
	} {
		f.Add(line, true)
		f.Add(line, false)
	}
	base, err := Load("base", strings.NewReader(fuzzConfig))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, line string, live bool) {
		checkExecute(t, base, line, live)
	})
}

// checkExecute runs a line on base and reports whether it succeeded.
func checkExecute(t *testing.T, base Config, line string, live bool) bool {
	cfg := base.Clone()
	session := Session{path: "ip socks", Width: len(line) % 90}
	var l Live
	if live {
		l = fullLive()
	}
	// Completion and help are asked for while the line is typed.
	insert, choices := session.Complete(cfg, l, line)
	if insert != "" {
		require.NotEmpty(t, choices)
		require.NotContains(t, insert, "\n")
	}
	help := session.Help(cfg, l, line)
	require.True(t, help == "" || strings.HasSuffix(help, "\n"), help)
	require.Equal(t, Session{path: "ip socks", Width: len(line) % 90}, session)
	result, err := session.Execute(cfg, l, line)
	require.Equal(t, base, cfg, "the configuration that was given was changed")
	if err != nil {
		assert.Equal(t, Result{Config: cfg}, result)
		assert.Equal(t, "ip socks", session.path)
		assert.NotContains(t, err.Error(), "\n")
		return false
	}
	if result.Repeat > 0 {
		again, err := session.Execute(cfg, l, line)
		require.NoError(t, err)
		require.Equal(t, result.Follow, again.Follow)
	}
	_ = Validate(result.Config, []string{"ether1", "ether2"})
	if ambiguousNames(result.Config) { // which Validate does not let through
		return true
	}
	assert.Equal(t, result.Changed, Export(cfg) != Export(result.Config))
	got, err := Load("export", strings.NewReader(Export(result.Config)))
	require.NoError(t, err)
	require.Equal(t, settings(result.Config), settings(got))
	again, err := new(Session).Import(Default(), Live{HashPassword: fullLive().HashPassword, Now: time.Now, RemoteLog: true, NTP: fullLive().NTP}, Export(result.Config), nil)
	require.NoError(t, err)
	require.True(t, result.Config.Equal(again.Config))
	again, err = new(Session).Import(again.Config, Live{HashPassword: fullLive().HashPassword, Now: time.Now, RemoteLog: true, NTP: fullLive().NTP}, Export(result.Config), nil)
	require.NoError(t, err)
	require.False(t, again.Changed)
	return true
}

// ambiguousNames reports whether a port has a name that something else has too.
func ambiguousNames(cfg Config) bool {
	for i, p := range cfg.Links {
		if p.Renamed == "" {
			continue
		}
		for j, other := range cfg.Links {
			if i != j && cfg.Called(other.Name) == p.Renamed {
				return true
			}
		}
		// What refers to a port that was not set refers to its own name.
		elsewhere := cfg.Clone()
		elsewhere.renameReferences(p.Renamed, "elsewhere")
		if slices.Contains(cfg.createdLinks(), p.Renamed) || cfg.Called(p.Renamed) == p.Renamed && !cfg.Equal(elsewhere) {
			return true
		}
	}
	return false
}

// rounds is how many of n random inputs a test has here. The race detector makes each several times as long, and looks for what one goroutine cannot
// do: with it there is a sixth of them. All of them are in a run without it: by make quick, and by make test, which runs these tests as TestLinkedTests too.
func rounds(n int) int {
	if raced {
		return n / 6
	}
	return n
}

// The fuzzer seldom finds lines that are nearly right; here most are.
func TestExecuteRandomWords(t *testing.T) {
	base, err := Load("base", strings.NewReader(fuzzConfig))
	require.NoError(t, err)
	words := []string{"/", "..", ";", "\n", "\\\n", "0", "1", "0,1", "2", "ether1", "usb1", "ether9", "stats", "\"x\"", "#", "numbers=0", "x=y",
		"detail", "terse", "count-only", "where", "follow", "interval=1s", "destination=0", "place-before=0", "copy-from=1", "0-1",
		"[find]", "[find chain=input]", "[find action!=allow]", "[find", "]", "disabled", "!comment", "!dst-port", "address=10.0.0.1", "count=3", "in", ";;;", "log=no", "network=10.0.0.0",
		"(", ")", "or", "and", "!(", "dst-port>20", "hits<=9", "src-address=10.0.0.1", "dst-address=10.0.0.2", "dst-port=21", "time=1:2:3", "date=2030-01-31"}
	values := []string{"yes", "no", "1", "70000", "2m", "10.0.0.1", "10.0.0.0/8", "!10.0.0.1-10.0.0.2", "21,80-90", "ether1", "!ether2",
		"tcp", "input", "srcnat", "drop", "masquerade", "allow", "new", "8:0", "d", "e", "b1", "v1", "stp", "02:00:5e:00:53:01", "+05:30", "wan", "\"\"", "\"a b\"", "tcp-reset", "alice", "512k", "5", "password"}
	for _, m := range menus() {
		words = append(words, "/"+m.path, m.name())
		for _, c := range m.commands {
			words = append(words, "/"+m.path+" "+c.name, c.name, c.name)
		}
		for _, p := range m.properties {
			words = append(words, p.name+"=", p.name+"=")
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	good := 0
	for range rounds(5000) {
		var line strings.Builder
		for range 1 + r.IntN(6) {
			w := words[r.IntN(len(words))]
			if strings.HasSuffix(w, "=") {
				w += values[r.IntN(len(values))]
			}
			line.WriteString(w + " ")
		}
		if checkExecute(t, base, line.String(), r.IntN(2) == 0) {
			good++
		}
	}
	assert.Greater(t, good, rounds(100), "the lines are all bad: they test little")
}
