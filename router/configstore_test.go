package router

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/store"
)

func TestLoadKept(t *testing.T) {
	malta, err := board.ByName("malta")
	require.NoError(t, err)
	const (
		lan = "/ip address\nadd address=192.168.7.1/24 interface=ether2\n"
		fw  = "/ip firewall filter\nadd chain=forward action=drop\n"
		sox = "/ip socks\nset enabled=yes\n"
	)
	for _, c := range []struct {
		name, text, want string // want is an export
		refused          bool
		errs             []string
	}{
		{"all is well", lan + fw + sox, lan + fw + sox, false, nil},
		{"empty", "", "", false, nil},
		{"a menu of a later version", lan + "/caps-man\nset enabled=yes\n" + fw, lan + fw, false,
			[]string{keptName + ":3: ", keptName + ":4: ", "kept out: set enabled=yes"}},
		{"a property of a later version", "/ip address\nadd address=192.168.7.1/24 interface=ether2 \\\n    vrf=mgmt\n" + fw, fw, false,
			[]string{keptName + ":3: ", "kept out: add address=192.168.7.1/24 interface=ether2     vrf=mgmt"}},
		{"a firewall that lacks a rule", lan + "/ip firewall filter\nadd chain=forward action=drop tls-host=x\nadd chain=forward action=drop\n", lan + fw, true,
			[]string{keptName + ":4: ", "kept out: add chain=forward action=drop tls-host=x"}},
		{"a table of a later version", lan + "/ip firewall calea\nadd chain=prerouting action=drop\n" + fw, lan + fw, true,
			[]string{keptName + ":3: "}},
		{"a SOCKS service that lacks a rule", lan + sox + "/ip socks access\nadd action=deny\nadd action=limit\n",
			lan + "/ip socks access\nadd action=deny\n", false, []string{"the SOCKS service is disabled", "kept out: add action=limit"}},
		{"a SOCKS user with a property of a later version", lan + sox + "/ip socks users\nadd name=alice password-hash=x totp=y\n",
			lan, false, []string{keptName + ":6: ", "the SOCKS service is disabled"}},
		{"SSH with a property of a later version", lan + "/ip service\nset ssh disabled=no port=2222\nset ssh address=10.0.0.0/8 new=yes\n",
			lan + "/ip service\nset ssh disabled=yes port=2222\n", false, []string{keptName + ":5: ", "nobody can log in over the network", "kept out: set ssh address=10.0.0.0/8 new=yes"}},
		{"a key of a later version", lan + "/ip service\nset ssh disabled=no\n/user ssh-keys\nadd user=admin key=\"ssh-new AAAA me\"\n",
			lan + "/ip service\nset ssh disabled=yes\n", false, []string{keptName + ":6: ", "nobody can log in over the network"}},
		{"a group and a user of a later version", lan + "/user group\nadd name=ops policy=read later=x\n/user\nset admin password-hash=x\nadd name=bob group=ops\n" +
			"add name=eve group=read later=x\n/user ssh-keys\nadd user=bob key=\"" + aKey + "\"\nadd user=eve key=\"" + aKey + "\"\n",
			lan + "/user\nset admin password-hash=x\n", false, []string{keptName + ":4: ", "kept out: user bob, whose group is not known"}},
		{"lines that could be of SSH", "/ip service\nset ssh disabled=no\n" + strings.Repeat("/nothing\n", 30),
			"/ip service\nset ssh disabled=yes\n", true, []string{"nobody can log in over the network"}},
		{"too many bad lines to name", strings.Repeat("/nothing\n", 30) + "/ip firewall filter\nadd chain=forward action=dorp\n", "", true,
			[]string{"more errors, not shown"}},
		{"an interface that this board has not", "/ip address\nadd address=10.0.0.1/8 interface=ether9\n",
			"/ip address\nadd address=10.0.0.1/8 interface=ether9\n", true, []string{keptName + ": ", "ether9"}},
		{"too long", strings.Repeat("#", console.MaxText+1), "", true, []string{"longer than"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := loadKept([]byte(c.text), malta)
			want, err := console.Load("want", strings.NewReader(c.want))
			require.NoError(t, err)
			assert.Equal(t, console.Export(want), console.Export(l.config))
			assert.Equal(t, c.refused, l.refused)
			if c.errs == nil {
				require.NoError(t, l.err)
			}
			for _, e := range c.errs {
				require.ErrorContains(t, l.err, e)
			}
		})
	}
	t.Run("a hash is not shown", func(t *testing.T) {
		l := loadKept([]byte("/user\nset admin pasword=$7$secret\n"), malta)
		require.ErrorContains(t, l.err, keptName+":2: ")
		assert.NotContains(t, l.err.Error(), "kept out")
		l = loadKept([]byte("/ip socks users\nadd name=alice pasword-hash=$7$secret\n"), malta)
		require.ErrorContains(t, l.err, keptName+":2: ")
		assert.NotContains(t, l.err.Error(), "kept out")
	})
}

const aKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"

// A serial line is not open for want of a line about users: who had a password still has it if that much is understood, and else
// nobody gets in.
func TestUsersOfLaterVersion(t *testing.T) {
	hash, err := password.New("secret")
	require.NoError(t, err)
	quoted := `"` + strings.ReplaceAll(hash, "$", `\$`) + `"`
	const locked = "nobody can log in: it is not understood who has a password"
	for _, test := range []struct {
		name, users string
		user        string // who logs in with the password, "" is nobody
		open        bool   // without a login
	}{
		{"nothing is set", "", "", true},
		{"the only user's line", "set admin later=x password-hash=" + quoted, "admin", false},
		{"the only user's line, and there is no password", "set admin later=x", "", true},
		{"a line that is not understood", "set admin password-hash-2=x", "", false},
		{"that of another", "remove [find name=admin]\nadd name=root group=full later=x password-hash=" + quoted, "root", false},
		{"that of another, which is not understood", "remove [find name=admin]\nadd name=root group=full password-hash-2=x", "", false},
		{"one of two", "set admin password-hash-2=x\nadd name=root group=full password-hash=" + quoted, "root", false},
		{"a reader's", "add name=bob group=read later=x password-hash=" + quoted, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				g.onFlash("/ip address\nadd address=192.168.7.1/24 interface=ether2\n/user\n" + test.users + "\n")
				g.r.start()
				st := g.r.snapshot()
				assert.True(t, st.forwarding, "the rest of the configuration holds: %s", g.log())
				isLocked := test.user == "" && !test.open
				assert.Equal(t, isLocked, errors.Is(g.r.health(), errLocked), "a version on trial goes back to the one before")
				assert.Equal(t, isLocked, strings.Contains(g.log(), locked))
				if test.open {
					assert.Contains(t, g.connect().prompt(), "[admin@postern] > ")
				} else {
					for _, user := range []string{"admin", "root"} {
						for _, secret := range []string{"", "secret"} {
							c := g.connect()
							got, _ := c.login(user, secret)
							want := loginFailed
							if user == test.user && secret == "secret" {
								want = "[" + user + "@postern] > "
							}
							assert.Equal(t, want, got, "%s %q", user, secret)
							c.hangUp()
						}
					}
				}
				if test.user == "" {
					return
				}
				// What is kept then needs the password as well.
				_, err := g.run(&session.Session{Session: console.Session{User: test.user}}, "/system identity set name=x")
				require.NoError(t, err)
				kept := loadKept([]byte(console.Export(g.lastKept())), g.r.board)
				require.NoError(t, kept.err)
				assert.Empty(t, kept.config.Unlocked())
				for _, u := range kept.config.Users {
					assert.NotEmpty(t, u.Password, u.Name)
				}
			})
		})
	}
}

