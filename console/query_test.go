package console

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// queryLive is fullLive with the links of linkLive.
func queryLive() Live {
	l := fullLive()
	connections := l.Connections
	l.Connections = func() ([]socks.Connection, error) {
		all, err := connections()
		for i := range all {
			all[i].Number = uint64(i + 1)
		}
		return all, err
	}
	l.Links = linkLive().Links
	l.Resource = func() (Resource, error) {
		return Resource{Uptime: 90*time.Second + 1, FreeMemory: 20_000_000, TotalMemory: 1 << 25, CPULoad: 0.0333, CPUCount: 2, Board: "malta"}, nil
	}
	return l
}

func pairsText(pairs []Pair) string {
	var words []string
	for _, p := range pairs {
		words = append(words, p.Name+"="+p.Value.String())
	}
	return strings.Join(words, " ")
}

// Query has everything that print shows: this test renders the screens from the rows, the
// legend and the columns of flags, and compares them.
func TestQueryIsPrint(t *testing.T) {
	cfg, err := Load("prints", strings.NewReader(printConfig))
	require.NoError(t, err)
	live := queryLive()
	printed := 0
	for _, m := range menus {
		i := slices.IndexFunc(m.commands, func(c command) bool { return c.name == "print" })
		if i < 0 {
			_, err := Query(cfg, live, m.path, nil, nil)
			assert.ErrorIs(t, err, ErrNoSuchCommand, m.path)
			continue
		}
		printed++
		rows, err := Query(cfg, live, "/"+strings.ReplaceAll(m.path, " ", "/"), nil, nil)
		require.NoError(t, err, m.path)
		known, err := Properties(live, m.path)
		require.NoError(t, err)
		ids := map[ID]bool{}
		for _, r := range rows {
			assert.False(t, ids[r.ID], "/%s: %v is there twice", m.path, r.ID)
			ids[r.ID] = true
			for _, p := range r.Pairs {
				assert.True(t, slices.Contains(choiceNames(known), p.Name) || m.flag(p.Name) != 0, "/%s: %s is in no list", m.path, p.Name)
			}
		}
		line, want := "/"+m.path+" print", ""
		switch {
		case m.path == "log":
			want = logOf(rows)
		case m.items == nil && m.rows == nil:
			want = screenOf(m, rows)
		default:
			line += " terse"
			want = terseOf(m, rows)
		}
		result, err := new(Session).Execute(cfg, live, line)
		require.NoError(t, err, line)
		got, _, _ := strings.Cut(result.Output, ";;; warning")
		assert.Equal(t, want, got, line)
	}
	assert.Greater(t, printed, 20)
}

func logOf(rows []Row) string {
	var b strings.Builder
	for _, r := range rows {
		var texts []string
		for _, p := range r.Pairs {
			if text := p.Value.String(); text != "" {
				texts = append(texts, text)
			}
		}
		fmt.Fprintln(&b, Printable(strings.Join(texts, " ")))
	}
	return b.String()
}

func screenOf(m *menu, rows []Row) string {
	var b strings.Builder
	width := 0
	for _, p := range rows[0].Pairs {
		width = max(width, len(p.Name))
	}
	for _, p := range rows[0].Pairs {
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%*s: %s", m.indent+width, p.Name, Printable(p.Value.String())), " "))
	}
	return b.String()
}

func terseOf(m *menu, rows []Row) string {
	var b strings.Builder
	for n, r := range rows {
		set := ""
		for _, column := range m.flags {
			letter := " "
			for _, f := range slices.Backward(m.legendFlags()) {
				if v, _ := r.Get(f.name); v.Bool() && strings.Contains(column, string(f.letter)) {
					letter = string(f.letter)
				}
			}
			set += letter
		}
		line := fmt.Sprintf("%2d ", n)
		if m.flags != nil {
			line += set + " "
		}
		var words []string
		if v, ok := r.Get("comment"); ok {
			words = []string{"comment=" + quote(v.String())}
		}
		for _, p := range r.Pairs {
			if p.Name != "comment" && m.flag(p.Name) == 0 {
				words = append(words, p.Name+"="+quote(p.Value.String()))
			}
		}
		fmt.Fprintln(&b, line+strings.Join(words, " "))
	}
	return b.String()
}

