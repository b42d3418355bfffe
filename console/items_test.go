package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/socks"
)

// ports writes the access list by the dst-port of each rule.
func ports(cfg Config) string {
	var all []string
	for _, r := range cfg.Socks.Access {
		all = append(all, r.DstPort.String())
	}
	return strings.Join(all, " ")
}

const fiveRules = `
/ip socks access
add dst-port=10
add dst-port=11 comment=x
add dst-port=12 action=deny comment=x
add dst-port=13 src-address=192.168.0.2/32
add dst-port=14 disabled=yes
`

func TestItems(t *testing.T) {
	for _, test := range []struct{ name, line, want, err string }{
		// Which items.
		{"one", "remove 1", "10 12 13 14", ""},
		{"list", "remove 0,4,0", "11 12 13", ""},
		{"range", "remove 1-3", "10 14", ""},
		{"list and range", "remove 0,2-3", "11 14", ""},
		{"range of one", "remove 2-2", "10 11 13 14", ""},
		{"backwards", "remove 3-1", "", "no such item: 3-1: the range ends before it begins"},
		{"too far", "remove 3-5", "", "no such item: 3-5"},
		{"huge", "remove 0-99999999999", "", "no such item: 0-99999999999"},
		{"half a range", "remove 0-", "", "no such item: 0-"},
		{"all found", "remove [find]", "", ""},
		{"found", "remove [find comment=x]", "10 13 14", ""},
		{"found by a shortened value", "remove [find action=d]", "10 11 13 14", ""},
		{"found by another form of the value", "remove [find src-address=192.168.0.2/255.255.255.255]", "10 11 12 14", ""},
		{"found by two", "remove [find comment=x action=deny]", "10 11 13 14", ""},
		{"found with where and and", "remove [find where comment=x and action=deny]", "10 11 13 14", ""},
		{"found by what it is not", "remove [find comment!=x]", "11 12", ""},
		{"found by a part", "remove [find dst-port~1 comment~\"x\"]", "10 13 14", ""},
		{"found by a pattern", "remove [find dst-port~\"^1[124]\\$\"]", "10 13", ""},
		{"found disabled", "remove [find disabled]", "10 11 12 13", ""},
		{"found by disabled=no", "remove [find disabled=no]", "14", ""},
		{"found set", "remove [find src-address]", "10 11 12 14", ""},
		{"found not set", "remove [find !comment]", "11 12", ""},
		{"found unset", "remove [find comment=\"\"]", "11 12", ""},
		{"found by either", "remove [find dst-port=10 or dst-port=14]", "11 12 13", ""},
		{"and binds more than or", "remove [find dst-port=10 or comment=x and action=deny]", "11 13 14", ""},
		{"nothing is and", "remove [find dst-port=10 or comment=x action=deny]", "11 13 14", ""},
		{"a group", "remove [find (dst-port=10 or comment=x) and action=allow]", "12 13 14", ""},
		{"a group, with signs", "remove [find action=allow&&x]", "", `input does not match any value of action; expected allow | deny, not "allow&&x"`},
		{"signs for words", "remove [find (dst-port=10 || comment=x) && action=allow]", "12 13 14", ""},
		{"not a group", "remove [find !(dst-port=10 or comment=x)]", "10 11 12", ""},
		{"groups in groups", "remove [find ((dst-port=10) or (!(!(dst-port=11))))]", "12 13 14", ""},
		{"less", "remove [find dst-port<12]", "12 13 14", ""},
		{"at most", "remove [find dst-port<=12]", "13 14", ""},
		{"more", "remove [find dst-port>12]", "10 11 12", ""},
		{"at least", "remove [find dst-port>=12]", "10 11", ""},
		{"an address and more", "remove [find src-address>=192.168.0.0]", "10 11 12 14", ""},
		{"counted", "remove [find hits>5]", "10 12 13 14", ""},
		{"no order", "remove [find comment>x]", "", "invalid value of comment (line 1 column 14); expected a number, a time, a size or an address"},
		{"open group", "remove [find (comment=x]", "", "expected closing brace (line 1 column 14); expected )"},
		{"closed group", "remove [find comment=x)]", "", "expected end of command (line 1 column 23)"},
		{"empty group", "remove [find ()]", "", "expected condition (line 1 column 15); expected property=value, with one of src-address, src-port, dst-address, dst-port, action, disabled, comment, hits"},
		{"too many groups", "remove [find " + strings.Repeat("(", 2000), "", "expected closing brace (line 1 column 2014); expected ]"},
		{"too deep groups", "remove [find " + strings.Repeat("(", 2000) + "]", "", "too many groups within groups (line 1 column 30)"},
		{"or at the end", "remove [find comment=x or]", "", "expected condition (line 1 column 24); expected property=value, with one of src-address, src-port, dst-address, dst-port, action, disabled, comment, hits"},
		{"and at the beginning", "remove [find and comment=x]", "", "expected condition (line 1 column 14); expected property=value, with one of src-address, src-port, dst-address, dst-port, action, disabled, comment, hits"},
		{"nothing found", "remove [find dst-port=99]", "10 11 12 13 14", ""},
		{"shortened find", "remove [f comment=x]", "10 13 14", ""},
		{"numbers by name", "remove numbers=[find comment=x]", "10 13 14", ""},
		{"bad condition", "remove [find foo=1]", "", "bad property name foo (line 1 column 14); expected one of src-address, src-port, dst-address, dst-port, action, disabled, comment, hits"},
		{"ambiguous condition", "remove [find d=1]", "", "ambiguous property name d (line 1 column 14); expected dst-address, dst-port, disabled"},
		{"bad value of a condition", "remove [find action=drop]", "", `input does not match any value of action; expected allow | deny, not "drop"`},
		{"a condition that is none", `remove [find "x"]`, "", "expected condition (line 1 column 14); expected property=value, with one of src-address, src-port, dst-address, dst-port, action, disabled, comment, hits"},
		{"open bracket", "remove [find", "", "expected closing brace (line 1 column 13); expected ]"},
		{"open bracket in a line", "remove [find; print", "", "expected closing brace (line 1 column 13); expected ]"},
		{"other command in brackets", "remove [print]", "", "Postern runs no scripts (line 1 column 8); expected [find ...]"},
		{"nothing in brackets", "remove []", "", "syntax error (line 1 column 8); expected [find ...]"},
		{"brackets in brackets", "remove [find comment=[find]]", "", `syntax error (line 1 column 22); expected a value with such a character to stand in quotes ("...")`},
		{"text behind brackets", "remove [find]x", "", "syntax error (line 1 column 14); expected a space behind the closing bracket"},
		{"brackets for a value", "add comment=[find]", "", `syntax error (line 1 column 13); expected a value with such a character to stand in quotes ("...")`},
		{"brackets for a command", "[find]", "", "expected command name (line 1 column 1)"},
		{"contains for a value", "set 0 comment~x", "", "expected end of command (line 1 column 7); expected one of src-address, src-port, dst-address, dst-port, action, disabled, comment"},
		// Adding.
		{"at the end", "add dst-port=20", "10 11 12 13 14 20", ""},
		{"before the first", "add dst-port=20 place-before=0", "20 10 11 12 13 14", ""},
		{"before the last", "add dst-port=20 place-before=4", "10 11 12 13 20 14", ""},
		{"before one that is found", "add dst-port=20 place-before=[find src-address]", "10 11 12 20 13 14", ""},
		{"before several", "add dst-port=20 place-before=0-1", "", "invalid value for argument place-before; expected one item, not several"},
		{"before none", "add dst-port=20 place-before=5", "", "no such item: 5"},
		{"before none found", "add place-before=[find dst-port=9]", "", "no such item: place-before=[find dst-port=9]"},
		{"copy", "add copy-from=3", "10 11 12 13 14 13", ""},
		{"changed copy", "add copy-from=3 dst-port=20 place-before=0", "20 10 11 12 13 14", ""},
		{"copy of several", "add copy-from=[find comment=x]", "", "invalid value for argument copy-from; expected one item, not several"},
		// Moving.
		{"up", "move 3 1", "10 13 11 12 14", ""},
		{"down", "move 1 3", "10 12 11 13 14", ""},
		{"to the end", "move 1", "10 12 13 14 11", ""},
		{"to itself", "move 1 1", "10 11 12 13 14", ""},
		{"several up", "move 3,2 0", "13 12 10 11 14", ""},
		{"several down", "move 0-1 destination=4", "12 13 10 11 14", ""},
		{"several to the end", "move 0,2", "11 13 14 10 12", ""},
		{"found ones", "move [find comment=x] [find disabled]", "10 13 11 12 14", ""},
		{"to none", "move 1 5", "", "no such item: 5"},
		{"to several", "move 1 2-3", "", "invalid value for argument destination; expected one item, not several"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("test", strings.NewReader(fiveRules))
			require.NoError(t, err)
			session := Session{path: "ip socks access"}
			live := testLive()
			live.Hits = func() ([]uint64, error) { return []uint64{0, 9, 5, 1, 0}, nil }
			result, err := session.Execute(cfg, live, test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, ports(result.Config))
			assert.Equal(t, "10 11 12 13 14", ports(cfg))
			reloaded, err := Load("export", strings.NewReader(Export(result.Config)))
			require.NoError(t, err)
			assert.Equal(t, settings(result.Config), settings(reloaded))
		})
	}
}