func TestFindPartition(t *testing.T) {
	sys := t.TempDir()
	file := func(name, text string) {
		path := filepath.Join(sys, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	find := func(name string) string {
		path, err := findPartition(sys, "/dev", name)
		if err != nil {
			return err.Error()
		}
		return path
	}
	assert.Equal(t, "no flash: no partition is named keep", find("keep"))
	file("class/block/vda/uevent", "MAJOR=254\nDEVNAME=vda\nDEVTYPE=disk\n")
	file("class/block/vda1/uevent", "MAJOR=254\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=keep\n")
	file("class/block/vda2/uevent", "DEVNAME=vda2\nPARTNAME=keeper\n")
	assert.Equal(t, "/dev/vda1", find("keep"))
	file("class/mtd/mtd0/name", "boot\n")
	file("class/mtd/mtd0ro/name", "boot\n")
	assert.Equal(t, "/dev/vda1", find("keep"))
	file("class/mtd/mtd1ro/name", "keep\n")
	file("class/mtd/mtd1/name", "keep\n")
	assert.Equal(t, "/dev/mtd1", find("keep"))
	assert.Equal(t, "/dev/mtd0", find("boot"))
}

// testConfigStore is a configStore on a file, and what it has logged.
func testConfigStore(t *testing.T, path string) (*configStore, func() string) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	k := &configStore{log: kmsg.New(log)}
	require.NoError(t, k.open(path))
	t.Cleanup(func() { require.NoError(t, k.store.Close()) })
	return k, func() string {
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		return string(text)
	}
}

func TestKeeping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flash")
	config := console.Default()
	config.Identity = "one"

	k, log := testConfigStore(t, path)
	assert.Nil(t, k.load())
	assert.Empty(t, log())
	k.put(config)
	require.NoError(t, k.flush()) // a restart waits for the flash
	require.NoError(t, k.flush())
	assert.Equal(t, console.Export(config), string(k.load()))
	config.Identity = "two"
	k.put(config)
	assert.Contains(t, string(k.load()), "one", "after the end nothing is written")

	k, log = testConfigStore(t, path)
	assert.Contains(t, string(k.load()), "one")
	assert.Contains(t, log(), "number 1, slot 0 of 2 on file")
	k.put(config)
	require.NoError(t, k.erase())
	k.put(config)
	assert.Nil(t, k.load())

	k, log = testConfigStore(t, path)
	assert.Nil(t, k.load())
	k.put(config)
	require.NoError(t, k.flush())
	// Nothing that is written can be read again.
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 1<<17)), 0o600))
	assert.Nil(t, k.load())
	assert.Contains(t, log(), "<4>postern: system,warning kept configuration: slot 0: ")
	assert.Contains(t, log(), "<3>postern: system,error no configuration can be read from flash: the defaults hold")
}

// What is not kept costs no write of the flash, but if it is in doubt what is there.
func TestKeepingTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMedium{}
		k, _ := configStoreOn(t, m)
		defer func() { _ = k.flush() }()
		config := console.Default()
		puts := func() bool {
			m.text = nil
			k.put(config)
			time.Sleep(time.Hour)
			synctest.Wait()
			return m.text != nil
		}
		assert.True(t, puts())
		config.AddressLists = []console.ListedAddress{{List: "a", Address: match.Addresses{From: netip.MustParseAddr("10.0.0.1"), To: netip.MustParseAddr("10.0.0.1")}, Until: time.Now().Add(time.Hour)}}
		assert.False(t, puts(), "an entry that ends")
		config.AddressLists[0].Until = time.Time{}
		assert.True(t, puts())
		m.err = errFake
		require.ErrorIs(t, k.erase(), errFake)
		m.err = nil
		assert.True(t, puts(), "the erasure has failed")
		assert.False(t, puts())
	})
}

