package console

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// router has a configuration and a session, as the real router does.
type router struct {
	cfg     Config
	live    Live
	session Session
}

// settings is cfg without the IDs of its items.
func settings(cfg Config) Config {
	cfg.ids = Config{}.ids
	return cfg
}

// run executes a line and keeps the changed configuration.
func (r *router) run(line string) (Result, error) {
	result, err := r.session.Execute(r.cfg, r.live, line)
	r.cfg = result.Config
	return result, err
}

// replay types what a screen shows after the prompts, and returns the screen that results.
func (r *router) replay(t *testing.T, screen string) string {
	t.Helper()
	var got strings.Builder
	lines := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		prompt, line, ok := strings.Cut(lines[i], "> ")
		if !ok || !strings.HasPrefix(prompt, "[admin@") {
			continue
		}
		got.WriteString(r.session.Prompt(r.cfg.Identity) + line + "\n")
		for Continues(line) {
			i++
			more, isMore := strings.CutPrefix(lines[i], `\... `)
			require.True(t, isMore, lines[i])
			got.WriteString(`\... ` + more + "\n")
			line += "\n" + more
		}
		result, err := r.run(line)
		if err != nil {
			result.Output += err.Error() + "\n"
		}
		got.WriteString(result.Output)
	}
	return got.String()
}

func connection(src, dst string, tx, rx uint64) socks.Connection {
	return socks.Connection{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Type: socks.Out, Tx: tx, Rx: rx}
}

// testLive is a machine with three ports, the last of which is unplugged.
func testLive() Live {
	return Live{
		WAN: "ether1",
		Links: func() ([]netcfg.LinkState, error) {
			return []netcfg.LinkState{
				{Name: "ether1", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500, MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}, RxBytes: 8123, TxBytes: 177},
				{Name: "ether2", Type: netcfg.Ether, Present: true, Up: true, MTU: 1500, MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x57}},
				{Name: "usb1", Type: netcfg.Ether},
			}, nil
		},
		Counters: func(t firewall.Table) ([]firewall.Counter, error) {
			return map[firewall.Table][]firewall.Counter{
				firewall.Filter: {{Packets: 12, Bytes: 840}, {Packets: 3, Bytes: 180}, {}}, firewall.NAT: {{Packets: 9, Bytes: 9999}},
			}[t], nil
		},
		Log: func() ([]string, error) { return []string{"00:00:01 system,info router booted", "bad \x1b[31m"}, nil },
	}
}

func TestRequests(t *testing.T) {
	for _, test := range []struct {
		line, output string
		want         Request
	}{
		{"/quit", "", Quit},
		{"qui", "", Quit},
		{"/system reboot", "", Reboot},
		{"system shutdown", "", Shutdown},
		{"/system reboot; /ip socks set enabled=yes", "", Reboot},
		{"", "", None},
		{" \t # nothing", "", None},
		{"/ip socks; ;", "", None},
	} {
		t.Run(test.line, func(t *testing.T) {
			r := router{cfg: Default()}
			result, err := r.run(test.line)
			require.NoError(t, err)
			assert.Equal(t, test.want, result.Request)
			assert.Equal(t, test.output, result.Output)
			assert.False(t, result.Changed)
			assert.Equal(t, Default(), result.Config)
		})
	}
}

func TestChanged(t *testing.T) {
	r := router{cfg: Default()}
	for _, test := range []struct {
		line string
		want bool
	}{
		{"/ip socks set enabled=yes", true},
		{"/ip socks set enabled=yes", false},
		{"/ip socks print; set enabled=yes", false},
		{"/ip socks access add action=deny", true},
		{"/ip socks access print", false},
		{"/ip socks access set 0", false},
		{"/ip socks access remove 0", true},
		{"/ip socks access add; print; remove 0", false},
		{"/interface ethernet print", false},
	} {
		if strings.Contains(test.line, ";") { // the second command needs the menu
			path, _, _ := strings.Cut(test.line, " print")
			path, _, _ = strings.Cut(path, " add")
			_, err := r.run(path)
			require.NoError(t, err)
		}
		result, err := r.run(test.line)
		require.NoError(t, err, test.line)
		assert.Equal(t, test.want, result.Changed, test.line)
	}
	assert.Nil(t, r.cfg.Socks.Access)
}

