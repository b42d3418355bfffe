package console

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
)

func TestLoad(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       string // as Export writes it
		errors     []string
	}{
		{name: "nothing", text: ""},
		{name: "the design's example", text: `
/ip address add address=192.168.0.1/24 interface=ether2
/ip firewall nat add action=masquerade chain=srcnat src-address=192.168.0.0/24
/ip firewall filter add chain=forward action=drop src-address=192.168.0.0/24 dst-port=21 protocol=tcp
/ip socks set enabled=yes
/ip socks access add src-address=192.168.0.2 dst-port=21 action=allow
`, want: `/ip address
add address=192.168.0.1/24 interface=ether2
/ip firewall filter
add action=drop chain=forward dst-port=21 protocol=tcp \
    src-address=192.168.0.0/24
/ip firewall nat
add action=masquerade chain=srcnat src-address=192.168.0.0/24
/ip socks
set enabled=yes
/ip socks access
add dst-port=21 src-address=192.168.0.2
`},
		{name: "as RouterOS wraps its exports", text: "# jan/02/2025 by RouterOS\r\n/ip firewall filter\r\n" +
			"add action=accept chain=input comment=\"defconf: accept established,\\\r\n    related\" connection-state=\\\r\n    established,related\r\n",
			want: `/ip firewall filter
add chain=input comment="defconf: accept established,related" \
    connection-state=established,related
`},
		{name: "no line end at the end", text: "/ip socks set port=1", want: "/ip socks\nset port=1\n"},
		{name: "bad lines are left out", text: `/ip socks access
add action=deny
add action=drop
  add dst-port=1 \
  dst-port=2
add comment="last
add comment=last; print
/quit
/ip socks set max-connections=501 port=9`,
			want: "/ip socks access\nadd action=deny\n",
			errors: []string{
				"cfg:3: input does not match any value of action; expected allow | deny, not \"drop\"",
				"cfg:5: property dst-port given twice (line 5 column 3)",
				"cfg:6: syntax error (line 6 column 18); expected a closing quote",
				"cfg:7: this command does not belong in a configuration",
				"cfg:8: this command does not belong in a configuration",
				"cfg:9: value of max-connections out of range (1..500)",
			}},
		{name: "a command elsewhere below a bad path", text: "/ip socks access\nadd action=deny\n/ip hotspot\n/ip socks set port=9\nadd action=allow\n" +
			"/ip firewall nat; add psd=1\nadd action=allow\n", want: "/ip socks\nset port=9\n/ip socks access\nadd action=deny\n", errors: []string{
			"cfg:3: Postern has no /ip hotspot (line 3 column 5)", "cfg:5: not read: the path before it is bad",
			"cfg:6: Postern has no psd (line 6 column 23)", "cfg:7: not read: the path before it is bad",
		}},
		{name: "a menu of a later version", text: `/ip socks access
add action=deny
/ip hotspot
# a comment

add action=allow
set 0 action=allow
/ip socks set port=9; /ip socks access
/ip hotspot add name=x
add comment=below
/ip socks access
add comment=mine`,
			want: "/ip socks\nset port=9\n/ip socks access\nadd action=deny\nadd comment=mine\n",
			errors: []string{
				"cfg:3: Postern has no /ip hotspot (line 3 column 5)",
				"cfg:6: not read: the path before it is bad",
				"cfg:7: not read: the path before it is bad",
				"cfg:9: Postern has no /ip hotspot (line 9 column 5)",
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("cfg", strings.NewReader(test.text))
			if test.errors == nil {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, strings.Join(test.errors, "\n"))
			}
			if test.name == "a menu of a later version" {
				// The one-line form names its menu, so what follows belongs to the one before.
				require.Equal(t, "below", cfg.Socks.Access[1].Comment)
				cfg.Socks.Access = append(cfg.Socks.Access[:1], cfg.Socks.Access[2:]...)
			}
			assert.Equal(t, test.want, Export(cfg))
		})
	}
}