// TestKeepingFails has a flash that takes nothing and one that is not there: both
// are told of, and hold nobody up.
func TestKeepingFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flash")
	k, log := testConfigStore(t, path)
	require.NoError(t, k.store.Close())
	var err error
	k.store, err = store.Open(path)
	require.NoError(t, err)
	k.keeper = store.NewKeeper(func([]byte) error { return os.ErrInvalid }, k.report)
	k.put(console.Default())
	require.NoError(t, k.failing(), "it is not known yet")
	require.ErrorIs(t, k.flush(), os.ErrInvalid)
	assert.Contains(t, log(), "<3>postern: system,error the configuration is not kept: invalid argument")
	assert.Contains(t, log(), "<3>postern: system,error the last changes are not kept: invalid argument")
	require.ErrorIs(t, k.failing(), os.ErrInvalid)
	k.report(nil)
	assert.Contains(t, log(), "<5>postern: system,info the configuration is kept again")
	require.NoError(t, k.failing())

	absent := &configStore{log: k.log}
	absent.report(os.ErrNotExist)
	assert.Nil(t, absent.load())
	absent.put(console.Default())
	require.ErrorIs(t, absent.failing(), os.ErrNotExist)
	require.NoError(t, absent.erase())
	require.NoError(t, absent.flush())
}

// A slot that takes nothing is told of once, although another one has taken the text.
func TestSlotsFail(t *testing.T) {
	m := &fakeMedium{}
	k, said := configStoreOn(t, m)
	defer func() { _ = k.flush() }()
	bad := func(slot int) store.Damage { return store.Damage{Slot: slot, Err: os.ErrInvalid} }
	told := func() int { return strings.Count(said(), "another slot has taken it") }
	require.NoError(t, k.save([]byte("a")))
	assert.Zero(t, told())
	m.failed = []store.Damage{bad(3)}
	require.NoError(t, k.save([]byte("b")))
	require.NoError(t, k.save([]byte("c")))
	assert.Contains(t, said(), "<4>postern: system,warning kept configuration: slot 3: invalid argument: another slot has taken it; slots left: 4")
	assert.Equal(t, 1, told())
	// One that fails when all do is told of when that is not so any more.
	m.failed, m.err = []store.Damage{bad(3), bad(4)}, os.ErrInvalid
	require.Error(t, k.save([]byte("d")))
	assert.Equal(t, 1, told())
	m.err = nil
	require.NoError(t, k.save([]byte("d")))
	assert.Contains(t, said(), "kept configuration: slot 4: invalid argument: another slot has taken it; slots left: 3")
	assert.Equal(t, 2, told())
	// It works again, and fails again.
	m.failed = []store.Damage{bad(4)}
	require.NoError(t, k.save([]byte("e")))
	m.failed = []store.Damage{bad(3), bad(4)}
	require.NoError(t, k.save([]byte("f")))
	assert.Equal(t, 3, told())
}

// fakeMedium is a flash whose writes take that long, and then end as told.
type fakeMedium struct {
	takes time.Duration
	err   error
	text  []byte
	gone  bool
	// failed are slots that have taken nothing, of five.
	failed []store.Damage
}

func (m *fakeMedium) Load() ([]byte, store.Info, error) { return m.text, store.Info{}, m.err }
func (m *fakeMedium) Failed() ([]store.Damage, int)     { return m.failed, 5 - len(m.failed) }
func (m *fakeMedium) Erase() error                      { m.text = nil; return m.err }
func (m *fakeMedium) Close() error                      { m.gone = true; return m.err }
func (m *fakeMedium) Save(text []byte) error {
	time.Sleep(m.takes)
	if m.err == nil {
		m.text = text
	}
	return m.err
}

// configStoreOn is a configStore on that flash.
func configStoreOn(t *testing.T, m *fakeMedium) (*configStore, func() string) {
	log, said := testLog(t)
	k := &configStore{log: log, store: m}
	k.keeper = store.NewKeeper(k.save, k.report)
	return k, said
}

// A write that does not end is told of, also to whoever changes something; when it has ended
// all is well. If it ends just as it is told of there is no warning left: the timer that tells
// of it used to come behind the end.
func TestFlashHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, said := configStoreOn(t, &fakeMedium{takes: hangTimeout + time.Minute})
		k.put(console.Default())
		time.Sleep(hangTimeout + 2*time.Second)
		require.EqualError(t, k.failing(), "the flash has not answered for 20s")
		assert.Contains(t, said(), "system,error the configuration is not kept: the flash has not answered for 20s")
		time.Sleep(time.Minute)
		require.NoError(t, k.failing())
		assert.Contains(t, said(), "the configuration is kept again")
		require.NoError(t, k.flush())
	})
	for range 50 { // each of them ends in one order or the other
		synctest.Test(t, func(t *testing.T) {
			k, _ := configStoreOn(t, &fakeMedium{takes: hangTimeout})
			k.put(console.Default())
			time.Sleep(hangTimeout + 2*time.Second)
			require.NoError(t, k.failing())
			require.NoError(t, k.flush())
		})
	}
}