// Query has everything that export writes too, except for what is sensitive.
func TestQueryIsExport(t *testing.T) {
	cfg, err := Load("prints", strings.NewReader(printConfig))
	require.NoError(t, err)
	live := queryLive()
	for _, m := range menus {
		if m.properties == nil || m.isPorts || m.path == "user" { // print shows what ports have, set or not
			continue
		}
		var where []Condition
		if m.flag("dynamic") != 0 {
			where = []Condition{{"dynamic", "=", "no"}}
		}
		rows, err := Query(cfg, live, m.path, where, nil)
		require.NoError(t, err, m.path)
		want := ""
		for _, r := range rows {
			words := []string{"add"}
			if m.items == nil {
				words = []string{"set"}
			}
			if m.single != "" {
				words = append(words, m.single)
			}
			empty := len(words)
			for _, p := range m.properties {
				if v, _ := r.Get(p.name); v.String() != p.def {
					words = append(words, p.name+"="+quote(v.String()))
				}
			}
			if m.items != nil || len(words) > empty {
				want += "/" + m.path + " " + strings.Join(words, " ") + "\n"
			}
		}
		got := ""
		for line := range strings.Lines(exportMenus(menus, &cfg, m.path, terseWord.Name)) {
			if verb := strings.TrimPrefix(line, "/"+m.path+" "); strings.HasPrefix(verb, "add ") || strings.HasPrefix(verb, "set ") {
				got += line
			}
		}
		assert.Equal(t, want, got)
	}
}

func TestQueryTypes(t *testing.T) {
	cfg, err := Load("types", strings.NewReader(printConfig+"/system ntp client set enabled=yes servers=a.example,10.0.0.5\n"))
	require.NoError(t, err)
	value := func(path, name string) Value {
		rows, err := Query(cfg, queryLive(), path, nil, []string{name})
		require.NoError(t, err)
		require.NotEmpty(t, rows, path)
		require.Equal(t, []string{name}, []string{rows[0].Pairs[0].Name})
		return rows[0].Pairs[0].Value
	}
	assert.True(t, value("ip socks", "enabled").Bool())
	assert.EqualValues(t, 1080, value("ip socks", "port").Int())
	assert.Equal(t, 2*time.Minute, value("ip socks", "connection-idle-timeout").Duration())
	assert.Equal(t, netip.MustParsePrefix("10.9.0.2/24"), value("ip address", "address").Prefix())
	assert.Equal(t, netip.MustParseAddr("10.9.0.0"), value("ip address", "network").Addr())
	assert.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, value("ip dns", "servers").List())
	assert.Equal(t, []string{"a.example", "10.0.0.5"}, value("system ntp client", "servers").List())
	assert.Equal(t, -1500*time.Microsecond, value("system ntp client", "system-offset").Duration())
	assert.Equal(t, Value{Type: Enumeration, text: "input"}, value("ip firewall filter", "chain"))
	assert.EqualValues(t, 20_000_000, value("system resource", "free-memory").Int(), "bytes, and not the 19.1MiB that a screen shows")
	assert.Equal(t, "19.1MiB", value("system resource", "free-memory").String())
	assert.EqualValues(t, 3, value("system resource", "cpu-load").Int())
	assert.Equal(t, 90*time.Second+1, value("system resource", "uptime").Duration())
	assert.EqualValues(t, 4625, value("ip socks connections", "rx").Int())
	assert.Equal(t, Boolean, value("interface", "running").Type)
	text := value("system identity", "name")
	assert.Equal(t, Value{text: "MikroTik"}, text)
	assert.False(t, text.Bool())
	assert.Zero(t, text.Int())
	assert.Zero(t, text.Duration())
	assert.Zero(t, text.Addr())
	assert.Zero(t, text.Prefix())
	assert.Equal(t, []string{"MikroTik"}, text.List())
	assert.Nil(t, Value{Type: List}.List())
}