func TestBadLine(t *testing.T) {
	const text = "/ip firewall filter\n" +
		"add chain=forward \\\n  action=dorp\n" +
		"/ip address add address=1.2.3.4/99\n" +
		"add chain=forward action=drop later=yes\n" +
		"/ip/firewall/calea\n" +
		"add chain=prerouting\n" +
		"/ip\n" +
		"fire filter add foo=bar\n" +
		"soc access add foo=bar\n" +
		"/user set admin pasword-hash=x\n"
	_, err := Load("cfg", strings.NewReader(text))
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	var got []BadLine
	for _, e := range joined.Unwrap() {
		var b *BadLine
		require.ErrorAs(t, e, &b)
		require.Equal(t, fmt.Sprintf("cfg:%d: %v", b.Line, b.Err), b.Error())
		got = append(got, BadLine{Name: b.Name, Line: b.Line, Text: b.Text, Without: b.Without})
	}
	assert.Equal(t, []BadLine{
		{"cfg", 2, "add chain=forward \\\n  action=dorp", CloseRouter, "", nil},
		{"cfg", 4, "/ip address add address=1.2.3.4/99", HoldRest, "", nil},
		{"cfg", 5, "add chain=forward action=drop later=yes", CloseRouter, "", nil},
		{"cfg", 6, "/ip/firewall/calea", CloseRouter, "", nil},
		{"cfg", 7, "add chain=prerouting", CloseRouter, "", nil},
		{"cfg", 9, "fire filter add foo=bar", CloseRouter, "", nil},
		{"cfg", 10, "soc access add foo=bar", DisableSOCKS, "", nil},
		{"cfg", 11, "", DisableLogins | LockUsers, "", nil},
	}, got)
}

// Of a user of group full, whose line has a word of a later version, as much is used as it takes to log in. A line of which it is
// not understood whose it is, or whether it sets a password, locks those who have none.
func TestUserLineOfLaterVersion(t *testing.T) {
	const hash = `password-hash="\$argon2id\$x"`
	for _, test := range []struct {
		name, line string
		want       string // the users with their hashes
		user       string // of the error
		locks      bool
	}{
		{"the only user", "set admin " + hash + " later=x", "admin $argon2id$x", "admin", false},
		{"the only user, without a password", "set admin later=x", "admin ", "admin", false},
		{"a value of a later version", "set admin address=host.example " + hash, "admin $argon2id$x", "admin", false},
		{"with what is known", "set admin address=10.0.0.0/8 comment=a " + hash + " later=x", "admin $argon2id$x", "admin", false},
		{"a flag of a later version", "set admin " + hash + " later", "admin $argon2id$x", "admin", false},
		{"another user of full", "add name=root group=full " + hash + " later=x", "admin , root $argon2id$x", "root", false},
		{"a user of read", "add name=bob group=read " + hash + " later=x", "admin ", "", false},
		{"a disabled user", "add name=bob group=full disabled=yes " + hash + " later=x", "admin ", "", false},
		{"in one line", "/user set admin " + hash + " later=x", "admin $argon2id$x", "admin", false},
		{"a hash of a later version", `set admin password-hash="{new}"`, "admin ", "", true},
		{"another form of the password", "set admin password-hash-2=x", "admin ", "", true},
		{"a damaged line", `set admin password-hash="$x`, "admin ", "", true},
		{"a damaged word", "set admin pasword-hash=x", "admin ", "", true},
		{"a command of a later version", "put admin " + hash, "admin ", "", true},
		{"a user whom there is not", "set nobody " + hash + " later=x", "admin ", "", true},
		{"a line of another menu", "ssh-keys set 0 later=x", "admin ", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("cfg", strings.NewReader("/user\n"+test.line+"\n"))
			var b *BadLine
			require.ErrorAs(t, err, &b)
			assert.Equal(t, test.user, b.User)
			assert.True(t, b.Without.Has(DisableLogins))
			assert.Equal(t, test.locks, b.Without.Has(LockUsers))
			assert.Empty(t, b.Text)
			var users []string
			for _, u := range cfg.Users {
				users = append(users, u.Name+" "+u.Password)
			}
			assert.Equal(t, test.want, strings.Join(users, ", "))
		})
	}
}

