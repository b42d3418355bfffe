package console

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
)

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
			want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\nadd action=deny comment=\"a \\\"b\\\"\" dst-port=13\n"},
		{name: "add before", path: "/ip/socks/access", command: "add", given: args("dst-port", "13", "place-before", "*502"),
			want: access + "add dst-port=10\nadd dst-port=13\nadd dst-port=11\nadd dst-port=12\n"},
		{name: "add a copy", path: "ip socks access", command: "add", given: args("copy-from", "*503", "action", "deny"),
			want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\nadd action=deny dst-port=12\n"},
		{name: "set by id", path: "ip socks access", command: "set", given: args(".id", "*502", "dst-port", "99"),
			want: access + "add dst-port=10\nadd dst-port=99\nadd dst-port=12\n"},
		{name: "set by numbers", path: "ip socks access", command: "set", given: args("numbers", "0-1,*503", "disabled", "yes"),
			want: access + "add disabled=yes dst-port=10\nadd disabled=yes dst-port=11\nadd disabled=yes dst-port=12\n"},
		{name: "set by name", path: "interface bridge", command: "set", given: args("numbers", "b1", "name", "b2"), want: "/interface bridge\nadd name=b2\n"},
		{name: "set of a port, by id", path: "interface ethernet", command: "set", given: args(".id", "*2", "mtu", "1400"),
			want: "/interface ethernet\nset ether2 mtu=1400\n"},
		{name: "set of a port, by the menu of all", path: "interface", command: "set", given: args(".id", "*2", "mtu", "1400", "comment", "x"),
			want: "/interface ethernet\nset ether2 comment=x mtu=1400\n/interface bridge\nadd name=b1\n"},
		{name: "set of a menu without items", path: "ip socks", command: "set", given: args("enabled", "yes", "port", "1081"),
			want: "/ip socks\nset enabled=yes port=1081\n" + access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\n"},
		{name: "set of an item by its name", path: "user", command: "set", given: args(".id", "admin", "comment", "me"), want: "/user\nset admin comment=me\n"},
		{name: "unset", path: "ip socks access", command: "unset", given: args("numbers", "*502", "value-name", "dst-port"),
			want: access + "add dst-port=10\nadd\nadd dst-port=12\n"},
		{name: "unset by its sign", path: "ip socks access", command: "set", given: args("numbers", "*502", "!dst-port", ""),
			want: access + "add dst-port=10\nadd\nadd dst-port=12\n"},
		{name: "remove", path: "ip socks access", command: "remove", given: args(".id", "*501,*503"), want: access + "add dst-port=11\n"},
		{name: "disable", path: "ip address", command: "disable", given: args("numbers", "0"),
			want: "/ip address\nadd address=192.168.0.1/24 disabled=yes interface=ether2\n"},
		{name: "enable", path: "ip socks access", command: "enable", given: args(".id", "*501"), want: access + "add dst-port=10\nadd dst-port=11\nadd dst-port=12\n"},
		{name: "comment", path: "ip socks access", command: "comment", given: args(".id", "*503", "comment", "last"),
			want: access + "add dst-port=10\nadd dst-port=11\nadd comment=last dst-port=12\n"},
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
			err: "unknown parameter prot; expected one of enabled, port, connection-idle-timeout, max-connections, version, auth-method, udp"},
		{name: "a shortened property", path: "ip socks", command: "set", given: args("por", "1"),
			err: "unknown parameter por; expected one of enabled, port, connection-idle-timeout, max-connections, version, auth-method, udp"},
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
		{name: "cannot be unset", path: "ip socks", command: "unset", given: args("value-name", "port"), err: "no such command: unset of /ip socks"},
		{name: "no property", path: "ip socks access", command: "unset", given: args("numbers", "0", "value-name", "copy-from"),
			err: `input does not match any value of value-name; expected src-address | src-port | dst-address | dst-port | comment, not "copy-from"`},
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
			assert.Equal(t, test.want, exportMenus(menus(), &result.Config, m))
			assert.Equal(t, Export(base) != Export(result.Config), result.Changed)
			assert.Empty(t, result.Output)
			assert.Equal(t, test.command == "add", result.Added != 0)
		})
	}
	t.Run("a password is hashed and not shown", func(t *testing.T) {
		result, err := Do(base, live, "user", "set", args(".id", "admin", "password", "secret")...)
		require.NoError(t, err)
		assert.Equal(t, "$argon2id$xxxxxx", result.Config.Users[0].Password)
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
		"ip arp": args("address", "10.3.0.9", "interface", "ether1", "mac-address", "02:00:00:00:00:09"), "ip firewall filter": args("chain", "input"), "ip firewall nat": args("chain", "srcnat"),
		"queue simple":  args("name", "new"),
		"routing table": args("name", "new"), "ip firewall mangle": args("chain", "forward"), "ip firewall raw": args("chain", "output"),
		"interface bridge": args("name", "new"), "interface vlan": args("name", "new", "interface", "ether1"), pppoePath: args("name", "new", "interface", "ether1"),
		"interface bridge port": args("interface", "ether1", "bridge", "b1"), bridgeVLANPath: args("bridge", "b1", "vlan-ids", "10-20"), "system logging": args("action", "remote"),
		"interface list": args("name", "new", "include", "all"), "interface list member": args("list", "static", "interface", "ether1"),
		"user": args("name", "new", "group", "read"), "user group": args("name", "new"),
		"user ssh-keys":  args("user", "admin", "key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home"),
		"ip socks users": args("name", "new", "password", "secret"),
		"ip dhcp-client": args("interface", "ether1"), "system ntp client servers": args("address", "time.example"), "ip firewall address-list": args("list", "new", "address", "10.0.0.0/8"),
		"ip dns static": args("name", "nas.lan", "address", "10.0.0.5"),
		"ip pool":       args("name", "new", "ranges", "10.0.0.1-10.0.0.9"), "ip dhcp-server": args("name", "new", "interface", "ether1"),
		"certificate":            args("name", "new"),
		"ip dhcp-server network": args("address", "10.0.0.0/24"), "ip dhcp-server option": args("name", "new", "code", "150", "value", "0x01"),
	}
	tried := 0
	for _, m := range menus() {
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
			if a.Name == "password" {
				assert.NotContains(t, printed.Output, a.Name)
				continue
			}
			v, ok := rows[0].Get(a.Name)
			assert.True(t, ok && v.String() == a.Value, "/%s %s", m.path, a.Name)
			assert.Contains(t, strings.ReplaceAll(printed.Output, `"`, ""), a.Name+"="+a.Value)
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
		rules := func(cfg Config) (ids []uint32) {
			for _, r := range cfg.AccessRules() {
				ids = append(ids, r.ID)
			}
			return ids
		}
		assert.Equal(t, []uint32{0x501, 0x502, 0x503}, rules(cfg), "of a file")
		assert.Equal(t, []uint32{0x502, 0x501}, rules(result.Config))
		like := do(cfg, "ip socks access", "add", args("dst-port", "10", "place-before", "*501")...)
		require.Len(t, rules(like), 4)
		assert.Equal(t, []uint32{0x501, 0x502, 0x503}, rules(like)[1:])
		assert.NotContains(t, rules(cfg), rules(like)[0])
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
		neighbors[2].MAC = ether.MAC{2, 0, 0, 0, 0, 1} // it is known meanwhile
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
	t.Parallel()
	base, err := Load("base", strings.NewReader(fuzzConfig))
	require.NoError(t, err)
	live := queryLive()
	names := []string{".id", "numbers", "value-name", "destination", "place-before", "copy-from", "comment", "nothing", ""}
	values := []string{"", "*101", "*1", "*80000001", "0", "0-1", "*", "yes", "no", "1", "70000", "2m", "10.0.0.1", "10.0.0.0/8", "21,80-90", "ether1", "b1",
		"v1", "!ether2", "tcp", "input", "srcnat", "drop", "masquerade", "allow", "new", "stp", "a b", "dst-port", "name", "remote", "02:00:5e:00:53:01", "admin", "full"}
	tests := []string{"=", "!=", "<", "<=", ">", ">=", "~", "", "=="}
	r := rand.New(rand.NewPCG(5, 6))
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	done := 0
	for range rounds(6000) {
		m := menus()[r.IntN(len(menus()))]
		commands := []string{"unset", "nothing"}
		for _, c := range m.commands {
			commands = append(commands, c.name)
			if !c.shows { // those that do are refused
				commands = append(commands, c.name)
			}
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
	assert.Greater(t, done, rounds(100), "nearly all fail: they test little")
}
