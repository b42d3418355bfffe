package console

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
)

func TestComplete(t *testing.T) {
	cfg, err := Load("test", strings.NewReader(liveConfig))
	require.NoError(t, err)
	for _, test := range []struct{ name, before, insert, choices string }{
		// Menus and commands.
		{"root", "", "", "system partitions user certificate interface routing ip queue file log tool ping password import undo redo quit export"},
		{"ambiguous", "i", "", "interface ip import"},
		{"whole", "in", "terface ", "interface"},
		{"whole already", "ip", " ", "ip"},
		{"none", "foo", "", ""},
		{"blanks", " \t ip  so", "cks ", "socks"},
		{"from the root", "/i", "", "interface ip import"},
		{"path with slashes", "/ip/socks/acc", "ess ", "access"},
		{"path that ends with a slash", "/ip/socks/", "", "access users connections set print get reset export .."},
		{"a menu", "/ip socks ", "", "access users connections set print get reset export .."},
		{"shortened menus", "/ip so acc ", "", "add set unset remove move enable disable comment find get print check export .."},
		{"up", "/ip socks .", ". ", ".."},
		{"behind up", "/ip socks .. dn", "s ", "dns"},
		{"up by a slash", "/ip/socks/../dn", "s ", "dns"},
		{"common beginning", "/ip socks access e", "", "enable export"},
		{"second command", "/ip socks print; /ip r", "oute ", "route"},
		{"second line", "/ip dns print \\\n", "", "without-paging interval"},
		{"words of a menu without items", "/ip socks print ", "", "detail without-paging interval"},
		{"second line, new", "/ip socks print\n/l", "og ", "log"},
		{"behind a comment", "# a comment\n/l", "og ", "log"},
		{"in a comment", "# a comm", "", ""},
		// Arguments.
		{"properties", "/ip address add ", "", "address interface disabled comment place-before copy-from"},
		{"property", "/ip address add add", "ress=", "address"},
		{"a property given", "/ip address add address=1.1.1.1 ", "", "interface disabled comment place-before copy-from"},
		{"properties with the same beginning", "/ip socks access add s", "rc-", "src-address src-port"},
		{"numbers first", "/ip socks access set ", "numbers=", "numbers"},
		{"behind numbers", "/ip socks access set 0 ds", "t-", "dst-address dst-port"},
		{"behind named numbers", "/ip socks access set numbers=0 ac", "tion=", "action"},
		{"behind found ones", "/ip socks access set [find action=deny] ac", "tion=", "action"},
		{"names of ports", "/interface ethernet set e", "ther", "ether1 ether2"},
		{"behind a name", "/interface ethernet set ether1 mt", "u=", "mtu"},
		{"the user", "/user set ", "", "admin numbers"},
		{"properties of the user", "/user set admin pass", "word", "password-hash password"},
		{"groups", "/user set admin group=", "", "read write full"},
		{"policies", "/user group add name=x policy=read,s", "", "ssh sniff sensitive"},
		{"words", "/ip socks access print ", "", "detail terse count-only stats without-paging where interval from"},
		{"what to unset", "/ip socks access unset 0 ds", "t-", "dst-address dst-port"},
		{"what to unset, by its name", "/ip socks access unset numbers=0 value-name=com", "ment ", "comment"},
		{"what else to unset", "/ip socks access unset 0 value-name=comment,src-p", "ort ", "src-port"},
		{"what to unset of settings", "/ip dns unset s", "ervers ", "servers"},
		{"a word", "/ip socks access print de", "tail ", "detail"},
		{"a word given", "/ip socks access print detail stats ", "", "terse count-only without-paging where interval from"},
		{"words of export", "/ip socks export ", "", "compact verbose terse hide-sensitive show-sensitive file"},
		{"no more", "/quit ", "", ""},
		{"destination", "/ip socks access move 0 ", "destination=", "destination"},
		{"what to reset", "/ip socks reset p", "ort ", "port"},
		{"what to check", "/ip socks access check ", "", "src-address src-port dst-address dst-port"},
		{"ping", "/ping 10.0.0.1 c", "ount=", "count"},
		{"unknown argument", "/ip socks set foo=", "", ""},
		// Values.
		{"values", "/ip socks access add action=", "", "allow deny"},
		{"value", "/ip socks access add act=a", "llow ", "allow"},
		{"whole value", "/ip socks set enabled=yes", " ", "yes"},
		{"boolean", "/ip socks set enabled=", "", "yes no"},
		{"ports", "/ip address add interface=", "", "ether1 ether2 usb1"},
		{"not a port", "/ip firewall filter add in-interface=!u", "sb1 ", "usb1"},
		{"in a list", "/ip firewall filter add connection-state=!new,est", "ablished ", "established"},
		{"no list", "/ip firewall filter add chain=input,f", "", ""},
		{"anything", "/ip socks set port=", "", ""},
		{"in quotes", `/ip socks set enabled="`, "", ""},
		{"behind quotes", `/ip socks access add comment="a b" d`, "", "dst-address dst-port disabled"},
		// Conditions and brackets.
		{"where", "/ip socks access print where act", "ion=", "action"},
		{"second condition", "/ip socks access print where action=allow c", "omment=", "comment"},
		{"value of a condition", "/ip socks access print where action!=d", "eny ", "deny"},
		{"flags", "/interface print where r", "", "rx-byte rx-packet running"},
		{"find", "/ip socks access find dst-p", "ort=", "dst-port"},
		{"bracket", "/ip socks access remove [", "find ", "find"},
		{"in brackets", "/ip socks access remove [find ", "", "src-address src-port dst-address dst-port action disabled comment hits"},
		{"begun in brackets", "/ip socks access remove [find act", "ion=", "action"},
		{"not set", "/ip socks access print where !dis", "abled ", "disabled"},
		{"in a group", "/ip socks access remove [find (", "", "src-address src-port dst-address dst-port action disabled comment hits"},
		{"begun in a group", "/ip socks access print where comment=x or (act", "ion=", "action"},
		{"behind a parenthesis", "/ip socks access print where (", "", "src-address src-port dst-address dst-port action disabled comment hits"},
		{"value in a group", "/ip socks access print where (comment=x or action=d", "eny ", "deny"},
		{"value in brackets", "/ip socks access remove [find dst-port=21 action=d", "eny ", "deny"},
		{"brackets of an argument", "/ip socks access add place-before=[find com", "ment=", "comment"},
		// Bad lines.
		{"bad command", "/ip foo ", "", ""},
		{"bad word", "/ip socks access set $", "", ""},
		{"too long", strings.Repeat("/", MaxLine+1), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			insert, choices := new(Session).Complete(cfg, fullLive(), test.before)
			assert.Equal(t, test.insert, insert)
			assert.Equal(t, test.choices, strings.Join(choiceNames(choices), " "))
			for _, c := range choices {
				assert.NotEmpty(t, c.Help, c.Name)
			}
		})
	}
	t.Run("the session's menu", func(t *testing.T) {
		session := Session{path: "ip socks"}
		insert, choices := session.Complete(cfg, Live{}, "acc")
		assert.Equal(t, "ess ", insert)
		assert.Len(t, choices, 1)
	})
	t.Run("ports that cannot be listed", func(t *testing.T) {
		live := Live{Links: func() ([]netcfg.LinkState, error) { return nil, errors.New("broken") }}
		insert, choices := new(Session).Complete(cfg, live, "/ip address add interface=")
		assert.Empty(t, insert)
		assert.Empty(t, choices)
	})
}