// What is left of such a line is a configuration like others, also behind the last line.
func TestUserLineOfLaterVersionLast(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader("/user\nset admin later=x"))
	require.Error(t, err)
	assert.True(t, cfg.Equal(cfg.Clone()))
}

// The consequence of a line that is not understood depends on the menus it may be for.
func TestWithout(t *testing.T) {
	for _, test := range []struct {
		path   string
		want   Without
		secret bool
	}{
		{"ip firewall", CloseRouter, false},
		{"ip firewall filter add a=b", CloseRouter, false},
		{"ip fire nat", CloseRouter, false},
		{"routing rule add action=later", CloseRouter, false}, // perhaps one that keeps packets from another provider
		{"i f", CloseRouter, false},                           // may be meant so
		{"ip socks access", DisableSOCKS, false},
		{"ip s", DisableSOCKS | DisableLogins, false}, // or /ip service
		{"ip service set ssh new=yes", DisableLogins, false},
		{"user ssh-keys add key=x", DisableLogins, true},
		{"ip", HoldRest, false},
		{"", CloseRouter | DisableSOCKS | DisableLogins, false}, // it may be for any menu
		{"ip firewalls", CloseRouter, false},                    // a typing error
		{"ip firewal1 filter add action=drop chain=input", CloseRouter, false},
		{"ip firewlal", CloseRouter, false},
		{"ip fierwall nat", CloseRouter, false},
		{"ip frewall", CloseRouter, false},
		{"ip sokcs access add action=deny", DisableSOCKS, false},
		{"ip servcie set ssh disabled=yes", DisableLogins, false},
		{"interface lst", HoldRest, false}, // too short to tell
		{"ip upnp", HoldRest, false},
		{"ip firewhale", HoldRest, false},
		{"ip address .. firewall filter add action=dorp", anyLine | LockUsers, true},
		{"/ip/address/../firewall/filter add", anyLine | LockUsers, true},
		{"ip address ../service set ssh a=b", anyLine | LockUsers, true},
		{"ip pool add ranges=10.0.0.2..10.0.0.9", HoldRest, false},
		{`system identity set name=".. x"`, HoldRest, false},
		{"interface firewall", HoldRest, false},
		{"system identity set name=ip", HoldRest, false},
		{"user set admin", DisableLogins | LockUsers, true},
		{"user group set read policy=x", DisableLogins, true},
		{"user add name=x group=group", DisableLogins | LockUsers, true},
		{"us", DisableLogins | LockUsers, true},
		{"system identity :if (true) do={ /ip/firewall/filter add }", CloseRouter, false},
		{"system identity; /ip socks; user", DisableSOCKS | DisableLogins, true},
		{"ip socks users add name=alice a=b", DisableSOCKS | DisableLogins, true},
		{`system identity set name="x; /ip firewall"`, HoldRest, false},
		{"system identity set name=x; # not /ip firewall", HoldRest, false},
		{"system identity set name=x ;;; as /ip firewall", HoldRest, false},
		{"system identity # /ip firewall", CloseRouter, false}, // no comment begins there
	} {
		w, secret := without(test.path)
		assert.Equal(t, test.want, w, test.path)
		assert.Equal(t, test.secret, secret, test.path)
	}
}