func TestChanging(t *testing.T) {
	cfg, err := Load("test", strings.NewReader(fiveRules))
	require.NoError(t, err)
	r := router{cfg: cfg, session: Session{path: "ip socks access"}}
	const screen = `[admin@postern] ip socks access> comment 0,4 "to the lab"
[admin@postern] ip socks access> comment numbers=1 comment=""
[admin@postern] ip socks access> set 2-3 !comment !src-address disabled=y
[admin@postern] ip socks access> enable [find dst-port=14]
[admin@postern] ip socks access> set 0
[admin@postern] ip socks access> print
Flags: X - disabled
 0   ;;; to the lab
     dst-port=10 action=allow
 1   dst-port=11 action=allow
 2 X dst-port=12 action=deny
 3 X dst-port=13 action=allow
 4   ;;; to the lab
     dst-port=14 action=allow
[admin@postern] ip socks access> print terse where disabled
 0 X dst-port=12 action=deny
 1 X dst-port=13 action=allow
[admin@postern] ip socks access> set 0 comment="found by number"
[admin@postern] ip socks access> find comment
0
[admin@postern] ip socks access> print count-only without-paging
5
[admin@postern] ip socks access> print detail where comment~"found"
Flags: X - disabled
 0 X ;;; found by number
     dst-port=12 action=deny
[admin@postern] ip socks access> set 0 !action
property action cannot be unset (line 1 column 7)
[admin@postern] ip socks access> set 0 !foo
expected end of command (line 1 column 7); expected one of src-address, src-port, dst-address, dst-port, action, disabled, comment
[admin@postern] ip socks access> comment 0
[admin@postern] ip socks access> comment 0 a b
expected end of command (line 1 column 13)
[admin@postern] ip socks access> .. set port=1 max-connections=2 connection-idle-timeout=3
[admin@postern] ip socks access> .. reset port connection
[admin@postern] ip socks access> .. print
                    enabled: no
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 2
[admin@postern] ip socks access> .. reset
[admin@postern] ip socks access> .. reset foo
expected end of command (line 1 column 10); expected one of enabled, port, connection-idle-timeout, max-connections, version, auth-method, udp
[admin@postern] ip socks access> ..
[admin@postern] ip socks> export
/ip socks access
add comment="to the lab" dst-port=10
add dst-port=11
add action=deny disabled=yes dst-port=12
add disabled=yes dst-port=13
add comment="to the lab" dst-port=14
`
	want := strings.ReplaceAll(screen, "add action=deny dst-port=12", "add action=deny dst-port=12")
	assert.Equal(t, want, r.replay(t, want))
}