// A line that fails changes neither the configuration nor the menu, and prints only its error.
func TestErrors(t *testing.T) {
	const config = `
/interface ethernet set ether1 mtu=1400
/ip address add address=192.168.0.1/24 interface=ether1
/ip socks access add dst-port=21,80
/ip socks`
	for _, test := range []struct{ line, want string }{
		// Commands and menus.
		{"foo", "bad command name foo (line 1 column 1); expected access, users, connections, set, print, get, reset, export"},
		{"/ip foo", "bad command name foo (line 1 column 5); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export"},
		{"/ip/foo", "bad command name foo (line 1 column 5); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export"},
		{"/ip\t é/foo", "bad command name é (line 1 column 6); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export"},
		{"/ip //", "bad command name  (line 1 column 5); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export"},
		{"/ip /", "bad command name  (line 1 column 5); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export"},
		{"/..", "bad command name .. (line 1 column 2); expected system, interface, routing, ip, queue, log, quit, export"},
		{"/i", "ambiguous command name i (line 1 column 2); expected interface, ip"},
		{"/ip address e", "ambiguous command name e (line 1 column 13); expected enable, export"},
		{"add=1", "expected command name (line 1 column 1)"},
		{`/ip "socks"`, "expected command name (line 1 column 5)"},
		{"/quit now", "expected end of command (line 1 column 7)"},
		{"/quit/now", "expected end of command (line 1 column 6)"},
		{"/quit; quit", ""},
		{"print; foo", "bad command name foo (line 1 column 8); expected access, users, connections, set, print, get, reset, export"},
		{"print\n foo", "bad command name foo (line 2 column 2); expected access, users, connections, set, print, get, reset, export"},
		{"print \\\n  foo", "expected end of command (line 2 column 3); expected one of detail, without-paging, interval="},
		{"set port=1081; set max-connections=0", "value of max-connections out of range (1..500)"},
		{"set port=1081; /ip; foo", "bad command name foo (line 1 column 21); expected address, route, dns, dhcp-client, pool, dhcp-server, settings, service, firewall, socks, export"},

		// Arguments.
		{"set foo=1", "expected end of command (line 1 column 5); expected one of enabled, port, connection-idle-timeout, max-connections, version, auth-method, udp"},
		{"set enabled", "expected end of command (line 1 column 5); expected one of enabled=, port=, connection-idle-timeout=, max-connections=, version=, auth-method=, udp="},
		{"set p=1 port=2", "property port given twice (line 1 column 9)"},
		{"print stats", "expected end of command (line 1 column 7); expected one of detail, without-paging, interval="},
		{"/ip firewall nat print where comment~\"(\"", "invalid value of comment (line 1 column 30); expected a regular expression without {n}: error parsing regexp: missing closing ): `(`"},
		{"/ip firewall nat print where comment~\"(a{900}|b)*\"", "invalid value of comment (line 1 column 30); expected a regular expression without {n}: counted repetition in a{900}"},
		{"/ip firewall nat print where comment~" + strings.Repeat("a", 201), "invalid value of comment (line 1 column 30); expected a regular expression without {n}: it has 201 characters; 200 at most"},
		{"/ip firewall nat print foo", "expected end of command (line 1 column 24); expected one of detail, terse, count-only, stats, without-paging, where, interval=, from="},
		{"/ip socks access set", "missing value(s) of argument(s) numbers"},
		{"/ip socks access remove", "missing value(s) of argument(s) numbers"},
		{"/ip socks access remove 0 0", "expected end of command (line 1 column 27)"},
		{"/ip socks access set 1 action=deny", "no such item: 1"},
		{"/ip socks access set 0,1 action=deny", "no such item: 1"},
		{"/ip socks access remove 0,", "no such item: "},
		{"/ip socks access enable -1", "no such item: -1"},
		{"/ip socks access disable 99999999999999999999", "no such item: 99999999999999999999"},
		{"/ip socks access disable x", "no such item: x"},
		{"/ip address add", "missing value(s) of argument(s) address, interface"},
		{"/ip address add address=10.0.0.1/8", "missing value(s) of argument(s) interface"},
		{"/ip route add", "missing value(s) of argument(s) gateway, which only type=blackhole | unreachable | prohibit does without"},
		{"/ip firewall filter add action=drop", "missing value(s) of argument(s) chain"},
		{"/interface ethernet add name=ether1", "bad command name add (line 1 column 21); expected set, unset, enable, disable, comment, find, get, print, export"},
		{"/interface ethernet remove 0", "bad command name remove (line 1 column 21); expected set, unset, enable, disable, comment, find, get, print, export"},
		{`/interface ethernet set "ether 2" mtu=1500`, "no such item: ether 2"},
		{"/interface ethernet set 1 mtu=1500", "no such item: 1"},

		// Words.
		{"set port=[find]", `syntax error (line 1 column 10); expected a value with such a character to stand in quotes ("...")`},
		{"set port=$x", `Postern runs no scripts (line 1 column 10); expected a value with such a character to stand in quotes ("...")`},
		{`set port=1"`, `syntax error (line 1 column 11); expected a value with such a character to stand in quotes ("...")`},
		{"set port=1\x07", `syntax error (line 1 column 11); expected a value with such a character to stand in quotes ("...")`},
		{`set port="1`, "syntax error (line 1 column 12); expected a closing quote"},
		{"set port=\"1\n\"", "syntax error (line 1 column 12); expected a closing quote"},
		{`set port="1"2`, "syntax error (line 1 column 13); expected a space behind the closing quote"},
		{`set port="$x"`, `Postern runs no scripts (line 1 column 11); expected \$ for a dollar sign`},
		{`set port="\q"`, `syntax error (line 1 column 11); expected an escape: \" \\ \$ \? \_ \a \b \f \n \r \t \v or two hexadecimal digits`},
		{`set port="\4`, `syntax error (line 1 column 11); expected an escape: \" \\ \$ \? \_ \a \b \f \n \r \t \v or two hexadecimal digits`},
		{`set port=1\`, `syntax error (line 1 column 11); expected a value with such a character to stand in quotes ("...")`},
		{strings.Repeat("#", MaxLine+1), "line longer than 4096 bytes (line 1 column 1)"},
	} {
		t.Run(test.line[:min(len(test.line), 60)], func(t *testing.T) {
			load := func() Config {
				cfg, err := Load("test", strings.NewReader(config))
				require.NoError(t, err)
				return cfg
			}
			cfg := load()
			session := Session{path: "ip socks"}
			result, err := session.Execute(cfg, Live{}, test.line)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.want)
			assert.Equal(t, load(), cfg)
			assert.Equal(t, Result{Config: cfg}, result)
			assert.Equal(t, "ip socks", session.path)
		})
	}
}

func TestLiveErrors(t *testing.T) {
	broken := errors.New("broken")
	live := Live{
		Links:       func() ([]netcfg.LinkState, error) { return nil, broken },
		Connections: func() ([]socks.Connection, error) { return nil, broken },
		Counters:    func(firewall.Table) ([]firewall.Counter, error) { return nil, broken },
		Log:         func() ([]string, error) { return nil, broken },
		Resource:    func() (Resource, error) { return Resource{}, broken },
	}
	for _, test := range []struct{ line, want, unavailable string }{
		{"/interface print", "list interfaces: broken", "failure: interfaces unavailable"},
		{"/interface ethernet print", "list interfaces: broken", ""},
		{"/interface ethernet set ether1 mtu=1500", "list interfaces: broken", ""},
		{"/ip socks connections print", "list connections: broken", "failure: connections unavailable"},
		{"/ip firewall filter print stats", "read counters: broken", "failure: counters unavailable"},
		{"/log print", "read log: broken", "failure: log unavailable"},
		{"/system resource print", "read resource: broken", "failure: resource unavailable"},
		{"/ip address print", "", ""},
	} {
		t.Run(test.line, func(t *testing.T) {
			for live, want := range map[*Live]string{&live: test.want, {}: test.unavailable} {
				_, err := new(Session).Execute(Default(), *live, test.line)
				if want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, want)
				}
			}
		})
	}
}

func TestResource(t *testing.T) {
	live := Live{Resource: func() (Resource, error) {
		return Resource{Uptime: 3725*time.Second + 1, FreeMemory: 17 << 19, TotalMemory: 32 << 20, CPULoad: 0.0512,
			CPUCount: 1, Architecture: "mips", Board: "malta", Version: "v1-2-gabc"}, nil
	}}
	result, err := new(Session).Execute(Default(), live, "/system resource print")
	require.NoError(t, err)
	assert.Equal(t, `             uptime: 1h2m5s
            version: 7.16 (stable)
    postern-version: v1-2-gabc
        free-memory: 8.5MiB
       total-memory: 32.0MiB
          cpu-count: 1
           cpu-load: 5.12%
  architecture-name: mips
         board-name: malta
`, result.Output)
}

func TestUnansweredConnection(t *testing.T) {
	live := Live{Connections: func() ([]socks.Connection, error) {
		return []socks.Connection{{Src: netip.MustParseAddrPort("192.168.0.2:1238"), Type: socks.Unknown}}, nil
	}}
	result, err := new(Session).Execute(Default(), live, "/ip socks connections print")
	require.NoError(t, err)
	assert.Equal(t, ` # SRC-ADDRESS                DST-ADDRESS                TX         RX
 0 192.168.0.2:1238                                      0          0
`, result.Output)
}

func TestTooManyItems(t *testing.T) {
	r := router{cfg: Default()}
	for range MaxItems {
		_, err := r.run("/ip socks access add action=deny")
		require.NoError(t, err)
	}
	_, err := r.run("/ip socks access add action=deny")
	require.EqualError(t, err, "failure: no more than 256 items in /ip socks access")
}

func TestCloneSharesNothing(t *testing.T) {
	cfg, err := Load("test", strings.NewReader(`
/interface ethernet set ether1 mtu=1400
/interface bridge add name=b1
/interface vlan add name=v1 interface=b1
/interface bridge port add bridge=b1 interface=ether2
/interface bridge vlan add bridge=b1 vlan-ids=2 tagged=b1 untagged=ether2
/interface list add name=LAN
/interface list member add list=LAN interface=b1
/ip address add address=192.168.0.1/24 interface=ether1
/ip route add gateway=192.168.0.2
/ip dns set servers=9.9.9.9
/ip dns static add name=nas.lan address=10.0.0.5
/ip firewall filter add chain=input protocol=tcp src-port=1 dst-port=2
/ip firewall nat add chain=dstnat action=redirect protocol=tcp to-ports=3
/ip firewall mangle add chain=input protocol=tcp src-port=1
/ip firewall raw add chain=output protocol=tcp src-port=1
/routing table add name=t
/routing rule add table=t
/system logging add action=remote
/ip pool add name=p ranges=10.0.0.1-10.0.0.9
/interface pppoe-client add name=p interface=ether1
/ip dhcp-client add interface=ether1
/ip dhcp-server add name=d interface=ether1
/ip dhcp-server option add name=o code=150 value=0x01
/ip dhcp-server network add address=10.0.0.0/24 gateway=10.0.0.1 dns-server=10.0.0.1 wins-server=10.0.0.1 ntp-server=10.0.0.1 dhcp-option=o
/ip dhcp-server lease add address=10.0.0.2 mac-address=02:00:00:00:00:01 dhcp-option=o
/system ntp client set servers=a.example
/ip firewall address-list add list=a address=10.0.0.1
/ip socks access add src-port=4 dst-port=5
/ip service set ssh address=10.0.0.0/24
/user ssh-keys add key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home" user=admin
/ip socks users add name=alice password-hash=x`))
	require.NoError(t, err)
	cfg = cfg.identified()
	c := cfg.Clone()
	require.Equal(t, cfg, c)
	slices := 0
	var compare func(path string, a, b reflect.Value)
	compare = func(path string, a, b reflect.Value) {
		switch a.Kind() {
		case reflect.Slice:
			if a.Len() > 0 {
				slices++
				assert.NotEqual(t, a.Pointer(), b.Pointer(), "%s is shared", path)
			}
			fallthrough
		case reflect.Array:
			for i := range a.Len() {
				compare(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
			}
		case reflect.Struct:
			for i := range a.NumField() {
				compare(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		}
	}
	compare("Config", reflect.ValueOf(cfg), reflect.ValueOf(c))
	assert.GreaterOrEqual(t, slices, 2*lists+7+6)
	assert.Equal(t, Default(), Default().Clone())
}
