package console

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// as is a system for a user of that group.
func as(t *testing.T, group string, lacks ...string) Live {
	t.Helper()
	cfg := Default()
	cfg.Users = append(cfg.Users, User{Name: "me", Group: group})
	live := fullLive()
	live.Denied = cfg.Denied("me")
	for _, name := range lacks {
		i := slices.Index(policyNames[:], name)
		require.GreaterOrEqual(t, i, 0)
		live.Denied |= 1 << i
	}
	return live
}

// What each command needs, by its name; below /user a command that changes something needs policy too. A new command has to be
// put down here, which is the time to think about whom it serves.
func TestCommandPolicies(t *testing.T) {
	want := map[string]string{
		"check": "read", "export": "read", "export-certificate": "read", "find": "read", "get": "read", "monitor": "read", "monitor-traffic": "read", "print": "read", "torch": "read",

		"add": "write", "comment": "write", "disable": "write", "edit": "write", "enable": "write", "flush": "write", "import": "write", "make-static": "write",
		"move": "write", "redo": "write", "release": "write", "remove": "write", "renew": "write", "reset": "write", "reset-counters": "write",
		"reset-counters-all": "write", "request-logout": "write", "set": "write", "sign": "write", "undo": "write", "unset": "write",

		"check-for-updates": "test", "ping": "test", "traceroute": "test",
		"password": "password", "quit": "",
		"reboot": "reboot", "shutdown": "reboot",
		"install": "reboot,write", "upgrade": "reboot,write", "reset-configuration": "reboot,write,policy",
	}
	seen := map[string]bool{}
	for _, m := range menus() {
		for _, c := range append(slices.Clone(m.commands), exportCommand) {
			seen[c.name] = true
			policies, known := want[c.name]
			assert.True(t, known, "/%s %s", m.path, c.name)
			if policies == "write" && (m.path == "user" || strings.HasPrefix(m.path, "user ")) {
				policies += ",policy"
			}
			assert.Equal(t, policies, strings.Join(c.permission(m).names(), ","), "/%s %s", m.path, c.name)
		}
	}
	for name := range want {
		assert.True(t, seen[name], name)
	}
	// Two arguments need more than their commands.
	for _, r := range []struct {
		result Result
		want   string
	}{
		{Result{Request: Upgrade}, "reboot,write"},
		{Result{Request: Upgrade, Upgrade: UpgradeArguments{Force: true}}, "reboot,write,policy"},
		{Result{Request: Upgrade, Upgrade: UpgradeArguments{Release: true}}, "reboot,write"},
		{Result{Request: Import}, "write"},
		{Result{Request: Import, Import: ImportArguments{Replace: true}}, "write,policy"},
		{Result{Request: ResetConfiguration}, "reboot,write,policy"},
		{Result{Request: Reboot}, "reboot"},
		{Result{Request: Quit}, ""},
	} {
		assert.Equal(t, r.want, strings.Join(r.result.Needs().names(), ","), "%+v", r.result.Request)
	}
}

