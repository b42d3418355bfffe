package console

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
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
	for _, m := range menus() {
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
		case m.path == "ip socks":
			line += " detail"
			want = screenOf(m, rows)
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
		if m.unnumbered {
			line = ""
		}
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
// TestChangeShares sees that a line leaves the lists that it does not change in one piece of memory: hundreds of rules that did not change
// need not be compared again.
func TestChangeShares(t *testing.T) {
	cfg := Default()
	cfg.Firewall.Filter = []firewall.Rule{{Chain: "input", Action: "drop"}, {Chain: "forward", Action: "drop"}}
	cfg.Firewall.Filter[1].InInterfaceList, cfg.InterfaceLists = "LAN", []InterfaceList{{Name: "LAN"}}
	cfg.AddressLists = []ListedAddress{{List: "some"}}
	rule := func(c Config) *firewall.Rule { return &c.Firewall.Filter[0] }
	for line, shares := range map[string]bool{
		"/system identity set name=other":                             true,
		"/ip firewall nat add chain=srcnat action=masquerade":         true,
		"/ip firewall filter set 0 chain=input":                       true,
		"/ip firewall filter set 1 comment=x":                         false,
		"/ip firewall filter enable 0; /ip firewall filter disable 1": false,
		"/ip firewall filter add chain=input action=accept":           false,
		"/interface list set LAN name=other":                          false, // and the rule by it
		"/ip firewall filter move 1 destination=0":                    false,
		"/ip firewall filter remove 1; /system identity set name=x":   false,
	} {
		s := &Session{}
		before := cfg.Clone()
		result, err := s.Execute(cfg, Live{}, line)
		require.NoError(t, err, line)
		assert.Equal(t, shares, rule(cfg) == rule(result.Config), line)
		assert.Same(t, &cfg.AddressLists[0], &result.Config.AddressLists[0], line)
		assert.True(t, before.Equal(cfg), line)
	}
}

func TestQueryIsExport(t *testing.T) {
	cfg, err := Load("prints", strings.NewReader(printConfig))
	require.NoError(t, err)
	live := queryLive()
	for _, m := range menus() {
		if m.properties == nil || m.isPorts || m.initial != nil { // print shows what ports have, set or not
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
			if m.fixed != nil {
				words = append(words, m.fixed[r.ID-fixedID(0)])
			}
			empty, item := len(words), 0
			if m.fixed != nil {
				item = int(r.ID - fixedID(0))
			}
			for _, p := range m.properties {
				v, _ := r.Get(p.name)
				if p.implied != nil && p.implied(v.String()) {
					continue
				}
				if p.flag && v.String() == "yes" {
					words = append(words, p.name)
				} else if v.String() != p.defaultOf(item) && !(p.flag && m.flag(p.name) != 0 && v.String() == "no") { // a flag, also where it is no property
					words = append(words, p.name+"="+quote(v.String()))
				}
			}
			sortExported(words[empty:])
			if m.items != nil || len(words) > empty {
				want += "/" + m.path + " " + strings.Join(words, " ") + "\n"
			}
		}
		got := ""
		for line := range strings.Lines(exportMenus(menus(), &cfg, m.path, terseWord.Name)) {
			if verb := strings.TrimPrefix(line, "/"+m.path+" "); strings.HasPrefix(verb, "add ") || strings.HasPrefix(verb, "set ") {
				got += line
			}
		}
		assert.Equal(t, want, got)
	}
}

func TestQueryTypes(t *testing.T) {
	cfg, err := Load("types", strings.NewReader(printConfig+"/system ntp client set enabled=yes servers=a.example,10.0.0.5\n/ip dns set servers=192.0.2.1,192.0.2.2\n"))
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
		{name: "users", path: "user", want: placeID(userItems, 0).String() + " name=admin group=full disabled=no;"},
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
