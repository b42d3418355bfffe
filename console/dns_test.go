package console

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dns"
)

// testCache is a name of the user's, answers, one that there is not, and what an attacker may send.
func testCache() []dns.CacheEntry {
	return []dns.CacheEntry{
		{Name: "nas.lan", Type: 1, Data: "192.168.0.5", TTL: 24 * time.Hour, Static: true},
		{Name: "www.example", Type: 1, Data: "192.0.2.7", TTL: 59*time.Second + 1},
		{Name: "www.example", Type: 28, Data: "2001:db8::7", TTL: time.Hour},
		{Name: "www.example", Type: 65, Data: "1 . alpn=h2", TTL: 5 * time.Minute},
		{Name: "gone.example", Type: 28, TTL: 15 * time.Minute, Negative: true},
		{Name: "bad\x1b[2J.example", Type: 16, Data: "a\nb\x07", TTL: time.Second},
	}
}

func TestDNSCache(t *testing.T) {
	left := 0
	live := fullLive()
	live.DNSCache = func() ([]dns.CacheEntry, int, error) { return testCache(), left, nil }
	run := func(t *testing.T, line string) Result {
		t.Helper()
		result, err := new(Session).Execute(Default(), live, line)
		require.NoError(t, err)
		return result
	}
	const all = `Flags: S - static
 #   NAME                           TYPE  DATA                     TTL
 0 S nas.lan                        A     192.168.0.5              1d
 1   www.example                    A     192.0.2.7                59s
 2   www.example                    AAAA  2001:db8::7              1h
 3   www.example                    HTTPS 1 . alpn=h2              5m
 4   bad\1B[2J.example              TXT   a\nb\07                  1s
`
	for _, test := range []struct{ name, line, want string }{
		{"everything", "/ip dns cache print", all},
		{"where", "/ip dns cache print where type=A and static", "Flags: S - static\n #   NAME                           TYPE  DATA                     TTL\n" +
			" 0 S nas.lan                        A     192.168.0.5              1d\n"},
		{"count", "/ip dns cache print count-only", "5\n"},
		{"count where", "/ip dns cache print count-only where name=www.example", "3\n"},
		{"find", "/ip dns cache find name~\"example\"", "1,2,3,4\n"},
		{"from", "/ip dns cache print terse from=2", " 0   name=www.example type=AAAA data=2001:db8::7 ttl=1h\n"},
		{"with negative ones", "/ip dns cache all print terse where negative", " 0 N name=gone.example type=AAAA ttl=15m\n"},
		{"find a negative one", "/ip dns cache all find negative", "4\n"},
		{"after a flush in the same line", "/ip dns cache; print count-only; flush; print count-only; all print count-only", "5\n1\n1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, run(t, test.line).Output)
		})
	}
	left = 1234
	assert.True(t, strings.HasSuffix(run(t, "/ip dns cache print").Output, "\n;;; 1234 more entries are left out\n"))
	assert.Equal(t, "5\n", run(t, "/ip dns cache print count-only").Output, "programs read a number")

	// Nothing is flushed before the line is done.
	result := run(t, "/ip dns cache flush")
	assert.False(t, result.Changed)
	flushed := 0
	require.NoError(t, result.Action.CarryOut(Live{FlushDNS: func() error { flushed++; return nil }}))
	assert.Equal(t, 1, flushed)
	require.EqualError(t, result.Action.CarryOut(Live{FlushDNS: func() error { return errors.New("it hangs") }}), "flush the DNS cache: it hangs")
	_, err := new(Session).Import(Default(), live, "/ip dns cache flush", nil)
	require.ErrorContains(t, err, "this command does not belong in an import")

	live.DNSCache = func() ([]dns.CacheEntry, int, error) { return nil, 0, nil }
	assert.Equal(t, "0\n", run(t, "/ip dns cache print count-only").Output)
	live.DNSCache = func() ([]dns.CacheEntry, int, error) { return nil, 0, errors.New("it hangs") }
	for _, line := range []string{"print", "find", "all print"} {
		_, err = new(Session).Execute(Default(), live, "/ip dns cache "+line)
		require.EqualError(t, err, "list the DNS cache: it hangs", line)
	}
	_, err = new(Session).Execute(Default(), Live{}, "/ip dns cache print")
	require.Error(t, err, "a system without a DNS server has no such menu")
}