// Each group runs what its policies allow, typed or by a program, and nothing else.
func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		line, read, write string
	}{
		{"/ip address print", "yes", "yes"},
		{"/export", "yes", "yes"},
		{"/export show-sensitive", "yes", "yes"}, // as in RouterOS, group read has the policy
		{"/system identity get name", "yes", "yes"},
		{"/ip socks access find", "yes", "yes"},
		{"/user print", "yes", "yes"},
		{"/log print", "yes", "yes"},
		{"/quit", "yes", "yes"},
		{"/password", "yes", "yes"},
		{"/ping 10.0.0.1", "yes", "yes"},
		{"/tool traceroute 10.0.0.1", "yes", "yes"},
		{"/system reboot", "yes", "yes"},
		{"/system shutdown", "yes", "yes"},
		{"/system upgrade /dev/sda", "no", "yes"},
		{"/system upgrade /dev/sda force=no", "no", "yes"},
		{"/system upgrade /dev/sda force=yes", "no", "no"}, // back to a version that may let everybody in
		{"/system package update install", "no", "yes"},
		{"/system package update check-for-updates", "yes", "yes"},
		{"/import", "no", "yes"},
		{"/import replace=yes", "no", "no"},
		{"/system reset-configuration", "no", "no"},
		{"/system clock set time=12:00:00", "no", "yes"},
		{"/system identity set name=x", "no", "yes"},
		{"/ip socks reset", "no", "yes"},
		{"/ip address add address=10.0.0.1/24 interface=ether1", "no", "yes"},
		{"/ip socks connections remove 0", "no", "yes"},
		{"/ip firewall filter reset-counters-all", "no", "yes"},
		{"/ip dns cache flush", "no", "yes"},
		{"/user set admin comment=x", "no", "no"},
		{"/user add name=x group=full", "no", "no"},
		{"/user remove 0", "no", "no"},
		{"/user group add name=x policy=read", "no", "no"},
		{"/user group set read policy=write", "no", "no"},
		{`/user ssh-keys add user=admin key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"`, "no", "no"},
	} {
		for group, want := range map[string]string{"read": test.read, "write": test.write, "full": "yes"} {
			_, err := new(Session).Execute(Default(), as(t, group), test.line)
			assert.Equal(t, want == "no", err == ErrNotPermitted, "%s: %s: %v", group, test.line, err)
		}
	}
	for line, policy := range map[string]string{
		"/export": "read", "/export show-sensitive": "sensitive", "/ip address print": "read", "/ping 10.0.0.1": "test", "/password": "password",
		"/system reboot": "reboot", "/system identity set name=x": "write", "/user set admin comment=x": "policy", "/user active print": "read",
	} {
		_, err := new(Session).Execute(Default(), as(t, "full"), line)
		require.NoError(t, err, line)
		_, err = new(Session).Execute(Default(), as(t, "full", policy), line)
		assert.Equal(t, ErrNotPermitted, err, "%s without %s", line, policy)
	}

	t.Run("by a program", func(t *testing.T) {
		_, err := Query(Default(), as(t, "read"), "ip address", nil, nil)
		require.NoError(t, err)
		_, err = Query(Default(), as(t, "read", "read"), "ip address", nil, nil)
		require.ErrorIs(t, err, ErrNotPermitted)
		_, err = Do(Default(), as(t, "read"), "system identity", "set", Argument{"name", "x"})
		require.ErrorIs(t, err, ErrNotPermitted)
		_, err = Do(Default(), as(t, "write"), "system identity", "set", Argument{"name", "x"})
		require.NoError(t, err)
		_, err = Do(Default(), as(t, "write"), "user", "set", Argument{".id", "admin"}, Argument{"password", "x"})
		require.ErrorIs(t, err, ErrNotPermitted)
		_, err = Do(Default(), as(t, "read", "reboot"), "system", "reboot")
		require.ErrorIs(t, err, ErrNotPermitted)
	})
	t.Run("a line of several", func(t *testing.T) {
		result, err := new(Session).Execute(Default(), as(t, "write"), "/system identity set name=x; /user set admin disabled=yes")
		require.EqualError(t, err, "not enough permissions (9)")
		assert.Equal(t, Default(), result.Config)
	})
	t.Run("an import", func(t *testing.T) {
		_, err := new(Session).Import(Default(), as(t, "write"), "/system identity set name=x\n/user\nadd name=x group=full\n", nil)
		require.EqualError(t, err, "not enough permissions (9) (line 3)")
	})
	t.Run("hashes of users' passwords", func(t *testing.T) {
		cfg := Default()
		cfg.SetPassword(Admin, "$x")
		result, err := new(Session).Execute(cfg, as(t, "read"), "/export show-sensitive")
		require.NoError(t, err)
		assert.NotContains(t, result.Output, "$x")
		result, err = new(Session).Execute(cfg, as(t, "full"), "/export show-sensitive")
		require.NoError(t, err)
		assert.Contains(t, result.Output, `password-hash="\$x"`)
	})
	t.Run("names of items", func(t *testing.T) {
		_, choices := new(Session).Complete(Default(), as(t, "read"), "/user set ")
		assert.NotEmpty(t, choices)
		_, choices = new(Session).Complete(Default(), as(t, "read", "read"), "/user set ")
		assert.Empty(t, choices)
		assert.Equal(t, "not enough permissions (9)\n", new(Session).Help(Default(), as(t, "read", "read"), "/user set "))
	})
}