// Numbers refer to the session's last print, whatever another session does.
func TestNumbers(t *testing.T) {
	load := func(t *testing.T) *router {
		cfg, err := Load("test", strings.NewReader(fiveRules+"add dst-port=10\n"))
		require.NoError(t, err)
		return &router{cfg: cfg, session: Session{path: "ip socks access"}}
	}
	type step struct {
		who  int // which session
		line string
		want string // the list, or an error
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"stay when own items go", []step{
			{0, "print", "10 11 12 13 14 10"}, {0, "remove 0", "11 12 13 14 10"}, {0, "remove 0", "no such item: 0"},
			{0, "remove 1", "12 13 14 10"}, {0, "remove 5", "12 13 14"}, {0, "print", "12 13 14"}, {0, "remove 0", "13 14"},
		}},
		{"are given without a print", []step{
			{0, "remove 0", "11 12 13 14 10"}, {0, "remove 0", "no such item: 0"}, {0, "set 1 dst-port=99", "99 12 13 14 10"},
		}},
		{"in one line", []step{
			{0, "remove 0; ..; access print; /ip socks access remove 0", "12 13 14 10"},
		}},
		{"of another session's list", []step{
			{0, "print", "10 11 12 13 14 10"}, {1, "remove 0,2", "11 13 14 10"}, {0, "remove 0", "no such item: 0"},
			{0, "remove 2", "no such item: 2"}, {0, "remove 1-3", "no such item: 2"}, {0, "remove 3", "11 14 10"}, {1, "remove 3", "no such item: 3"},
		}},
		{"follow what is moved and changed", []step{
			{0, "print", "10 11 12 13 14 10"}, {1, "move 5 0", "10 10 11 12 13 14"}, {1, "set 5 dst-port=55", "55 10 11 12 13 14"},
			{0, "set 5 dst-port=56", "56 10 11 12 13 14"}, {0, "remove 1", "56 10 12 13 14"},
		}},
		{"are not of what came since", []step{
			{0, "print", "10 11 12 13 14 10"}, {1, "add dst-port=20", "10 11 12 13 14 10 20"}, {0, "remove 6", "no such item: 6"},
			{0, "add dst-port=21", "10 11 12 13 14 10 20 21"}, {0, "remove 6", "no such item: 6"},
			{1, "remove 0", "11 12 13 14 10 20 21"}, {1, "add dst-port=10 place-before=1", "10 11 12 13 14 10 20 21"}, {0, "remove 0", "no such item: 0"},
		}},
		{"of each menu", []step{
			{0, "print", "10 11 12 13 14 10"}, {0, "remove 0", "11 12 13 14 10"}, {0, "/ip firewall nat print", "11 12 13 14 10"},
			{0, "remove 1", "12 13 14 10"},
		}},
		{"are not changed by a line that fails", []step{
			{0, "print where disabled", "10 11 12 13 14 10"}, {0, "print; foo", "bad command name foo"}, {0, "remove 0", "10 11 12 13 10"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := load(t)
			sessions := []*Session{{path: "ip socks access"}, {path: "ip socks access"}}
			for _, s := range test.steps {
				sessions[s.who].path = "ip socks access"
				result, err := sessions[s.who].Execute(r.cfg, Live{}, s.line)
				if err != nil {
					require.ErrorContains(t, err, s.want, s.line)
					continue
				}
				r.cfg = result.Config
				require.Equal(t, s.want, ports(r.cfg), s.line)
			}
		})
	}
	t.Run("of a change that the system refused", func(t *testing.T) {
		r := load(t)
		_, err := r.run("print")
		require.NoError(t, err)
		for _, line := range []string{"remove 0", "set 0 dst-port=1", "move 0", "add place-before=0"} {
			_, err := r.session.Execute(r.cfg, Live{}, line) // and what it made is dropped
			require.NoError(t, err)
		}
		_, err = r.run("remove 0")
		require.NoError(t, err)
		assert.Equal(t, "11 12 13 14 10", ports(r.cfg))
	})
	t.Run("of a configuration that a program made", func(t *testing.T) {
		cfg := Default()
		cfg.Socks.Access = make([]socks.Rule, 3)
		for i := range cfg.Socks.Access {
			cfg.Socks.Access[i].Action = socks.Allow
		}
		r := router{cfg: cfg, session: Session{path: "ip socks access"}}
		result, err := r.session.Execute(cfg, Live{}, "print")
		require.NoError(t, err)
		assert.False(t, result.Changed)
		result, err = r.session.Execute(cfg, Live{}, "set 1 dst-port=2")
		require.NoError(t, err)
		result, err = r.session.Execute(result.Config, Live{}, "remove 0")
		require.NoError(t, err)
		assert.Equal(t, "2 ", ports(result.Config))
		_, err = r.session.Execute(result.Config, Live{}, "remove 0")
		require.EqualError(t, err, "no such item: 0")
		result, err = r.session.Execute(result.Config, Live{}, "remove 1")
		require.NoError(t, err)
		assert.Equal(t, "", ports(result.Config))
	})
	t.Run("in a file are those of the moment", func(t *testing.T) {
		cfg, err := Load("file", strings.NewReader(fiveRules+"remove 0\nremove 0\nadd dst-port=9 place-before=0\nset 0 comment=y\n"))
		require.NoError(t, err)
		assert.Equal(t, "9 12 13 14", ports(cfg))
		assert.Equal(t, "y", cfg.Socks.Access[0].Comment)
	})
	t.Run("too many for one program", func(t *testing.T) {
		cfg := Default()
		cfg.Firewall.NAT = make([]firewall.Rule, MaxItems+10)
		_, err := new(Session).Execute(cfg, Live{}, "/ip firewall nat print")
		require.NoError(t, err)
	})
}