func TestLoadBounds(t *testing.T) {
	_, err := Load("cfg", strings.NewReader(strings.Repeat("foo\n/\n", 100)))
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, maxErrors+1)
	assert.Equal(t, "cfg:41: more errors, not shown", lines[maxErrors])

	cfg, err := Load("cfg", strings.NewReader("/ip socks set enabled=yes\n"+strings.Repeat("#", MaxText)))
	require.EqualError(t, err, "cfg: longer than 8388608 bytes")
	assert.Equal(t, Default(), cfg)

	cfg, err = Load("cfg", strings.NewReader("/ip socks set enabled=yes\n/ip socks set \\\n"+strings.Repeat("port=1 \\\n", 4000)))
	require.EqualError(t, err, "cfg:2: line longer than 16384 bytes (line 2 column 1)")
	assert.True(t, cfg.Socks.Enabled)

	broken := errors.New("broken")
	_, err = Load("cfg", io.MultiReader(strings.NewReader("/ip"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "read cfg: broken")
}

// randomConfig sets every property of every menu at random.
func randomConfig(t *testing.T, r *rand.Rand) Config {
	addr := func() string {
		return fmt.Sprintf("%d.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256))
	}
	ports := func() string { return fmt.Sprintf("%d,%d-%d", r.IntN(65536), r.IntN(100), 100+r.IntN(65436)) }
	alphabet := []rune("ab 0\"\\$?#;=[]{}()'é漢,.!/")
	candidates := func(p property) []string {
		name := make([]rune, r.IntN(30))
		for i := range name {
			name[i] = alphabet[r.IntN(len(alphabet))]
		}
		return append([]string{
			"", p.def, addr(), "!" + addr(), fmt.Sprintf("%s/%d", addr(), r.IntN(33)), "!10.0.0.0-" + addr(),
			fmt.Sprintf("%s,%s", addr(), addr()), ports(), "!" + ports(), fmt.Sprint(r.IntN(70000)), fmt.Sprint(r.IntN(300)),
			fmt.Sprintf("%d:%d", r.IntN(255), r.IntN(256)), fmt.Sprintf("%dms", r.IntN(700000000)),
			fmt.Sprintf("ether%d", r.IntN(9)), fmt.Sprintf("!ether%d", r.IntN(9)), fmt.Sprintf("bridge%d", r.IntN(9)),
			fmt.Sprintf("%02x:00:5e:00:53:%02x", r.IntN(256), r.IntN(256)), "!established,new", "related", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home", "'text'", fmt.Sprint(1 + r.IntN(254)), "$argon2id$v=19$m=64,t=1$ab/+", string(name),
		}, p.values...)
	}
	cfg := Default()
	for _, m := range menus() {
		if m.isAlias {
			continue
		}
		count := 1
		if m.items != nil {
			count = r.IntN(5)
		}
		if m.initial != nil && m.path == userMenuPath && r.IntN(3) == 0 {
			m.items.remove(&cfg, 0)
		}
		for i := range count {
			if m.items != nil {
				x := execution{menus: menus(), cfg: cfg}
				var err error
				i, err = x.append(m)
				require.NoError(t, err)
				cfg = x.cfg
			}
			if m.isPorts {
				cfg.Links[i] = Port{Link: netcfg.Link{Name: fmt.Sprintf("ether%d", i)}}
			}
			for _, p := range m.properties {
				if m.isPorts && p.name == "name" { // with the others' names as they are: below
					continue
				}
				if m.temporary != nil && p.name == "timeout" { // it would not be exported
					continue
				}
				values := candidates(p)
				for tries := 0; p.required() || tries < 10; tries++ {
					require.Less(t, tries, 10_000, "no candidate suits %s of %s", p.name, m.path)
					if p.set(&cfg, i, values[r.IntN(len(values))]) == nil && (p.waived == nil || p.get(&cfg, i) != "") {
						break
					}
				}
			}
		}
	}
	// In some configurations ports have swapped their names, or have new ones.
	for i := range cfg.Links {
		switch c := &cfg.Links[i]; {
		case len(cfg.Links) < 2:
		case len(cfg.Links) == 2:
			c.Renamed = cfg.Links[1-i].Name
		case len(cfg.Links) == 3:
			c.Renamed = fmt.Sprintf("wan%d", i)
		}
	}
	for i := range cfg.Socks.Users { // the language adds none without a password
		cfg.Socks.Users[i].Password = cmp.Or(cfg.Socks.Users[i].Password, "$argon2id$")
	}
	// The language makes no settings of a port that are all defaults.
	cfg.Links = slices.DeleteFunc(cfg.Links, func(p Port) bool { return p == Port{Link: netcfg.Link{Name: p.Name}} })
	if len(cfg.Links) == 0 {
		cfg.Links = nil
	}
	return cfg
}

func TestExportLoad(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range rounds(300) {
		cfg := randomConfig(t, r)
		text := Export(cfg)
		got, err := Load("export", strings.NewReader(text))
		require.NoError(t, err, text)
		require.Equal(t, settings(cfg), settings(got), text)
		require.Equal(t, text, Export(got))
		for _, words := range [][]string{{"terse"}, {"verbose"}, {"verbose", "terse"}} {
			text := exportMenus(menus(), &cfg, "", append(words, sensitiveWord.Name)...)
			got, err := Load("export", strings.NewReader(text))
			require.NoError(t, err, text)
			require.Equal(t, settings(cfg), settings(got), text)
		}

		// Each menu's export alone says what it has to.
		var parts strings.Builder
		for _, m := range menus() {
			if m.properties != nil && m.path != "ip socks" && m.path != "interface bridge port" && m.path != bridgeVLANPath && m.path != "interface list member" && m.path != "ip dns static" && m.path != "user ssh-keys" && m.path != "user group" && !strings.HasPrefix(m.path, "ip dhcp-server ") { // these are in others
				parts.WriteString(exportMenus(menus(), &cfg, m.path, sensitiveWord.Name))
			}
		}
		got, err = Load("export", strings.NewReader(parts.String()))
		require.NoError(t, err)
		got.Socks.Enabled, got.Socks.Port = cfg.Socks.Enabled, cfg.Socks.Port
		got.Socks.MaxConnections, got.Socks.ConnectionIdleTimeout = cfg.Socks.MaxConnections, cfg.Socks.ConnectionIdleTimeout
		got.Socks.Version, got.Socks.AuthMethod, got.Socks.UDP = cfg.Socks.Version, cfg.Socks.AuthMethod, cfg.Socks.UDP
		require.Equal(t, settings(cfg), settings(got))
	}
}

func TestValidate(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	for _, test := range []struct{ name, text, want string }{
		{"good", `
/interface ethernet set ether1 mtu=1400
/ip address add address=192.168.0.1/24 interface=ether2
/ip route add gateway=192.168.0.254
/ip firewall filter add chain=input action=drop in-interface=!ether2
/ip firewall nat add chain=srcnat action=masquerade out-interface=ether1`, ""},
		{"port", "/interface ethernet set ether9 mtu=1400", "link: name=ether9: expected a port (ether1, ether2)"},
		{"interface of an address", "/ip address add address=192.168.0.1/24 interface=ether9",
			"/ip address 0: input does not match any value of interface: ether9; expected ether1 | ether2"},
		{"interface of a rule", "/ip firewall filter add chain=input\n/ip firewall filter add chain=input in-interface=!ether9",
			"/ip firewall filter 1: input does not match any value of in-interface: !ether9; expected ether1 | ether2"},
		{"firewall", "/ip firewall filter add chain=input dst-port=21",
			"/ip firewall: filter rule 0: dst-port=21: needs protocol=tcp or protocol=udp"},
		{"network", "/ip address add address=127.0.0.1/8 interface=ether1",
			"address: address=127.0.0.1/8: expected a host address, neither unspecified, loopback, multicast nor broadcast"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("test", strings.NewReader(test.text))
			require.NoError(t, err)
			if err = Validate(cfg, ports); test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
			}
		})
	}
}