func TestQuery(t *testing.T) {
	cfg, err := Load("query", strings.NewReader(liveConfig))
	require.NoError(t, err)
	live := queryLive()
	live.Hits = func() ([]uint64, error) { return []uint64{7, 12345}, nil }
	for _, test := range []struct {
		name, path string
		where      []Condition
		proplist   []string
		want       string // rows, ended by ";"
		err        string
	}{
		{name: "all", path: "ip socks access",
			want: "*501 src-address=192.168.0.2 dst-port=21 action=allow disabled=no;*502 action=deny comment=nobody else disabled=no;"},
		{name: "proplist, in its order, without what is not set", path: "ip/socks/access", proplist: []string{"action", "dst-port", "later"},
			want: "*501 action=allow dst-port=21;*502 action=deny;"},
		{name: "counted", path: "/ip/socks/access", proplist: []string{"hits"}, want: "*501 hits=7;*502 hits=12345;"},
		{name: "a condition about what is counted", path: "ip socks access", where: []Condition{{"hits", ">", "100"}}, proplist: []string{"comment"},
			want: "*502 comment=nobody else;"},
		{name: "equal, another form", path: "ip address", where: []Condition{{"address", "=", "192.168.0.1/255.255.255.0"}}, proplist: []string{"interface"},
			want: "*101 interface=ether2;"},
		{name: "a flag", path: "ip firewall filter", where: []Condition{{"disabled", "=", "yes"}}, proplist: []string{"chain", "disabled"},
			want: "*303 chain=forward disabled=yes;"},
		{name: "a flag, set", path: "ip firewall filter", where: []Condition{{"invalid", "", ""}}, proplist: []string{"in-interface"}, want: ""},
		{name: "all have to be met", path: "ip firewall filter", where: []Condition{{"chain", "=", "forward"}, {"disabled", "!=", "yes"}},
			proplist: []string{"action"}, want: "*302 action=log;"},
		{name: "an id", path: "ip firewall filter", where: []Condition{{".id", "=", "*303"}}, proplist: []string{"action"}, want: "*303 action=drop;"},
		{name: "another id", path: "ip firewall filter", where: []Condition{{".id", "=", "*9"}}, want: ""},
		{name: "a pattern", path: "ip socks access", where: []Condition{{"comment", "~", "^no"}}, proplist: []string{"action"}, want: "*502 action=deny;"},
		{name: "a menu without items", path: "system identity", want: "*0 name=postern;"},
		{name: "the one item", path: "user", want: "*1 name=admin group=full;"},
		{name: "no such menu", path: "ip sock", err: "no such command prefix: /ip sock"},
		{name: "a menu that the system lacks", path: "ip socks connections x", err: "no such command prefix: /ip socks connections x"},
		{name: "a menu without print", path: "ip", err: "no such command: print of /ip"},
		{name: "no such property", path: "system identity", where: []Condition{{"nam", "=", "x"}}, err: "bad property name nam; expected one of name"},
		{name: "no such test", path: "system identity", where: []Condition{{"name", "==", "x"}}, err: "bad comparison == of name"},
		{name: "a value that is none", path: "ip address", where: []Condition{{"address", "=", "x"}},
			err: `invalid value for argument address; expected IP address/netmask, not "x"`},
		{name: "a pattern that is none", path: "ip address", where: []Condition{{"comment", "~", "("}},
			err: "invalid value of comment; expected a regular expression without {n}: error parsing regexp: missing closing ): `(`"},
		{name: "no order", path: "ip address", where: []Condition{{"comment", "<", "x"}}, err: "invalid value of comment; expected a number, a time, a size or an address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.HasPrefix(test.path, "ip firewall") {
				live.Openings = nil
				live.Links = func() ([]netcfg.LinkState, error) { return nil, errors.New("broken") }
			}
			before := Export(cfg)
			rows, err := Query(cfg, live, test.path, test.where, test.proplist)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Nil(t, rows)
				return
			}
			require.NoError(t, err)
			got := ""
			for _, r := range rows {
				if test.path == "ip address" && r.ID >= firstLive {
					continue
				}
				got += r.ID.String() + " " + pairsText(r.Pairs) + ";"
			}
			assert.Equal(t, test.want, got)
			assert.Equal(t, before, Export(cfg))
		})
	}
	t.Run("counters that nobody tells", func(t *testing.T) {
		_, err := Query(cfg, Live{}, "ip socks access", nil, []string{"hits"})
		require.EqualError(t, err, "failure: counters unavailable")
		_, err = Query(cfg, Live{}, "log", nil, nil)
		require.EqualError(t, err, "failure: log unavailable")
		_, err = Query(cfg, Live{}, "ip arp", nil, nil)
		require.ErrorIs(t, err, ErrNoSuchMenu)
		_, err = Properties(Live{}, "ip arp")
		require.ErrorIs(t, err, ErrNoSuchMenu)
	})
}