// Values of an enumeration can be shortened as long as they are unambiguous.
func TestShortenedValues(t *testing.T) {
	for _, test := range []struct{ line, want, err string }{
		{"add chain=input action=d protocol=t", "chain=input action=drop protocol=tcp", ""},
		{"add chain=forward action=rej reject-with=tcp connection-state=!est,n", "chain=forward action=reject connection-state=!established,new reject-with=tcp-reset", ""},
		{"add chain=input reject-with=icmp-host", "", "ambiguous value of reject-with, more than one possible value matches input; " +
			"expected icmp-host-unreachable | icmp-host-prohibited, not \"icmp-host\""},
		{"add chain=input connection-state=new,n", "", "input does not match any value of connection-state; " +
			"expected [!]established | related | new | invalid | untracked, or a list of them, not \"new,n\""},
		{"add chain=f", "", `invalid value for argument chain; expected input | forward | output | name of a chain of your own, not "f": it could be forward`},
	} {
		t.Run(test.line, func(t *testing.T) {
			session := Session{path: "ip firewall filter"}
			result, err := session.Execute(Default(), Live{}, test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			result, err = session.Execute(result.Config, Live{}, "print")
			require.NoError(t, err)
			assert.Equal(t, legendRule+"\n 0   "+test.want+"\n", result.Output)
		})
	}
}