// Validate checks the values of a configuration that a program has made.
func TestValidateValues(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"/system identity: invalid value for argument name; expected printable string: 1..64 bytes, not \"\"":      func(c *Config) { c.Identity = "" },
		"/ip socks: value of max-connections out of range (1..500)":                                                func(c *Config) { c.Socks.MaxConnections = 501 },
		"/ip route 0: invalid value for argument dst-address; expected IP address/netmask, not \"invalid Prefix\"": func(c *Config) { c.Routes = make([]netcfg.Route, 1) },
		"/ip address: more than 256 items": func(c *Config) { c.Addresses = make([]netcfg.Address, 257) },
	} {
		cfg := Default()
		change(&cfg)
		assert.EqualError(t, Validate(cfg, nil), want)
	}
}

// Even the longest configuration can be read back.
func TestLongestExport(t *testing.T) {
	long := []string{
		strings.Repeat(`"`, 255), strings.Repeat(`"`, 64), strings.Repeat(`"`, 29), "!100.100.100.101-200.200.200.200", "100.100.100.101-200.200.200.200",
		"!10000,10000,10000,10000,10000,10000,10000,10000,10000,10000,10000,10000,10000,10000,10000", "10000-60000",
		"100.100.100.101,100.100.100.101,100.100.100.101", "100.100.100.100/24", "100.100.100.100", "255", "65535",
		"local,telnet,ssh,ftp",
		"52:54:00:12:34:56", "!abcdefghijklmno", "abcdefghijklmno", "!established,related,new,invalid,untracked", "254:255", "254", "32", "'" + strings.Repeat("x", 253) + "'", "ff:ff:ff:ff:ff:ff:ff", "167h59m59s999ms", "yes", "+10:00", "!unicast,local,broadcast,multicast,blackhole,prohibit,unreachable", "10000/1000m,10000:packet", "!65535,32", "greater-than:255", "increment:255", "65535-65535", "65535,65535", "multi-queue-ethernet-default/multi-queue-ethernet-default", "9999999k/9999999k", "8/8", "8.125/8.125", "59m59s/59m59s",
		"!both-addresses-and-ports:65535/65534", "!10000/1000m,10000,addresses-and-dst-port/23h59m59s", "23h59m59s-22h59m59s,sun,mon,tue,wed,thu,fri,sat",
		"http://" + strings.Repeat("x", 63) + ".example/" + strings.Repeat("y", 900),
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 " + strings.Repeat("x", 64), "8", "1492",
	}
	x := execution{menus: menus(), cfg: Default()}
	for _, m := range menus() {
		for m.items != nil && m.items.count(&x.cfg) < m.items.max {
			i, err := x.append(m)
			require.NoError(t, err)
			if m.isPorts {
				x.cfg.Links[i].Name = fmt.Sprintf("%s%06d", "ethernet-", i)
			}
		}
		for _, p := range m.properties {
			best := ""
			values := append(slices.Clone(long), p.values...)
			if m.path == "certificate" {
				values = append(values, longCertificate()...)
			}
			for _, value := range values {
				if p.set(&x.cfg, 0, value) == nil && len(p.get(&x.cfg, 0)) > len(best) {
					best = p.get(&x.cfg, 0)
				}
			}
			if p.hashed != nil { // only its hash is kept
				continue
			}
			require.NotEmpty(t, best, p.name)
			require.NoError(t, p.set(&x.cfg, 0, best))
			for i := 1; m.items != nil && i < m.items.max; i++ {
				require.NoError(t, p.set(&x.cfg, i, best))
			}
		}
	}
	text := Export(x.cfg)
	assert.Less(t, len(text), MaxText)
	assert.Greater(t, len(text), MaxText/4)
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", ""), "\n") {
		longest := MaxLine
		if strings.Contains(line, " certificate=") && strings.Contains(line, " key=") {
			longest = maxFileLine
		}
		require.Less(t, len(line), longest)
	}
}