// A command that only shows something needs MayRead, any other something that group read lacks, but for those named here.
func TestEveryCommandNeedsAPolicy(t *testing.T) {
	others := []string{"quit", "password", "ping", "traceroute", "reboot", "shutdown", "check-for-updates"}
	readers := Default().Denied("") &^ defaultGroups()[0].Policy // what group read lacks
	for _, m := range menus() {
		for _, c := range append(slices.Clone(m.commands), exportCommand) {
			if slices.Contains(others, c.name) {
				continue
			}
			if c.shows {
				assert.NotZero(t, c.permission(m)&MayRead, "/%s %s", m.path, c.name)
			} else {
				assert.NotZero(t, c.permission(m)&readers, "/%s %s", m.path, c.name)
			}
		}
	}
}

func TestMayLogIn(t *testing.T) {
	cfg, err := Load("test", strings.NewReader(`/user group add name=phone policy=api,read
/user add name=bob group=read address=192.168.0.0/24
/user add name=app group=phone
/user add name=off group=full disabled=yes
`))
	require.NoError(t, err)
	require.NoError(t, Validate(cfg, nil))
	near, far := netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("10.0.0.2")
	for _, test := range []struct {
		user string
		way  Policies
		from netip.Addr
		want bool
	}{
		{"admin", MaySSH, far, true},
		{"bob", MaySSH, near, true}, {"bob", MaySSH, far, false}, {"bob", MayLocal, netip.Addr{}, true},
		{"app", MayAPI, far, true}, {"app", MaySSH, far, false}, {"app", MayLocal, netip.Addr{}, false}, {"app", MayWeb, far, false},
		{"off", MaySSH, near, false}, {"nobody", MaySSH, near, false}, {"", MaySSH, near, false}, {"admin", 0, near, false},
	} {
		assert.Equal(t, test.want, cfg.MayLogIn(test.user, test.way, test.from), "%+v", test)
	}
	assert.Equal(t, "admin", cfg.Unlocked())
	cfg.SetPassword("app", "x")
	assert.Equal(t, "admin", cfg.Unlocked(), "app cannot log in there")
	ssh, api := NetworkServices[0], NetworkServices[1]
	cfg.SSH.Disabled, cfg.API.Disabled = false, false
	assert.True(t, api.Open(cfg))
	assert.False(t, ssh.Open(cfg), "app may not log in by SSH")
	cfg.SetPassword("bob", "x")
	assert.Empty(t, cfg.Unlocked())
	assert.True(t, ssh.Open(cfg))
	assert.True(t, cfg.HasSecret())
}

// The users and groups of a router are set as in RouterOS.
func TestUsers(t *testing.T) {
	checkScreen(t, "", as(t, "full"), 0, `[admin@postern] > user
[admin@postern] user> add name=bob group=read password=secret address=192.168.0.0/24,10.0.0.1 comment="the neighbour"
[admin@postern] user> add group=full name=root
[admin@postern] user> print
Flags: X - disabled
 #   NAME             GROUP      ADDRESS
 0   admin            full
 1   ;;; the neighbour
     bob              read       192.168.0.0/24,10.0.0.1/32
 2   root             full
[admin@postern] user> disable admin
[admin@postern] user> group add name=phone policy=api,read
[admin@postern] user> set bob group=phone name=robert
[admin@postern] user> group print where name=phone
 # NAME             POLICY
 0 phone            read,api,!local,!telnet,!ssh,!ftp,!reboot,!write,!policy,!test,!winbox,!password,!web,!sniff,!sensitive,!romon,!rest-api
[admin@postern] user> ssh-keys add user=robert key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home"
[admin@postern] user> set robert name=bob
[admin@postern] user> group set phone name=telephone
[admin@postern] user> export
/user group
add name=telephone \
    policy=read,api,!local,!telnet,!ssh,!ftp,!reboot,!write,!policy,!test,!winbox,!password,!web,!sniff,!sensitive,!romon,!rest-api
/user
set admin disabled=yes
add address=192.168.0.0/24,10.0.0.1/32 comment="the neighbour" group=telephone \
    name=bob
add group=full name=root
/user ssh-keys
add \
    key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home" \
    user=bob
[admin@postern] user> remove bob
[admin@postern] user> ssh-keys print count-only
0
[admin@postern] user> remove admin
[admin@postern] user> export
/user group
add name=telephone \
    policy=read,api,!local,!telnet,!ssh,!ftp,!reboot,!write,!policy,!test,!winbox,!password,!web,!sniff,!sensitive,!romon,!rest-api
/user
remove [find name=admin]
add group=full name=root
[admin@postern] user> add name=x
missing value(s) of argument(s) group
[admin@postern] user> add name="a+b" group=read
invalid value for argument name; expected name: 1..64 of a-z, A-Z, 0-9 and, behind the first, *_.@-, not "a+b"
[admin@postern] user> group add name=y policy=fly
invalid value for argument policy; expected list of [!]local | telnet | ssh | ftp | reboot | read | write | policy | test | winbox | password | web | sniff | sensitive | api | romon | rest-api, not "fly"
`)
}