// Tab completes every beginning of a line to the beginning of a valid line.
func TestCompleteEverywhere(t *testing.T) {
	live := fullLive()
	live.Requests = append(live.Requests, Edit)
	for _, m := range menus() {
		base := "/" + m.path + " "
		if m.path == "" {
			base = "/"
		}
		for _, c := range m.commands {
			insert, _ := new(Session).Complete(Default(), live, base+c.name)
			if !slices.ContainsFunc(m.commands, func(o command) bool { return strings.HasPrefix(o.name, c.name+"-") }) {
				assert.Equal(t, " ", insert, base+c.name)
			}
			for _, p := range m.properties {
				if !c.properties {
					continue
				}
				line := base + c.name + " "
				if len(c.positional) > 0 {
					line += "numbers=0 "
				}
				insert, choices := new(Session).Complete(Default(), live, line+p.name)
				longer := func(q property) bool { return strings.HasPrefix(q.name, p.name+"-") }
				if !slices.ContainsFunc(m.properties, longer) {
					assert.Equal(t, "=", insert, line+p.name)
				}
				assert.NotEmpty(t, choices)
				help := new(Session).Help(Default(), live, line+p.name+"=")
				assert.Contains(t, help, p.name+" -- "+p.help+"\n")
				assert.Contains(t, help, "type: "+p.accepts)
				assert.Contains(t, help, "default: ")
				if p.def != "" {
					assert.Contains(t, help, "default: "+quote(p.def)+"\n")
				}
			}
		}
	}
}

func TestHelp(t *testing.T) {
	for _, test := range []struct {
		name, before, want string
		width              int
	}{
		{"a menu", "/ip socks ", `SOCKS server

access -- who may use the SOCKS server for what, first match decides
users -- users of the SOCKS server, with version=5 and auth-method=password
connections -- connections through the SOCKS server
set -- change properties
print -- show what is set
get -- show the value of a property
reset -- set properties back to their defaults: those named, or all
export -- show the configuration of this menu and those below as commands
.. -- go up to /ip
`, 0},
		{"a beginning", "/ip socks access e", `enable -- enable items
export -- show the configuration of this menu and those below as commands
`, 0},
		{"a command", "/ip socks set ", `change properties

enabled -- whether the server runs
port -- TCP port on which the server listens
connection-idle-timeout -- time after which idle connections are closed
max-connections -- how many connections there can be at once
version -- version of the protocol; 5 has passwords
auth-method -- how clients of version 5 say who they are; password: as a user of /ip socks users
udp -- whether clients of version 5 may send and receive datagrams (not in RouterOS)
`, 0},
		{"a range", "/ip socks set max-connections=", `max-connections -- how many connections there can be at once
type: integer: 1..500
default: 200
`, 0},
		{"a list of values", "/ip socks access add action=a", `action -- what happens to a request that matches
type: allow | deny
default: allow
`, 0},
		{"unset", "/ip socks access add dst-port=", `dst-port -- TCP port of the server
type: [!]port, port-port or a list of them: 0..65535, at most 15
default: unset, which means any
`, 0},
		{"needed", "/ip route add gateway=", `gateway -- router that forwards the packets, with % and the interface it is on if no address there is of its network; or an interface, as a PPPoE client
type: IP address | IP address%interface | interface
default: none, it must be given
`, 0},
		{"an argument", "/ip route print interval=", `interval -- time after which to print again, until a key is pressed
type: time: 500ms..1h
default: unset, which means once
`, 0},
		{"numbers", "/ip route set ", `change properties of items

numbers -- which items, as the last print numbered them
`, 0},
		{"in 40 columns", "/ip socks access set 0 dst-port=", `dst-port -- TCP port of the server
type: [!]port, port-port or a list of
    them: 0..65535, at most 15
default: unset, which means any
`, 40},
		{"a bad line", "/ip foo ", "bad command name foo (line 1 column 5); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			session := Session{Width: test.width}
			assert.Equal(t, test.want, session.Help(Default(), testLive(), test.before))
		})
	}
}