// The kernel is told the number of a protocol, whatever name RouterOS has for it.
func TestProtocolOfRule(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader("/ip firewall filter\nadd chain=input protocol=ipsec-esp\nadd chain=input protocol=!gre\nadd chain=input protocol=6\n"))
	require.NoError(t, err)
	require.NoError(t, Validate(cfg, nil))
	var protocols []string
	for _, r := range cfg.Firewall.Filter {
		protocols = append(protocols, r.Protocol)
	}
	assert.Equal(t, []string{"50", "!47", "tcp"}, protocols)
}

// RouterOS exports what people wrote in the code page of their computers. It comes back byte for byte, and screens show it as escapes.
func TestCodePage(t *testing.T) {
	data, err := os.ReadFile("testdata/exports/codepage6.rsc")
	require.NoError(t, err)
	live := portsLive(strings.Fields("ether1 ether2 ether3 ether4 ether5"))
	result, err := new(Session).Import(Default(), live, string(data), nil)
	require.NoError(t, err)
	cfg := result.Config
	assert.Equal(t, "K\xfcche\r\nzweite Zeile", cfg.AddressLists[0].Comment)
	kept, err := Load("kept", strings.NewReader(Export(cfg)))
	require.NoError(t, err)
	assert.True(t, cfg.Equal(kept))
	exported := strings.ReplaceAll(Export(kept), " \\\n    ", " ")
	for _, text := range []string{`comment="T\FCr nach drau\DFen"`, `comment="\CB\EE\EA\E0\EB\FC\ED\E0\FF \F1\E5\F2\FC"`, `list="G\E4ste"`, `comment="K\FCche\r\nzweite Zeile"`, `name="\CF\E5\F2\FF"`, `comment="\C2\85\C2\AD"`} {
		assert.Contains(t, exported, text)
	}
	for _, test := range []struct{ line, shows string }{
		{"/interface list print", `;;; T\FCr nach drau\DFen`}, {"/ip dhcp-client print", `;;; Gr\E4fin \80 5,\85`}, {"/ip firewall filter print", `chain="G\E4ste"`},
		{"/ip firewall address-list print", `;;; K\FCche\r\nzweite Zeile`}, {"/queue simple print", `name="\CF\E5\F2\FF"`}, {`/ip firewall filter print where comment="\E0\E2\EE"`, `;;; \E0\E2\EE`},
		{`/ip firewall filter get [find chain="G\E4ste"] comment`, `\C2\85\C2\AD`},
	} {
		result, err := new(Session).Execute(cfg, live, test.line)
		require.NoError(t, err, test.line)
		assert.Contains(t, result.Output, test.shows, test.line)
		assert.Equal(t, strings.ReplaceAll(Printable(strings.ReplaceAll(result.Output, "\n", "|")), "|", "\n"), result.Output)
	}
	live.Requests = append(live.Requests, Edit)
	for _, line := range []string{`/ip firewall filter edit [find chain="G\E4ste"] comment`, "/ip firewall address-list edit [find !dynamic] comment"} {
		_, err := new(Session).Execute(cfg, live, line)
		assert.EqualError(t, err, "failure: comment has characters that no terminal shows; set changes it")
	}
	insert, choices := new(Session).Complete(cfg, live, "/ip firewall filter add chain=input jump-target=")
	assert.Empty(t, insert)
	assert.Empty(t, choices)
}

// A menu that keeps nothing exports nothing, and the comment before every export.
func TestExportOfNothing(t *testing.T) {
	live := fullLive()
	live.Resource = func() (Resource, error) { return Resource{Version: "v1.2", Board: "malta"}, nil }
	header := (&Session{}).execution(Default(), live).exportHeader()
	require.NotEmpty(t, header)
	for _, path := range []string{"file", "log", "ip neighbor", "ip socks connections", "system history", "tool"} {
		result, err := new(Session).Execute(Default(), live, "/"+path+" export")
		require.NoError(t, err, path)
		assert.Equal(t, header, result.Output, path)
	}
}
