package socks

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/match"
)

// rule makes a rule from the written forms of its matchers.
func rule(t testing.TB, action Action, src, srcPort, dst, dstPort string) Rule {
	t.Helper()
	r := Rule{Action: action}
	var err error
	r.SrcAddress, err = match.ParseAddresses(src)
	require.NoError(t, err)
	r.DstAddress, err = match.ParseAddresses(dst)
	require.NoError(t, err)
	r.SrcPort, err = match.ParsePorts(srcPort)
	require.NoError(t, err)
	r.DstPort, err = match.ParsePorts(dstPort)
	require.NoError(t, err)
	return r
}

func disabled(r Rule) Rule {
	r.Disabled = true
	return r
}

func TestDecide(t *testing.T) {
	manual := []Rule{
		rule(t, Allow, "192.168.0.2", "", "", "21"),
		rule(t, Allow, "", "", "", "1024-65535"),
		rule(t, Deny, "", "", "", ""),
	}
	all := rule(t, Deny, "", "", "", "")
	for _, c := range []struct {
		name     string
		list     []Rule
		src, dst string
		rule     int
		action   Action
	}{
		{"manual: control connection", manual, "192.168.0.2:1238", "10.5.8.8:21", 0, Allow},
		{"manual: passive data", manual, "192.168.0.2:1258", "10.5.8.8:3423", 1, Allow},
		{"manual: the first data port", manual, "192.168.0.2:1258", "10.5.8.8:1024", 1, Allow},
		{"manual: below the data ports", manual, "192.168.0.2:1258", "10.5.8.8:1023", 2, Deny},
		{"manual: control connection of another client", manual, "192.168.0.3:1238", "10.5.8.8:21", 2, Deny},
		{"manual: data of another client", manual, "192.168.0.3:1258", "10.5.8.8:3423", 1, Allow},
		{"manual: web", manual, "192.168.0.2:1300", "10.5.8.8:80", 2, Deny},
		{"no rule", nil, "192.168.0.2:1", "10.5.8.8:21", noRule, Allow},
		{"no rule matches", manual[:1], "192.168.0.3:1", "10.5.8.8:21", noRule, Allow},
		{"disabled", []Rule{disabled(all)}, "192.168.0.2:1", "10.5.8.8:21", noRule, Allow},
		{"disabled counts in the numbers", []Rule{disabled(all), all}, "192.168.0.2:1", "10.5.8.8:21", 1, Deny},
		{"first match decides", []Rule{rule(t, Allow, "", "", "", ""), all}, "192.168.0.2:1", "10.5.8.8:21", 0, Allow},
		{"not this source", []Rule{rule(t, Deny, "!192.168.0.2", "", "", "")}, "192.168.0.3:1", "10.5.8.8:21", 0, Deny},
		{"not this source, it is", []Rule{rule(t, Deny, "!192.168.0.2", "", "", "")}, "192.168.0.2:1", "10.5.8.8:21", noRule, Allow},
		{"destination prefix", []Rule{rule(t, Deny, "", "", "10.0.0.0/8", "")}, "192.168.0.2:1", "10.255.255.255:21", 0, Deny},
		{"destination range", []Rule{rule(t, Deny, "", "", "10.0.0.1-10.0.0.9", "")}, "192.168.0.2:1", "10.0.0.10:21", noRule, Allow},
		{"source port", []Rule{rule(t, Deny, "", "1000-2000", "", "")}, "192.168.0.2:1500", "10.0.0.10:21", 0, Deny},
		{"not these ports", []Rule{rule(t, Deny, "", "", "", "!21,80")}, "192.168.0.2:1500", "10.0.0.10:80", noRule, Allow},
		{"all must match", []Rule{rule(t, Deny, "192.168.0.2", "", "10.0.0.10", "21")}, "192.168.0.2:1500", "10.0.0.10:80", noRule, Allow},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule, action := decide(c.list, netip.MustParseAddrPort(c.src), netip.MustParseAddrPort(c.dst))
			assert.Equal(t, c.rule, rule)
			assert.Equal(t, c.action, action)
		})
	}
}

