package console

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/socks"
)

// Version 5 is shown where it is in use; the manual's screens, which are of version 4, stay as
// they are (TestManualScreens).
func TestSocksVersionScreens(t *testing.T) {
	for _, test := range []struct{ name, config, screen string }{
		{name: "version 5", screen: `[admin@postern] > ip socks set auth-method=password version=5
[admin@postern] > ip socks print
                    enabled: no
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 5
                auth-method: password
                        udp: no
[admin@postern] > ip socks export
/ip socks
set auth-method=password version=5
[admin@postern] > ip socks reset version auth-method
[admin@postern] > ip socks print
                    enabled: no
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
[admin@postern] > ip socks print detail
                    enabled: no
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 4
                auth-method: none
                        udp: no
[admin@postern] > ip socks set udp=y
[admin@postern] > ip socks export
/ip socks
set udp=yes
[admin@postern] > ip socks print
                    enabled: no
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 4
                auth-method: none
                        udp: yes
[admin@postern] > ip socks set version=6
input does not match any value of version; expected 4 | 5, not "6"
[admin@postern] > ip socks set version=""
input does not match any value of version; expected 4 | 5, not ""
[admin@postern] > ip socks set auth-method=gssapi
input does not match any value of auth-method; expected none | password, not "gssapi"
[admin@postern] > ip socks set auth-method=p version=5; export
/ip socks
set auth-method=password udp=yes version=5
`},
		{name: "warnings", screen: `[admin@postern] > ip socks set enabled=yes auth-method=password
[admin@postern] > ip socks print
                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 4
                auth-method: password
                        udp: no
;;; warning: auth-method=password has no effect with version=4, which has no passwords
;;; warning: anyone who reaches ether1 can use this server: no filter rule of chain=input drops dst-port=1080 from there, and the access list does not end with action=deny
[admin@postern] > ip socks set version=5
[admin@postern] > ip socks print
                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 5
                auth-method: password
                        udp: no
;;; warning: nobody can use this server: auth-method=password, and /ip socks users has no user that is enabled
[admin@postern] > ip socks users add name=alice password=secret disabled=yes
[admin@postern] > ip socks print
                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 5
                auth-method: password
                        udp: no
;;; warning: nobody can use this server: auth-method=password, and /ip socks users has no user that is enabled
[admin@postern] > ip socks users enable alice
[admin@postern] > ip socks print
                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 5
                auth-method: password
                        udp: no
[admin@postern] > ip socks set auth-method=none
[admin@postern] > ip socks print
                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
                    version: 5
                auth-method: none
                        udp: no
;;; warning: anyone who reaches ether1 can use this server: no filter rule of chain=input drops dst-port=1080 from there, and the access list does not end with action=deny
`},
		{name: "users", screen: `[admin@postern] > ip socks users
[admin@postern] ip socks users> add name=alice password=secret
[admin@postern] ip socks users> print
Flags: X - disabled
 #   NAME                     ONLY-ONE
 0   alice                    no
[admin@postern] ip socks users> add name=bob password="s3 cret" only-one=yes rate-limit=512000 comment="third floor"
[admin@postern] ip socks users> print
Flags: X - disabled
 #   NAME                     ONLY-ONE RATE-LIMIT
 0   alice                    no
 1   ;;; third floor
     bob                      yes      512k
[admin@postern] ip socks users> find rate-limit>=512k
1
[admin@postern] ip socks users> find rate-limit<1M
1
[admin@postern] ip socks users> disable alice
[admin@postern] ip socks users> print detail where disabled
Flags: X - disabled
 0 X name=alice only-one=no
[admin@postern] ip socks users> export
/ip socks users
add disabled=yes name=alice
add comment="third floor" name=bob only-one=yes rate-limit=512k
[admin@postern] ip socks users> export show-sensitive
/ip socks users
add disabled=yes name=alice password-hash="\$argon2id\$xxxxxx"
add comment="third floor" name=bob only-one=yes \
    password-hash="\$argon2id\$xxxxxxx" rate-limit=512k
[admin@postern] ip socks users> set bob password=another name=robert !rate-limit
[admin@postern] ip socks users> add copy-from=robert name=carol disabled=no
[admin@postern] ip socks users> export show-sensitive terse
/ip socks users add disabled=yes name=alice password-hash="\$argon2id\$xxxxxx"
/ip socks users add comment="third floor" name=robert only-one=yes password-hash="\$argon2id\$xxxxxxx"
/ip socks users add comment="third floor" name=carol only-one=yes password-hash="\$argon2id\$xxxxxxx"
[admin@postern] ip socks users> remove [find comment]
[admin@postern] ip socks users> set alice password=""
invalid value for argument password; expected printable string: 1..255 bytes
[admin@postern] ip socks users> set alice !password
property password cannot be unset (line 1 column 11)
[admin@postern] ip socks users> add name=dave
missing value(s) of argument(s) password
[admin@postern] ip socks users> add password=x
missing value(s) of argument(s) name
[admin@postern] ip socks users> add name="" password=x
invalid value for argument name; expected printable string: 1..255 bytes, not ""
[admin@postern] ip socks users> set nobody disabled=yes
no such item: nobody
[admin@postern] ip socks users> print where password=secret
bad property name password (line 1 column 13); expected one of name, only-one, rate-limit, disabled, comment
[admin@postern] ip socks users> set alice rate-limit=999
value of rate-limit out of range (1k..10G)
[admin@postern] ip socks users> set alice rate-limit=10m
invalid value for argument rate-limit; expected bits per second: 1k..10G, k, M and G being 1000, 1000000 and 1000000000, not "10m"
[admin@postern] ip socks users> set alice rate-limit=0; set alice only=y
[admin@postern] ip socks users> export
/ip socks users
add disabled=yes name=alice only-one=yes
`},
		{name: "connections", config: "/ip socks set auth-method=password version=5", screen: `[admin@postern] > ip socks connections print
 # SRC-ADDRESS                DST-ADDRESS                TX         RX         USER
 0 192.168.0.2:1238           10.5.8.8:21                1163       4625       a user
 1 192.168.0.3:1                                         0          0
[admin@postern] > ip socks connections print detail
 0 src-address=192.168.0.2:1238 dst-address=10.5.8.8:21 type=out tx=1163 rx=4625 age=1m5s idle=1s user="a user"
 1 src-address=192.168.0.3:1 type=unknown tx=0 rx=0 age=0s idle=0s
[admin@postern] > ip socks connections print count-only where user="a user"
1
`},
		{name: "connections of users that nobody has checked", config: "/ip socks set version=5", screen: `[admin@postern] > ip socks connections print
 # SRC-ADDRESS                DST-ADDRESS                TX         RX
 0 192.168.0.2:1238           10.5.8.8:21                1163       4625
 1 192.168.0.3:1                                         0          0
[admin@postern] > ip socks connections print detail where user-id
 0 src-address=192.168.0.2:1238 dst-address=10.5.8.8:21 type=out tx=1163 rx=4625 age=1m5s idle=1s user-id="a user"
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkScreen(t, test.config, fullLive(), 0, test.screen)
		})
	}
}

// Exports of RouterOS 6, which has no version 5, and 7, and Postern's own.
func TestImportSocks(t *testing.T) {
	for _, test := range []struct{ name, text, export, err string }{
		{name: "RouterOS 6", text: "/ip socks\nset enabled=yes port=4145\n", export: "/ip socks\nset enabled=yes port=4145\n"},
		{name: "RouterOS 7, verbose",
			text: "/ip socks\nset auth-method=none connection-idle-timeout=2m enabled=no max-connections=200 port=1080 version=4 vrf=main\n"},
		{name: "RouterOS 7 with users",
			text: "/ip socks\nset auth-method=password enabled=yes version=5\n/ip socks users\nadd name=alice password=s3cret\n" +
				"add comment=guests name=bob only-one=yes password=\"a b\" rate-limit=10M\n",
			export: "/ip socks\nset auth-method=password enabled=yes version=5\n/ip socks users\nadd name=alice password-hash=\"\\$argon2id\\$xxxxxx\"\n" +
				"add comment=guests name=bob only-one=yes password-hash=\"\\$argon2id\\$xxx\" \\\n    rate-limit=10M\n"},
		{name: "passwords, and nobody has one", text: "/ip socks set auth-method=password version=5\n",
			export: "/ip socks\nset auth-method=password version=5\n"},
		{name: "without what is sensitive", text: "/ip socks users\nadd name=alice\n", err: "missing value(s) of argument(s) password (line 2)"},
		{name: "a password that is none", text: "/ip socks users\nadd name=alice password=\"\\1B\"\n",
			err: "invalid value for argument password; expected printable string: 1..255 bytes (line 2)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Import(Default(), fullLive(), test.text, nil)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.export, Export(result.Config))
			again, err := new(Session).Import(result.Config, fullLive(), Export(result.Config), nil)
			require.NoError(t, err)
			assert.False(t, again.Changed, "where it came from")
		})
	}
}

// What a user is called, and what for, is checked with the rest of the configuration.
func TestValidateUsers(t *testing.T) {
	const hash = `"\$argon2id\$v=19\$m=256,t=2,p=1\$c29tZXNhbHQ\$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"`
	for text, want := range map[string]string{
		"add name=alice password-hash=" + hash: "",
		"add name=alice password-hash=" + hash + "\nadd name=alice password-hash=" + hash + " disabled=yes": `/ip socks: user 1: there is another "alice"`,
		"add name=alice password-hash=x": `/ip socks: user "alice": invalid value for argument password-hash: another kind of hash; ` +
			"expected $argon2id$v=19$m=2048,t=3,p=1$SALT$KEY",
	} {
		cfg, err := Load("test", strings.NewReader("/ip socks users\n"+text))
		require.NoError(t, err)
		if err := Validate(cfg, nil); want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}

// A line about a user that was not understood is not shown, as it may have the password, and
// SOCKS stays off.
func TestBadUserLine(t *testing.T) {
	for _, text := range []string{"/ip socks users add name=alice pasword=secret", "/ip so us add name=alice password=secret later=yes"} {
		_, err := Load("test", strings.NewReader(text))
		var bad *BadLine
		require.ErrorAs(t, err, &bad)
		assert.Empty(t, bad.Text)
		assert.True(t, bad.Without.Has(DisableSOCKS))
		assert.NotContains(t, err.Error(), "secret")
	}
}

func TestBitRate(t *testing.T) {
	k := bitRate()
	for _, test := range []struct {
		text string
		want uint64
		back string
	}{
		{"", 0, ""}, {"0", 0, ""}, {"1000", 1000, "1k"}, {"1k", 1000, "1k"}, {"1500", 1500, "1500"}, {"1500k", 1_500_000, "1500k"},
		{"10M", 10_000_000, "10M"}, {"2000M", 2_000_000_000, "2G"}, {"10G", 10_000_000_000, "10G"}, {"10000000000", 10_000_000_000, "10G"},
	} {
		var got uint64
		if test.text != "" {
			var err error
			got, err = k.parse(test.text)
			require.NoError(t, err, test.text)
		}
		assert.Equal(t, test.want, got, test.text)
		assert.Equal(t, test.back, k.format(got))
		assert.EqualValues(t, test.want, valueOf(Integer, k.format(got)).Int())
	}
	for _, bad := range []string{"999", "11G", "18446744073709551617", "99999999999999999G", "10m", "1K", "1.5M", "-1", "M", "k", " 1k", "1kk", "1k/1k", "x"} {
		_, err := k.parse(bad)
		assert.Error(t, err, bad)
	}
}

// There can be as many users as package socks allows, and no number or ID of one is that of
// another item.
func TestManyUsers(t *testing.T) {
	var text strings.Builder
	text.WriteString("/ip socks users\n")
	for i := range socks.MaxUsers {
		fmt.Fprintf(&text, "add name=user%d password-hash=x\n", i)
	}
	cfg, err := Load("test", strings.NewReader(text.String()))
	require.NoError(t, err)
	r := router{cfg: cfg, live: fullLive(), session: Session{path: "ip socks users"}}
	_, err = r.run("add name=more password=x")
	require.EqualError(t, err, "failure: no more than 1000 items in /ip socks users")
	_, err = r.run("set user999 comment=last; set 998 comment=before; remove user0; add name=more password=x")
	require.NoError(t, err)
	assert.Equal(t, "last", r.cfg.Socks.Users[998].Comment)
	assert.Equal(t, "before", r.cfg.Socks.Users[997].Comment)
	assert.Equal(t, "more", r.cfg.Socks.Users[999].Name)
	_, err = r.run("/ip socks access add action=deny")
	require.NoError(t, err)
	seen := map[ID]bool{}
	for _, ids := range r.cfg.ids {
		for _, id := range ids {
			assert.False(t, seen[id], "%s is there twice", id)
			seen[id] = true
		}
	}
	assert.Len(t, seen, 1001+len(Default().Users)+len(Default().Groups))
	cfg.Socks.Users = append(cfg.Socks.Users, socks.User{})
	require.EqualError(t, Validate(cfg, nil), "/ip socks users: more than 1000 items")

	// On a router that has them already, an import adds none.
	result, err := new(Session).Import(r.cfg, fullLive(), Export(r.cfg), nil)
	require.NoError(t, err)
	assert.False(t, result.Changed)
}

func BenchmarkManyUsers(b *testing.B) {
	cfg := Default()
	for i := range socks.MaxUsers {
		cfg.Socks.Users = append(cfg.Socks.Users, socks.User{Name: fmt.Sprintf("user%d", i),
			Password: "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"})
	}
	b.Run("change", func(b *testing.B) {
		for b.Loop() {
			result, err := new(Session).Execute(cfg, fullLive(), "/ip socks users set user500 disabled=yes")
			require.NoError(b, err)
			require.NoError(b, Validate(result.Config, nil))
		}
	})
	b.Run("export", func(b *testing.B) {
		for b.Loop() {
			Export(cfg)
		}
	})
	b.Run("import", func(b *testing.B) {
		text := Export(cfg)
		for b.Loop() {
			_, err := new(Session).Import(cfg, fullLive(), text, func(c Config) error { return Validate(c, nil) })
			require.NoError(b, err)
		}
	})
}