// What would leave nobody who can manage the router, or refers to what is not there, is refused.
func TestUsersRefused(t *testing.T) {
	base, err := Load("base", strings.NewReader("/user group add name=own policy=read\n/user add name=bob group=own\n"))
	require.NoError(t, err)
	for line, want := range map[string]string{
		"/user remove admin":                                   "failure: at least one user of group full must be there that is not disabled",
		"/user disable admin":                                  "failure: at least one user of group full must be there that is not disabled",
		"/user set admin group=write":                          "failure: at least one user of group full must be there that is not disabled",
		"/user set bob group=full; /user remove admin":         "",
		"/user add name=bob group=read":                        "failure: user with the same name already exists: bob",
		"/user add name=x group=none":                          "/user 2: input does not match any value of group: none; expected read | write | full | own",
		"/user group remove own":                               "/user 1: input does not match any value of group: own; expected read | write | full",
		"/user group remove read":                              "failure: group read is always there: it can be neither removed nor renamed",
		"/user group set full name=all":                        "failure: group full is always there: it can be neither removed nor renamed",
		"/user group set full policy=local,read,write,!policy": "failure: group full needs policy reboot,policy,password,sensitive",
		"/user group set full !comment":                        "",
		"/user group add name=own":                             "failure: group with the same name already exists: own",
		"/user group set read policy=read":                     "",
		`/user ssh-keys add user=x key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"`: "/user ssh-keys 0: input does not match any value of user: x; expected admin | bob",
	} {
		result, err := new(Session).Execute(base, fullLive(), line)
		require.NoError(t, err, line)
		err = ValidateChange(base, result.Config, nil)
		if want == "" {
			assert.NoError(t, err, line)
		} else {
			assert.EqualError(t, err, want, line)
		}
	}
	t.Run("too many", func(t *testing.T) {
		for path, most := range map[string]int{"user": maxUsers, "user group": maxUserGroups} {
			cfg := Default()
			for i := 0; ; i++ {
				require.LessOrEqual(t, i, most)
				arguments := []Argument{{"name", "n" + strings.Repeat("x", i)}}
				if path == "user" {
					arguments = append(arguments, Argument{"group", "read"})
				}
				result, err := Do(cfg, fullLive(), path, "add", arguments...)
				if err != nil {
					assert.EqualError(t, err, "failure: no more than 16 items in /"+path)
					break
				}
				cfg = result.Config
			}
		}
	})
}

// The configuration of a version with one user goes on as it was, and one without others is what that version reads.
func TestEarlierUser(t *testing.T) {
	const text = "/system identity\nset name=gate\n/user\nset admin password-hash=\"\\$argon2id\\$x\"\n"
	cfg, err := Load("kept", strings.NewReader(text))
	require.NoError(t, err)
	require.NoError(t, Validate(cfg, nil))
	assert.Equal(t, []User{{Name: Admin, Group: "full", Password: "$argon2id$x"}}, cfg.Users)
	assert.Equal(t, text, Export(cfg))
	assert.Empty(t, cfg.Unlocked())
}

// An export without passwords, imported where it came from, changes nothing; as a replacement it keeps them.
func TestUsersImportedAgain(t *testing.T) {
	cfg, err := Load("kept", strings.NewReader("/user\nset admin password-hash=a\nadd name=bob group=read password-hash=b\n"))
	require.NoError(t, err)
	shown := exportMenus(menus(), &cfg, "")
	assert.NotContains(t, shown, "hash")
	check := func(c Config) error { return ValidateChange(cfg, c, nil) }
	result, err := new(Session).Import(cfg, fullLive(), shown, check)
	require.NoError(t, err)
	assert.False(t, result.Changed)
	result, err = new(Session).Replace(cfg, fullLive(), shown+"/system identity set name=x\n", check)
	require.NoError(t, err)
	assert.Equal(t, cfg.Users, result.Config.Users)
	result, err = new(Session).Replace(cfg, fullLive(), "/system identity set name=x\n/user add name=eve group=read\n", check)
	require.NoError(t, err)
	assert.Equal(t, []User{{Name: Admin, Group: "full", Password: "a"}, {Name: "eve", Group: "read"}}, result.Config.Users)
}