// An entry keeps its ID while its TTL goes down.
func TestDNSCacheIDs(t *testing.T) {
	live := fullLive()
	entries := testCache()
	live.DNSCache = func() ([]dns.CacheEntry, int, error) { return entries, 0, nil }
	before, err := Query(Default(), live, "ip dns cache", nil, nil)
	require.NoError(t, err)
	entries = testCache()[1:]
	entries[0].TTL = time.Second
	after, err := Query(Default(), live, "ip dns cache", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, before[1].ID, after[0].ID)
}

func TestDNSState(t *testing.T) {
	live := fullLive()
	run := func(live Live) string {
		result, err := new(Session).Execute(Default(), live, "/ip dns print")
		require.NoError(t, err)
		return result.Output
	}
	assert.True(t, strings.HasPrefix(run(live), "                      servers:\n              dynamic-servers: 9.9.9.10\n        allow-remote-requests: no\n"))
	assert.True(t, strings.HasSuffix(run(live), "                   cache-size: 2048KiB\n                cache-max-ttl: 1w\n                   cache-used: 27KiB\n"))
	live.CacheUsed = func() (int, error) { return 0, errors.New("it hangs") }
	assert.Contains(t, run(live), "cache-max-ttl: 1w\n", "what is set can be seen all the same")
	assert.NotContains(t, run(live), "cache-used")
	assert.NotContains(t, run(Live{}), "dynamic-servers")
	_, err := new(Session).Execute(Default(), live, "/ip dns set dynamic-servers=1.1.1.1")
	require.Error(t, err)
}