// The end of the router waits for the flash, and not without end; a flash that hangs is not
// erased either.
func TestFlashHangsAtTheEnd(t *testing.T) {
	config := console.Default()
	config.Identity = "x"
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMedium{takes: time.Hour}
		k, said := configStoreOn(t, m)
		k.put(config)
		time.Sleep(2 * time.Second)
		start := time.Now()
		require.ErrorIs(t, k.erase(), context.DeadlineExceeded)
		assert.Equal(t, flushTimeout, time.Since(start))
		assert.Contains(t, said(), "the last changes are not kept: ")
		k.close()
		assert.False(t, m.gone)
		time.Sleep(2 * time.Hour)
		require.NoError(t, k.flush())
	})
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMedium{}
		k, said := configStoreOn(t, m)
		k.put(config)
		k.close()
		assert.True(t, m.gone)
		assert.NotEmpty(t, m.text)
		m.err = errFake
		k.close()
		assert.Contains(t, said(), "system,warning refused by the test")
		// A reset that fails leaves the router as it is.
		k.keeper = store.NewKeeper(k.save, k.report)
		require.ErrorIs(t, k.erase(), errFake)
		require.ErrorContains(t, (&Router{kept: k}).confirmed(console.ResetConfiguration), "failure: refused by the test")
		m.err = nil
		k.put(config)
		require.NoError(t, k.flush())
		assert.NotEmpty(t, m.text)
	})
}

// What the flash cannot give is told of, and the defaults hold.
func TestLoadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, said := configStoreOn(t, &fakeMedium{err: errFake})
		assert.Nil(t, k.load())
		assert.Contains(t, said(), "system,error refused by the test")
		_ = k.flush()
	})
	log, said := testLog(t)
	k := openConfigStore(log, t.TempDir(), "/dev")
	require.ErrorContains(t, k.failing(), "no flash: no partition is named postern-config")
	sys := system(t, "mtd", board.ConfigurationPartition)
	k = openConfigStore(log, sys, "/proc")
	require.Error(t, k.failing())
	dev := t.TempDir()
	k = openConfigStore(log, sys, dev)
	require.NoError(t, k.failing())
	k.close()
	assert.Contains(t, said(), "the configuration is not kept: ")
}

// The reset button and a word on the kernel's command line start with the defaults; what is
// kept stays until the first change.
func TestReset(t *testing.T) {
	for _, c := range []struct {
		name, line, identity string
		held                 bool
	}{
		{"as it was", "quiet", "kept", false},
		{"the word", "quiet postern.reset", "postern", false},
		{"the button", "", "postern", true},
		{"another word", "postern.resets", "kept", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				g.onFlash("/system identity set name=kept\n")
				g.r.commandLine, g.r.resetHeld = c.line, func() bool { return c.held }
				g.r.keep = g.r.kept.put
				g.r.start()
				assert.Equal(t, c.identity, g.machine.name)
				assert.Equal(t, c.identity == "postern", strings.Contains(g.log(), "starting with the defaults"))
				g.must("/system identity set name=new")
				g.r.Shutdown()
				k := &configStore{log: g.r.log}
				require.NoError(t, k.open(filepath.Join(g.r.root, "flash")))
				assert.Contains(t, string(k.load()), "name=new")
				k.close()
			})
		})
	}
}

// Whoever changes something is told that it may not last.
func TestWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.r.kept.report(errFake)
		assert.Equal(t, "warning: the configuration is not kept: refused by the test\n", g.must("/system identity set name=x"))
	})
}