// What is not understood of lines about users and groups gives less than they say, never more.
func TestLessThanNotUnderstood(t *testing.T) {
	lan, elsewhere := netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("10.0.0.9")
	for _, test := range []struct {
		name, lines      string
		user             string
		atLine, fromLAN  bool // whether the user may log in at a serial line, and by SSH
		fromAnywhereElse bool
	}{
		{"all of it", "/user add name=eve group=full password-hash=x address=192.168.0.0/24\n", "eve", true, true, false},
		{"a restriction that is not known", "/user add name=eve group=full password-hash=x address=home\n", "eve", true, false, false},
		{"a word that is not known", "/user add name=eve group=full password-hash=x hours=9-17\n", "eve", true, false, false},
		{"a comment that is not", "/user add name=eve group=full password-hash=x address=192.168.0.0/24 comment=\"\\1B\"\n", "eve", true, false, false},
		{"a group that gets less", "/user group set write policy=local,read,chat\n/user add name=eve group=write password-hash=x\n", "eve", false, false, false},
		{"which group is not known", "/user group set [find name=write] policy=local,chat\n/user add name=eve group=write password-hash=x\n", "eve", false, false, false},
		{"no line at all", "/user group set write policy=\"local\n/user add name=eve group=write password-hash=x\n", "eve", false, false, false},
		{"another group", "/user group set read policy=local,chat\n/user add name=eve group=write password-hash=x\n", "eve", true, true, true},
		{"full", "/user group set full policy=local,chat\n/user add name=eve group=full password-hash=x\n", "eve", true, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Load("kept", strings.NewReader(test.lines))
			assert.Equal(t, test.name == "all of it", err == nil, "%v", err)
			assert.Equal(t, test.atLine, c.MayLogIn(test.user, MayLocal, netip.Addr{}))
			assert.Equal(t, test.fromLAN, c.MayLogIn(test.user, MaySSH, lan))
			assert.Equal(t, test.fromAnywhereElse, c.MayLogIn(test.user, MaySSH, elsewhere))
			assert.NoError(t, c.checkUsers())
		})
	}
}

// A key comes from a file, too.
func TestImportKey(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"
	content := key + " me@home\r\n"
	live := fullLive()
	live.ReadFile = func(name string) (string, error) {
		if name != "id.pub" {
			return "", errors.New("failure: no such file: " + name)
		}
		return content, nil
	}
	run := func(arguments string) (string, error) {
		result, err := new(Session).Execute(Default(), live, "/user ssh-keys import "+arguments)
		if err == nil {
			err = ValidateChange(Default(), result.Config, nil)
		}
		if err != nil {
			return "", err
		}
		require.Len(t, result.Config.SSHKeys, 1)
		return result.Config.SSHKeys[0].User + " " + result.Config.SSHKeys[0].Public.String(), nil
	}
	for arguments, want := range map[string]string{
		"user=admin public-key-file=id.pub":                       "admin " + key + " me@home",
		"user=admin public-key-file=/id.pub key-owner=\"my own\"": "admin " + key + " my own",
	} {
		got, err := run(arguments)
		require.NoError(t, err, arguments)
		assert.Equal(t, want, got)
	}
	for arguments, want := range map[string]string{
		"public-key-file=id.pub":             "missing value(s) of argument(s) user",
		"user=admin":                         "missing value(s) of argument(s) public-key-file",
		"user=admin public-key-file=x":       "failure: no such file: x",
		"user=nobody public-key-file=id.pub": "/user ssh-keys 0: input does not match any value of user: nobody; expected admin",
	} {
		_, err := run(arguments)
		assert.EqualError(t, err, want, arguments)
	}
	for _, content = range []string{"", "-----BEGIN OPENSSH PRIVATE KEY-----\n", key + " a\n" + key + " b\n"} {
		_, err := run("user=admin public-key-file=id.pub")
		assert.ErrorContains(t, err, "unable to load key file (wrong format or bad passphrase)! id.pub: ")
	}
}