func TestDeniedAnywhere(t *testing.T) {
	all := rule(t, Deny, "", "", "", "")
	for _, c := range []struct {
		name   string
		list   []Rule
		port   uint16
		rule   int
		denied bool
	}{
		{"no rules", nil, 21, noRule, false},
		{"all is denied", []Rule{all}, 21, 0, true},
		{"disabled", []Rule{disabled(all)}, 21, noRule, false},
		{"this source", []Rule{rule(t, Deny, "192.168.0.2", "", "", "")}, 21, 0, true},
		{"another source", []Rule{rule(t, Deny, "192.168.0.3", "", "", "")}, 21, noRule, false},
		{"another source port", []Rule{rule(t, Deny, "", "9", "", "")}, 21, noRule, false},
		{"this port", []Rule{rule(t, Deny, "", "", "", "21")}, 21, 0, true},
		{"another port", []Rule{rule(t, Deny, "", "", "", "22")}, 21, noRule, false},
		{"a port that is not known", []Rule{rule(t, Deny, "", "", "", "1024-65535")}, 0, noRule, false},
		{"some addresses", []Rule{rule(t, Deny, "", "", "10.0.0.0/8", "")}, 21, noRule, false},
		{"some addresses, and the rest", []Rule{rule(t, Deny, "", "", "10.0.0.0/8", ""), all}, 21, 1, true},
		{"but for some addresses", []Rule{rule(t, Allow, "", "", "10.0.0.0/8", ""), all}, 21, 0, false},
		{"but for another source's", []Rule{rule(t, Allow, "192.168.0.3", "", "10.0.0.0/8", ""), all}, 21, 1, true},
		{"but for another port", []Rule{rule(t, Allow, "", "", "10.0.0.0/8", "80"), all}, 21, 1, true},
		{"but for a port that it may be", []Rule{rule(t, Allow, "", "", "", "1024-65535"), all}, 0, 0, false},
		{"allowed before", []Rule{rule(t, Allow, "", "", "", "21"), all}, 21, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule, denied := deniedAnywhere(c.list, netip.MustParseAddrPort("192.168.0.2:1238"), c.port)
			assert.Equal(t, c.rule, rule)
			assert.Equal(t, c.denied, denied)
		})
	}
}

func identified(r Rule, id uint32) Rule {
	r.ID = id
	return r
}

func TestCarryHits(t *testing.T) {
	a, b := rule(t, Allow, "10.0.0.1", "", "", "21"), rule(t, Deny, "", "", "", "1024-65535")
	deny := a
	deny.Action = Deny
	for _, c := range []struct {
		name string
		list []Rule
		want []uint64
	}{
		{"same", []Rule{a, b}, []uint64{5, 7}},
		{"one put in front", []Rule{rule(t, Deny, "10.9.9.9", "", "", ""), a, b}, []uint64{0, 5, 7}},
		{"moved", []Rule{b, a}, []uint64{7, 5}},
		{"changed", []Rule{deny, b}, []uint64{0, 7}},
		{"twice", []Rule{a, a}, []uint64{5, 0}},
		{"disabled", []Rule{disabled(a)}, []uint64{5}},
		{"none", nil, []uint64{}},
		{"one like it put in front", []Rule{identified(a, 3), identified(a, 1), identified(b, 2)}, []uint64{0, 5, 7}},
		{"another in its place", []Rule{identified(a, 3), identified(b, 2)}, []uint64{0, 7}},
		{"moved, with one like it", []Rule{identified(b, 2), identified(a, 3), identified(a, 1)}, []uint64{7, 0, 5}},
		{"changed, with its ID", []Rule{identified(deny, 1), identified(b, 2)}, []uint64{0, 7}},
		{"disabled, with its ID", []Rule{identified(disabled(a), 1)}, []uint64{5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := []Rule{a, b}
			if len(c.list) > 0 && c.list[0].ID != 0 {
				old = []Rule{identified(a, 1), identified(b, 2)}
			}
			assert.Equal(t, c.want, carryHits(c.list, old, []uint64{5, 7}))
		})
	}
}

// manyUsers returns users with names of that length.
func manyUsers(count, length int, hash string) []User {
	users := make([]User, count)
	for i := range users {
		users[i] = User{Name: fmt.Sprintf("%0*d", length, i), Password: hash}
	}
	return users
}