func TestDNSStaticLines(t *testing.T) {
	const regexp = "invalid value for argument regexp; expected regular expression: at most 255 characters, not "
	for _, c := range []struct{ name, line, want string }{
		{"an address", "name=nas.lan address=192.168.0.5", ""},
		{"as RouterOS 7 exports it", "address=192.168.88.1 comment=defconf name=router.lan type=A", ""},
		{"an IPv6 address", "name=nas.lan type=AAAA address=2001:DB8:0::5", ""},
		{"a pattern", `regexp="(^|\\.)ads[0-9]+\\.example\$" type=NXDOMAIN`, ""},
		{"a pattern with an address", `regexp=".*\\.lab\\.lan" address=10.0.0.1`, ""},
		{"a pattern to another server", `regexp="\\.corp\$" type=FWD forward-to=10.0.0.1`, ""},
		{"what is empty anyway", `name=a.lan address=10.0.0.1 mx-exchange="" ns="" srv-target="" regexp=""`, ""},
		{"an unfinished group", `regexp="(ads" address=10.0.0.1`, regexp + "\"(ads\": error parsing regexp: missing closing ): `(ads`"},
		{"a shell's pattern", `regexp="*.example" address=10.0.0.1`, regexp + "\"*.example\": error parsing regexp: missing argument to repetition operator: `*`"},
		{"a pattern that takes memory", `regexp="a{1000}" address=10.0.0.1`, regexp + `"a{1000}": counted repetition in a{1000}`},
		{"a set that takes memory", `regexp="\\pL" address=10.0.0.1`, regexp + "\"\\pL\": error parsing regexp: invalid escape sequence: `\\p`"},
		{"too long", `regexp="` + strings.Repeat("a", 256) + `" address=10.0.0.1`, "it has 256 characters; 255 at most"},
		{"name and pattern", "name=a.lan regexp=b address=10.0.0.1", "/ip dns static 0: expected name or regexp, not both"},
		{"neither", "address=10.0.0.1", "/ip dns static 0: expected name or regexp"},
		{"names below a pattern", "regexp=b match-subdomain=yes address=10.0.0.1", "/ip dns static 0: match-subdomain=yes needs name, not regexp"},
		{"IPv6 as A", "name=a.lan address=2001:db8::5", "/ip dns static 0: address=2001:db8::5: type=A needs an IPv4 address; an IPv6 address needs type=AAAA"},
		{"IPv4 as AAAA", "name=a.lan type=AAAA address=10.0.0.1", "/ip dns static 0: address=10.0.0.1: type=AAAA needs an IPv6 address; an IPv4 address needs type=A"},
		{"IPv4 in disguise", "name=a.lan type=AAAA address=::ffff:10.0.0.1", `invalid value for argument address; expected IP or IPv6 address, not "::ffff:10.0.0.1": this is an IPv4 address`},
		{"a zone", "name=a.lan type=AAAA address=fe80::1%ether1", `not "fe80::1%ether1": an address with a zone is of use on one machine only`},
		{"no address", "name=a.lan type=AAAA", "/ip dns static 0: type=AAAA needs address"},
		{"not an address", "name=a.lan address=1::2::3", `invalid value for argument address; expected IP or IPv6 address, not "1::2::3"`},
		{"an alias of itself", "name=a.lan type=CNAME cname=A.lan", "/ip dns static 0: cname=A.lan: the name would be an alias of itself"},
		{"MX", "name=a.lan type=MX", "/ip dns static 0: type=MX needs mx-exchange"},
		{"NS", "name=a.lan type=NS", "/ip dns static 0: type=NS needs ns"},
		{"SRV", "name=a.lan type=SRV", "/ip dns static 0: type=SRV needs srv-target"},
		{"mail", "name=a.lan type=MX mx-preference=10 mx-exchange=mail.a.lan", ""},
		{"mail without a preference", "name=a.lan type=MX mx-exchange=mail.a.lan mx-preference=0", ""},
		{"name server", "name=b.lan type=NS ns=ns1.b.lan", ""},
		{"service", "name=_sip._udp.lan type=SRV srv-priority=0 srv-weight=5 srv-port=5060 srv-target=pbx.lan", ""},
		{"too high a port", "name=_sip._udp.lan type=SRV srv-port=65536 srv-target=pbx.lan", "value of srv-port out of range (0..65535)"},
		{"an address as a server", "name=a.lan type=NS ns=10.0.0.1", "invalid value for argument ns"},
		{"an abbreviation of two", "name=a.lan type=N", "ambiguous value of type"},
		{"no such type", "name=a.lan type=PTR", `input does not match any value of type; expected A | AAAA | CNAME | FWD | MX | NS | NXDOMAIN | SRV | TXT, not "PTR"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), Live{}, "/ip dns static add "+c.line)
			if err == nil {
				err = Validate(result.Config, []string{"ether1"})
			}
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			again, err := Load("again", strings.NewReader(Export(result.Config)))
			require.NoError(t, err)
			assert.True(t, again.Equal(result.Config), Export(result.Config))
			assert.True(t, strings.HasPrefix(c.name, "a ") == (result.Config.DNSServer.Static[0].Name == ""), "name or pattern")
		})
	}
	result, err := new(Session).Execute(Default(), Live{}, "/ip dns static add name=nas.lan type=AAAA address=2001:DB8:0::5")
	require.NoError(t, err)
	assert.Equal(t, netip.MustParseAddr("2001:db8::5"), result.Config.DNSServer.Static[0].Address)
}

// What a FWD entry names is asked of its own server alone. The router's own server knows that, and its own lookups ask nobody
// else then: those of DNS are asked as soon as one before them is silent.
func TestResolvers(t *testing.T) {
	own, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		name, lines string
		want        []netip.Addr
	}{
		{"no server", "", []netip.Addr{other}},
		{"a server", "/ip dns set allow-remote-requests=yes", []netip.Addr{own, other}},
		{"a name", "/ip dns; set allow-remote-requests=yes; static add name=nas.lan address=10.0.0.2", []netip.Addr{own, other}},
		{"a name of another server", "/ip dns; set allow-remote-requests=yes; static add name=corp type=FWD forward-to=10.0.0.1 match-subdomain=yes", []netip.Addr{own}},
		{"a disabled one", "/ip dns; set allow-remote-requests=yes; static add name=corp type=FWD forward-to=10.0.0.1 disabled=yes", []netip.Addr{own, other}},
		{"no server, and such a name", "/ip dns static add name=corp type=FWD forward-to=10.0.0.1", []netip.Addr{other}},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), fullLive(), "/ip dns set servers=192.0.2.1 allow-remote-requests=no")
			require.NoError(t, err)
			if c.lines != "" {
				result, err = new(Session).Execute(result.Config, fullLive(), c.lines)
				require.NoError(t, err)
			}
			assert.Equal(t, c.want, result.Config.Resolvers())
		})
	}
}

// What says the same twice is refused, as in RouterOS; what a kept configuration has twice can stay.
func TestDNSStaticTwice(t *testing.T) {
	first := "/ip dns static add name=nas.lan address=10.0.0.5"
	config, err := Load("first", strings.NewReader(first))
	require.NoError(t, err)
	for line, refused := range map[string]bool{
		"name=nas.lan address=10.0.0.5":                        true,
		"name=NAS.lan type=A address=10.0.0.5 ttl=1h":          true,
		"name=nas.lan address=10.0.0.5 disabled=yes":           true,
		"name=nas.lan address=10.0.0.6":                        false, // it has two addresses
		"name=nas.lan type=MX mx-exchange=nas.lan":             false,
		"name=nas.lan address=10.0.0.5 match-subdomain=yes":    false,
		"regexp=nas address=10.0.0.5":                          false,
		"name=printer.lan address=10.0.0.5 comment=\"a name\"": false,
	} {
		result, err := new(Session).Execute(config, Live{}, "/ip dns static add "+line)
		require.NoError(t, err)
		err = ValidateChange(config, result.Config, []string{"ether1"})
		if refused {
			require.EqualError(t, err, "/ip dns static 1: failure: already have such entry: type=A of "+result.Config.DNSServer.Static[1].Name, line)
		} else {
			require.NoError(t, err, line)
		}
	}
	twice, err := Load("kept", strings.NewReader(first+"\n"+first))
	require.NoError(t, err)
	require.NoError(t, Validate(twice, []string{"ether1"}))
	result, err := new(Session).Execute(twice, Live{}, "/ip dns static add name=other.lan address=10.0.0.7")
	require.NoError(t, err)
	require.NoError(t, ValidateChange(twice, result.Config, []string{"ether1"}))
}

// A size of a larger router is taken, so that its export can be imported, and what becomes of it is said.
func TestCacheSize(t *testing.T) {
	for value, want := range map[string]string{
		"2048KiB":     "",
		"4096":        "",
		"20480KiB":    "warning: of cache-size=20480KiB in /ip dns 4096KiB are used, as memory is small",
		"67108865KiB": "value of cache-size out of range (64KiB..67108864KiB)",
		"63KiB":       "value of cache-size out of range (64KiB..67108864KiB)",
		"much":        `invalid value for argument cache-size; expected size: 64KiB..67108864KiB, not "much"`,
	} {
		result, err := new(Session).Execute(Default(), Live{}, "/ip dns set cache-size="+value)
		if err != nil {
			require.EqualError(t, err, want)
			continue
		}
		assert.Equal(t, want, TooMuchDNS(result.Config), value)
		if want != "" {
			assert.Contains(t, Export(result.Config), "cache-size="+value)
			shown, err := new(Session).Execute(result.Config, Live{}, "/ip dns print")
			require.NoError(t, err)
			assert.Contains(t, shown.Output, want)
		}
	}
	result, err := new(Session).Execute(Default(), Live{}, "/ip dns set max-concurrent-queries=1000 max-concurrent-tcp-sessions=40")
	require.NoError(t, err)
	assert.Equal(t, "warning: of max-concurrent-queries=1000 in /ip dns 250 are used, as memory is small", TooMuchDNS(result.Config))
}