// args makes arguments of names and values in turn.
func args(words ...string) []Argument {
	var all []Argument
	for i := 0; i < len(words); i += 2 {
		all = append(all, Argument{words[i], words[i+1]})
	}
	return all
}

func TestDo(t *testing.T) {
	const config = `
/interface bridge add name=b1
/ip address add address=192.168.0.1/24 interface=ether2
/ip socks access add dst-port=10
/ip socks access add dst-port=11
/ip socks access add dst-port=12
`
	base, err := Load("do", strings.NewReader(config))
	require.NoError(t, err)
	live := queryLive()
	const access = "/ip socks access\n"
	for _, test := range []struct {
		name, path, command string
		given               []Argument
		want, err           string // export of the menu
	}{
		{name: "add", path: "ip socks access", command: "add", given: args("dst-port", "13", "action", "deny", "comment", "a \"b\""),
			want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\nadd dst-port=13 action=deny comment=\"a \\\"b\\\"\"\n"},
		{name: "add before", path: "/ip/socks/access", command: "add", given: args("dst-port", "13", "place-before", "*502"),
			want: access + "add dst-port=10\nadd dst-port=13\nadd dst-port=11\nadd dst-port=12\n"},
		{name: "add a copy", path: "ip socks access", command: "add", given: args("copy-from", "*503", "action", "deny"),
			want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\nadd dst-port=12 action=deny\n"},
		{name: "set by id", path: "ip socks access", command: "set", given: args(".id", "*502", "dst-port", "99"),
			want: access + "add dst-port=10\nadd dst-port=99\nadd dst-port=12\n"},
		{name: "set by numbers", path: "ip socks access", command: "set", given: args("numbers", "0-1,*503", "disabled", "yes"),
			want: access + "add dst-port=10 disabled=yes\nadd dst-port=11 disabled=yes\nadd dst-port=12 disabled=yes\n"},
		{name: "set by name", path: "interface bridge", command: "set", given: args("numbers", "b1", "name", "b2"), want: "/interface bridge\nadd name=b2\n"},
		{name: "set of a port, by id", path: "interface ethernet", command: "set", given: args(".id", "*2", "mtu", "1400"),
			want: "/interface ethernet\nset ether2 mtu=1400\n"},
		{name: "set of a port, by the menu of all", path: "interface", command: "set", given: args(".id", "*2", "mtu", "1400", "comment", "x"),
			want: "/interface ethernet\nset ether2 mtu=1400 comment=x\n/interface bridge\nadd name=b1\n"},
		{name: "set of a menu without items", path: "ip socks", command: "set", given: args("enabled", "yes", "port", "1081"),
			want: "/ip socks\nset enabled=yes port=1081\n" + access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\n"},
		{name: "set of the one item", path: "user", command: "set", given: args(".id", "*1", "password", "secret"), want: ""},
		{name: "unset", path: "ip socks access", command: "unset", given: args("numbers", "*502", "value-name", "dst-port"),
			want: access + "add dst-port=10\nadd\nadd dst-port=12\n"},
		{name: "unset by its sign", path: "ip socks access", command: "set", given: args("numbers", "*502", "!dst-port", ""),
			want: access + "add dst-port=10\nadd\nadd dst-port=12\n"},
		{name: "remove", path: "ip socks access", command: "remove", given: args(".id", "*501,*503"), want: access + "add dst-port=11\n"},
		{name: "disable", path: "ip address", command: "disable", given: args("numbers", "0"),
			want: "/ip address\nadd address=192.168.0.1/24 interface=ether2 disabled=yes\n"},
		{name: "enable", path: "ip socks access", command: "enable", given: args(".id", "*501"), want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\n"},
		{name: "comment", path: "ip socks access", command: "comment", given: args(".id", "*503", "comment", "last"),
			want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12 comment=last\n"},
		{name: "move", path: "ip socks access", command: "move", given: args("numbers", "*503", "destination", "*501"),
			want: access + "add dst-port=12\nadd dst-port=10\nadd dst-port=11\n"},
		{name: "move to the end", path: "ip socks access", command: "move", given: args("numbers", "*501"),
			want: access + "add dst-port=11\nadd dst-port=12\nadd dst-port=10\n"},
		{name: "reset", path: "ip socks", command: "reset", given: args("port", ""), want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\n"},

		{name: "no such menu", path: "ip sox", command: "set", err: "no such command prefix: /ip sox"},
		{name: "no such command", path: "ip socks", command: "add", err: "no such command: add of /ip socks"},
		{name: "print shows", path: "ip socks", command: "print", err: "no such command: print of /ip socks"},
		{name: "a shortened command", path: "ip socks", command: "se", err: "no such command: se of /ip socks"},
		{name: "no such property", path: "ip socks", command: "set", given: args("prot", "1"),
			err: "unknown parameter prot; expected one of enabled, port, connection-idle-timeout, max-connections"},
		{name: "a shortened property", path: "ip socks", command: "set", given: args("por", "1"),
			err: "unknown parameter por; expected one of enabled, port, connection-idle-timeout, max-connections"},
		{name: "out of range", path: "ip socks", command: "set", given: args("port", "0"), err: "value of port out of range (1..65535)"},
		{name: "of another type", path: "ip socks", command: "set", given: args("enabled", "maybe"),
			err: `input does not match any value of enabled; expected yes | no, not "maybe"`},
		{name: "twice", path: "ip socks", command: "set", given: args("port", "1", "port", "2"), err: "property port given twice"},
		{name: "twice by two names", path: "ip socks access", command: "remove", given: args("numbers", "0", ".id", "*501"), err: "property numbers given twice"},
		{name: "missing", path: "ip address", command: "add", given: args("address", "10.0.0.1/8"), err: "missing value(s) of argument(s) interface"},
		{name: "without an item", path: "ip socks access", command: "remove", err: "missing value(s) of argument(s) numbers"},
		{name: "no such id", path: "ip socks access", command: "remove", given: args(".id", "*599"), err: "no such item: *599"},
		{name: "no such number", path: "ip socks access", command: "remove", given: args("numbers", "3"), err: "no such item: 3"},
		{name: "an id of another menu", path: "ip socks access", command: "remove", given: args(".id", "*101"), err: "no such item: *101"},
		{name: "no find", path: "ip socks access", command: "remove", given: args("numbers", "[find]"), err: "no such item: [find]"},
		{name: "several for one", path: "ip socks access", command: "move", given: args("numbers", "0", "destination", "1,2"),
			err: "invalid value for argument destination; expected one item, not several"},
		{name: "cannot be unset", path: "ip socks", command: "unset", given: args("value-name", "port"), err: "property port cannot be unset"},
		{name: "no property", path: "ip socks access", command: "unset", given: args("numbers", "0", "value-name", "copy-from"),
			err: "unknown parameter !copy-from; expected one of src-address, src-port, dst-address, dst-port, action, disabled, comment, numbers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := base.Clone()
			result, err := Do(cfg, live, test.path, test.command, test.given...)
			require.Equal(t, base, cfg, "the configuration that was given was changed")
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Equal(t, Result{Config: cfg}, result)
				return
			}
			require.NoError(t, err)
			m := strings.ReplaceAll(strings.TrimPrefix(test.path, "/"), "/", " ")
			assert.Equal(t, test.want, exportMenus(menus, &result.Config, m))
			assert.Equal(t, Export(base) != Export(result.Config), result.Changed)
			assert.Empty(t, result.Output)
			assert.Equal(t, test.command == "add", result.Added != 0)
		})
	}
	t.Run("a password is hashed and not shown", func(t *testing.T) {
		result, err := Do(base, live, "user", "set", args(".id", "admin", "password", "secret")...)
		require.NoError(t, err)
		assert.Equal(t, "$argon2id$xxxxxx", result.Config.AdminPassword)
		_, err = Do(base, live, "user", "set", args(".id", "admin", "password", strings.Repeat("x", 65))...)
		require.EqualError(t, err, "invalid value for argument password; expected printable string: 0..64 bytes")
	})
	t.Run("what the router is asked for", func(t *testing.T) {
		result, err := Do(base, live, "", "ping", args("address", "10.0.0.1", "count", "3")...)
		require.NoError(t, err)
		assert.Equal(t, Ping, result.Request)
		assert.Equal(t, PingArguments{Address: "10.0.0.1", Count: 3, Interval: time.Second, Size: 64}, result.Ping)
		result, err = Do(base, live, "system", "reboot")
		require.NoError(t, err)
		assert.Equal(t, Reboot, result.Request)
		_, err = Do(base, Live{}, "", "ping", args("address", "10.0.0.1")...)
		require.ErrorIs(t, err, ErrNoSuchCommand)
	})
	t.Run("what the system made", func(t *testing.T) {
		rows, err := Query(base, live, "ip address", []Condition{{"dynamic", "", ""}}, nil)
		require.NoError(t, err)
		require.NotEmpty(t, rows)
		_, err = Do(base, live, "ip address", "remove", args(".id", rows[0].ID.String())...)
		require.EqualError(t, err, "failure: can not change dynamic item: "+rows[0].ID.String())
	})
}

// In every menu of items, print shows what Do adds, and Do can remove it.
func TestDoEverywhere(t *testing.T) {
	required := map[string][]Argument{
		"ip address": args("address", "10.3.0.1/24", "interface", "ether1"), "ip route": args("gateway", "192.168.0.9"),
		"ip firewall filter": args("chain", "input"), "ip firewall nat": args("chain", "srcnat"),
		"interface bridge": args("name", "new"), "interface vlan": args("name", "new", "interface", "ether1"),
		"interface bridge port": args("interface", "ether1", "bridge", "b1"), "system logging": args("action", "remote"),
	}
	tried := 0
	for _, m := range menus {
		if m.items == nil || m.isPorts {
			continue
		}
		tried++
		base, err := Load("base", strings.NewReader("/interface bridge add name=b1\n"))
		require.NoError(t, err)
		live := queryLive()
		before, err := Query(base, live, m.path, nil, nil)
		require.NoError(t, err)
		result, err := Do(base, live, m.path, "add", required[m.path]...)
		require.NoError(t, err, m.path)
		rows, err := Query(result.Config, live, m.path, []Condition{{".id", "=", result.Added.String()}}, nil)
		require.NoError(t, err)
		require.Len(t, rows, 1, m.path)
		printed, err := new(Session).Execute(result.Config, live, "/"+m.path+" print terse")
		require.NoError(t, err)
		for _, a := range required[m.path] {
			v, ok := rows[0].Get(a.Name)
			assert.True(t, ok && v.String() == a.Value, "/%s %s", m.path, a.Name)
			assert.Contains(t, printed.Output, a.Name+"="+a.Value)
		}
		removed, err := Do(result.Config, live, m.path, "remove", args(".id", result.Added.String())...)
		require.NoError(t, err)
		assert.True(t, base.Equal(removed.Config), m.path)
		after, err := Query(removed.Config, live, m.path, nil, nil)
		require.NoError(t, err)
		assert.Equal(t, before, after)
	}
	assert.Equal(t, lists-1, tried)
}

func TestIDs(t *testing.T) {
	ids := func(cfg Config, live Live, path, name string) string {
		rows, err := Query(cfg, live, path, nil, []string{name})
		require.NoError(t, err)
		var all []string
		for _, r := range rows {
			all = append(all, r.ID.String()+"="+r.Pairs[0].Value.String())
		}
		return strings.Join(all, " ")
	}
	do := func(cfg Config, path, command string, given ...Argument) Config {
		result, err := Do(cfg, queryLive(), path, command, given...)
		require.NoError(t, err)
		return result.Config
	}
	t.Run("items", func(t *testing.T) {
		cfg, err := Load("ids", strings.NewReader("/ip socks access\nadd dst-port=10\nadd dst-port=11\nadd dst-port=12\n"))
		require.NoError(t, err)
		at := func(cfg Config) string { return ids(cfg, Live{}, "ip socks access", "dst-port") }
		require.Equal(t, "*501=10 *502=11 *503=12", at(cfg))
		moved := do(cfg, "ip socks access", "move", args("numbers", "*503", "destination", "*501")...)
		assert.Equal(t, "*503=12 *501=10 *502=11", at(moved))
		changed := do(moved, "ip socks access", "set", args(".id", "*501", "dst-port", "99")...)
		assert.Equal(t, "*503=12 *501=99 *502=11", at(changed))
		elsewhere := do(changed, "ip route", "add", args("gateway", "10.0.0.1")...)
		removed := do(elsewhere, "ip socks access", "remove", args(".id", "*503")...)
		assert.Equal(t, "*501=99 *502=11", at(removed))
		// A line of text changes the same items.
		result, err := new(Session).Execute(removed, Live{}, "/ip socks access; set *502 dst-port=5; move 1 0; comment 0 x")
		require.NoError(t, err)
		assert.Equal(t, "*502=5 *501=99", at(result.Config))
		// An export that is read back is of another router.
		again, err := Load("export", strings.NewReader(Export(result.Config)))
		require.NoError(t, err)
		assert.Equal(t, "*501=5 *502=99", at(again))
	})
	t.Run("never used twice", func(t *testing.T) {
		seen := map[ID]bool{}
		base := Default()
		for range 3 { // as in Safe Mode, which is undone each time
			cfg := base
			for range 3 {
				result, err := Do(cfg, Live{}, "ip socks access", "add")
				require.NoError(t, err)
				require.False(t, seen[result.Added], "%v", result.Added)
				seen[result.Added] = true
				cfg = result.Config
			}
		}
		assert.Len(t, seen, 9)
	})
	t.Run("links", func(t *testing.T) {
		cfg, err := Load("ids", strings.NewReader("/interface bridge add name=b1\n/interface vlan add name=v1 interface=ether1\n"))
		require.NoError(t, err)
		live := queryLive()
		want := "*1=ether1 *2=ether2 *3=usb1"
		require.Equal(t, want, ids(cfg, live, "interface ethernet", "name"))
		assert.Equal(t, want+" *601=b1 *701=v1", ids(cfg, live, "interface", "name"))
		assert.Equal(t, "*601=b1", ids(cfg, live, "interface bridge", "name"))
		cfg = do(cfg, "interface ethernet", "set", args(".id", "*2", "name", "lan")...)
		cfg = do(cfg, "interface bridge", "set", args("numbers", "b1", "name", "b2")...)
		assert.Equal(t, "*1=ether1 *2=lan *3=usb1 *601=b2 *701=v1", ids(cfg, live, "interface", "name"))
	})
	t.Run("what the system has", func(t *testing.T) {
		live := queryLive()
		neighbors, err := live.Neighbors()
		require.NoError(t, err)
		before := strings.Fields(ids(Default(), live, "ip arp", "address"))
		neighbors = append([]Neighbor{{Address: netip.MustParseAddr("192.168.0.1"), Interface: "ether2"}}, neighbors...)
		neighbors[2].MAC = netcfg.MAC{2, 0, 0, 0, 0, 1} // it is known meanwhile
		live.Neighbors = func() ([]Neighbor, error) { return neighbors, nil }
		after := strings.Fields(ids(Default(), live, "ip arp", "address"))
		assert.Equal(t, before, after[1:])
		assert.Contains(t, ids(Default(), live, "ip socks connections", "src-address"), "*80000001=192.168.0.2:1238")
		live.Log = func() ([]string, error) { return []string{"00:00:01 a,b same", "00:00:01 a,b same"}, nil }
		lines, err := Query(Default(), live, "log", nil, nil)
		require.NoError(t, err)
		assert.NotEqual(t, lines[0].ID, lines[1].ID)
	})
	t.Run("written", func(t *testing.T) {
		for _, id := range []ID{1, 0x1f, 0xffffffff} {
			got, err := ParseID(id.String())
			require.NoError(t, err)
			assert.Equal(t, id, got)
		}
		assert.Equal(t, "*1F", ID(31).String())
		got, err := ParseID("*1f")
		require.NoError(t, err)
		assert.Equal(t, ID(31), got)
		for _, bad := range []string{"", "1F", "*", "*0", "*+1", "*1G", "*100000000", "* 1"} {
			_, err := ParseID(bad)
			assert.Error(t, err, bad)
		}
	})
}

// No command panics. One that fails changes nothing, and what one changes can be exported and
// read back.
func TestDoRandom(t *testing.T) {
	base, err := Load("base", strings.NewReader(fuzzConfig))
	require.NoError(t, err)
	live := queryLive()
	names := []string{".id", "numbers", "value-name", "destination", "place-before", "copy-from", "comment", "nothing", ""}
	values := []string{"", "*101", "*1", "*80000001", "0", "0-1", "*", "yes", "no", "1", "70000", "2m", "10.0.0.1", "10.0.0.0/8", "21,80-90", "ether1", "b1",
		"v1", "!ether2", "tcp", "input", "srcnat", "drop", "masquerade", "allow", "new", "stp", "a b", "dst-port", "name", "remote", "02:00:5e:00:53:01"}
	tests := []string{"=", "!=", "<", "<=", ">", ">=", "~", "", "=="}
	r := rand.New(rand.NewPCG(5, 6))
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	done := 0
	for range 5000 {
		m := menus[r.IntN(len(menus))]
		commands := []string{"unset", "nothing"}
		for _, c := range m.commands {
			commands = append(commands, c.name, c.name)
		}
		known := choiceNames(m.rowProperties())
		var given []Argument
		for range r.IntN(4) {
			a := Argument{pick(slices.Concat(names, known)), pick(values)}
			if r.IntN(8) == 0 {
				a.Name = "!" + a.Name
			}
			given = append(given, a)
		}
		cfg := base.Clone()
		result, err := Do(cfg, live, m.path, pick(commands), given...)
		require.Equal(t, base, cfg, "the configuration that was given was changed")
		if err != nil {
			require.Equal(t, Result{Config: cfg}, result)
			require.NotContains(t, err.Error(), "(line")
		} else {
			done++
			require.Empty(t, result.Output)
		}
		if !ambiguousNames(result.Config) {
			again, err := Load("export", strings.NewReader(Export(result.Config)))
			require.NoError(t, err)
			require.Equal(t, settings(result.Config), settings(again))
		}
		where := []Condition{{pick(slices.Concat(names, known)), pick(tests), pick(values)}}
		rows, err := Query(result.Config, live, m.path, where, known)
		if err != nil {
			require.Nil(t, rows)
			require.NotContains(t, err.Error(), "(line")
		}
	}
	assert.Greater(t, done, 125, "nearly all fail: they test little")
}