func TestValidate(t *testing.T) {
	// As long as those of password.New.
	longHash := "$argon2id$v=19$m=2048,t=3,p=1$" + strings.Repeat("A", 22) + "$" + strings.Repeat("A", 43)
	require.Len(t, longHash, 96)
	const hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, c := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"default", func(*Config) {}, ""},
		{"highest", func(c *Config) { c.MaxConnections = 500 }, ""},
		{"port", func(c *Config) { c.Port = 0 }, "port 0 is not in 1..65535"},
		{"no connections", func(c *Config) { c.MaxConnections = 0 }, "max-connections 0 is not in 1..500"},
		{"too many connections", func(c *Config) { c.MaxConnections = 501 }, "max-connections 501 is not in 1..500"},
		{"timeout", func(c *Config) { c.ConnectionIdleTimeout = 0 }, "connection-idle-timeout 0s is not more than 0"},
		{"version", func(c *Config) { c.Version = 6 }, "version 6 is not 4 or 5"},
		{"authentication", func(c *Config) { c.AuthMethod = "gssapi" }, `auth-method "gssapi" is not none or password`},
		{"users", func(c *Config) { c.Users = []User{{Name: "a", Password: hash}, {Name: "b", Password: hash}} }, ""},
		{"too many users", func(c *Config) { c.Users = make([]User, 1001) }, "1001 users are more than 1000"},
		{"user without a name", func(c *Config) { c.Users = []User{{Password: hash}} }, "user 0: a name has 1..255 bytes"},
		{"long name", func(c *Config) { c.Users = []User{{Name: strings.Repeat("a", 256), Password: hash}} }, "user 0: a name has 1..255 bytes"},
		{"name twice", func(c *Config) { c.Users = []User{{Name: "a", Password: hash}, {Name: "a", Password: hash}} }, `user 1: there is another "a"`},
		{"as many users as there can be", func(c *Config) { c.Users = manyUsers(1000, 35, longHash) }, ""},
		{"longer names", func(c *Config) { c.Users = manyUsers(1000, 36, longHash) },
			"user 992: the names and password hashes up to here have more than 131072 bytes together"},
		{"the longest names", func(c *Config) { c.Users = manyUsers(374, 255, longHash) },
			"user 373: the names and password hashes up to here have more than 131072 bytes together"},
		{"slowest user", func(c *Config) { c.Users = []User{{Name: "a", Password: hash, RateLimit: 1000}} }, ""},
		{"fastest user", func(c *Config) { c.Users = []User{{Name: "a", Password: hash, RateLimit: 1e10}} }, ""},
		{"user who is too slow", func(c *Config) { c.Users = []User{{Name: "a", Password: hash, RateLimit: 999}} },
			`user "a": rate-limit 999 is not in 1k..10G`},
		{"user who is too fast", func(c *Config) { c.Users = []User{{Name: "a", Password: hash, RateLimit: 1e10 + 1}} },
			`user "a": rate-limit 10000000001 is not in 1k..10G`},
		{"password not hashed", func(c *Config) { c.Users = []User{{Name: "a", Password: "secret"}} },
			`user "a": invalid value for argument password-hash: another kind of hash; expected $argon2id$v=19$m=2048,t=3,p=1$SALT$KEY`},
		{"action", func(c *Config) { c.Access = []Rule{{Action: "drop"}} }, `access rule 0: action "drop" is not allow or deny`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := DefaultConfig()
			c.change(&cfg)
			if c.err == "" {
				assert.NoError(t, cfg.Validate())
			} else {
				assert.EqualError(t, cfg.Validate(), c.err)
			}
		})
	}
}

// FuzzDecide checks a rule against its opposite in each matcher: a connection
// matches the whole rule if and only if it matches no opposite of a part.
func FuzzDecide(f *testing.F) {
	f.Add("192.168.0.2", "", "10.0.0.0/8", "21", uint32(0xc0a80002), uint16(1238), uint32(0x0a050808), uint16(21))
	f.Add("10.0.0.1-10.0.0.9", "1-5,9", "1.0.0.0/255.0.0.0", "1024-65535", uint32(0x0a000003), uint16(9), uint32(0x01020304), uint16(1024))
	f.Fuzz(func(t *testing.T, srcText, srcPortText, dstText, dstPortText string, srcIP uint32, srcPort uint16, dstIP uint32, dstPort uint16) {
		var r Rule
		var errs [4]error
		r.SrcAddress, errs[0] = match.ParseAddresses(srcText)
		r.SrcPort, errs[1] = match.ParsePorts(srcPortText)
		r.DstAddress, errs[2] = match.ParseAddresses(dstText)
		r.DstPort, errs[3] = match.ParsePorts(dstPortText)
		for _, err := range errs {
			if err != nil {
				return
			}
		}
		r.Action = Deny
		addr := func(u uint32, port uint16) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)}), port)
		}
		src, dst := addr(srcIP, srcPort), addr(dstIP, dstPort)

		opposites := []Rule{}
		if !r.SrcAddress.Any() {
			o := Rule{Action: Deny, SrcAddress: r.SrcAddress}
			o.SrcAddress.Not = !o.SrcAddress.Not
			opposites = append(opposites, o)
		}
		if !r.DstAddress.Any() {
			o := Rule{Action: Deny, DstAddress: r.DstAddress}
			o.DstAddress.Not = !o.DstAddress.Not
			opposites = append(opposites, o)
		}
		if !r.SrcPort.Any() {
			o := Rule{Action: Deny, SrcPort: r.SrcPort}
			o.SrcPort.Not = !o.SrcPort.Not
			opposites = append(opposites, o)
		}
		if !r.DstPort.Any() {
			o := Rule{Action: Deny, DstPort: r.DstPort}
			o.DstPort.Not = !o.DstPort.Not
			opposites = append(opposites, o)
		}
		_, whole := decide([]Rule{r}, src, dst)
		_, parts := decide(opposites, src, dst)
		require.NotEqual(t, whole, parts)
		number, action := decide(append(opposites, r), src, dst)
		require.Equal(t, Deny, action)
		require.Equal(t, whole == Deny, number == len(opposites))
	})
}
