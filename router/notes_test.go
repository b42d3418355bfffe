package router

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/store"
)

func TestNotes(t *testing.T) {
	const config = "# a comment of the user's\n/system identity\nset name=a\n"
	notes := map[string]string{stateLeases: "a,b c,d", stateHostKey: "aGVsbG8=", stateClient + "ether1": "10.0.0.2"}
	text := joinNotes([]byte(config), notes)
	assert.Equal(t, config+"# dhcp-client-ether1=10.0.0.2\n# leases=a,b\n# leases=c,d\n# ssh-host-key=aGVsbG8=\n", string(text))
	for name, c := range map[string]struct {
		text, config string
		notes        map[string]string
	}{
		"as they are written": {string(text), config, notes},
		"none":                {config, config, map[string]string{}},
		"empty":               {"", "", map[string]string{}},
		"alone":               {"# leases=x\n", "", map[string]string{stateLeases: "x"}},
		"of no line's end":    {config + "# leases=x", config, map[string]string{stateLeases: "x"}},
		"of a later version":  {config + "# more=1\n# leases=x\n", config + "# more=1\n", map[string]string{stateLeases: "x"}},
		"not at the end":      {"# leases=x\n" + config, "# leases=x\n" + config, map[string]string{}},
	} {
		got, notes := cutNotes([]byte(c.text))
		assert.Equal(t, c.config, string(got), name)
		assert.Equal(t, c.notes, notes, name)
	}
	assert.Equal(t, "x\n# leases=y\n", string(joinNotes([]byte("x"), map[string]string{stateLeases: "y"})))
	read, err := console.Load("kept", bytes.NewReader(text))
	require.NoError(t, err, "they are comments to every version")
	assert.Equal(t, "a", read.Identity)
}

func FuzzCutNotes(f *testing.F) {
	f.Add([]byte("/system identity\nset name=a\n# leases=a,b\n# leases=c\n# ssh-host-key=aGVsbG8=\n"))
	f.Add([]byte("# leases=\n\n# defaults=yes"))
	f.Fuzz(func(t *testing.T, text []byte) {
		config, notes := cutNotes(text)
		require.True(t, bytes.HasPrefix(text, config))
		again, same := cutNotes(joinNotes(config, notes))
		for name, value := range notes {
			assert.Equal(t, strings.Join(strings.Fields(value), " "), same[name])
		}
		if len(config) > 0 && config[len(config)-1] != '\n' {
			config = append(bytes.Clone(config), '\n')
		}
		require.Equal(t, string(config), string(again))
	})
}

// While nothing is set the defaults hold, whatever is kept with them, and those of a later image too; notes do not become
// what is set, and what is set does not lose them.
func TestNotesOfDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flash")
	open := func() (*configStore, noteStore) {
		k, _ := testConfigStore(t, path)
		return k, noteStore{k}
	}
	defaults := console.Default()
	defaults.Identity = "of-the-image"
	k, n := open()
	assert.False(t, n.kept(), "the flash has not been read")
	assert.Nil(t, k.load())
	k.setDefaults(defaults)
	assert.True(t, n.kept())
	require.NoError(t, n.put(map[string]string{stateLeases: "x"}))
	require.NoError(t, k.flush())

	k, n = open()
	assert.Nil(t, k.load(), "the defaults hold")
	assert.Equal(t, "x", n.get(stateLeases))
	defaults.Identity = "of-the-next"
	k.setDefaults(defaults)
	require.NoError(t, n.put(map[string]string{stateLeases: "y"}))
	require.NoError(t, n.put(map[string]string{stateLeases: "z"}))
	require.NoError(t, k.flush())
	text, _, err := k.store.Load()
	require.NoError(t, err)
	assert.Contains(t, string(text), "set name=of-the-next\n# defaults=yes\n# leases=z\n", "an earlier version can run it")

	k, _ = open()
	assert.Nil(t, k.load())
	defaults.Identity = "set"
	k.put(defaults)
	require.NoError(t, k.flush())
	k, n = open()
	assert.Equal(t, console.Export(defaults), string(k.load()))
	assert.Equal(t, "z", n.get(stateLeases))
	require.NoError(t, k.erase())
	k, n = open()
	assert.Nil(t, k.load())
	assert.Empty(t, n.get(stateLeases), "a reset forgets them")
}

// What was not read is not overwritten for a note's sake: not by the reset button, not when a slot is damaged.
func TestNotesSpareWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flash")
	k, _ := testConfigStore(t, path)
	k.put(console.Default())
	require.NoError(t, k.flush())

	k, _ = testConfigStore(t, path)
	k.setDefaults(console.Default()) // without load, as with the button
	n := noteStore{k}
	assert.False(t, n.kept())
	require.NoError(t, n.put(map[string]string{stateLeases: "x"}))
	require.NoError(t, k.flush())
	text, info, err := k.store.Load()
	require.NoError(t, err)
	assert.EqualValues(t, 1, info.Sequence)
	assert.NotContains(t, string(text), "leases")

	m := &fakeMedium{err: errFake}
	k, _ = configStoreOn(t, m)
	assert.Nil(t, k.load())
	k.setDefaults(console.Default())
	assert.False(t, noteStore{k}.kept())
	_ = k.flush()
}

// A configuration that fills a slot is kept without the leases, and not lost for them.
func TestNotesTooLong(t *testing.T) {
	k, said := testConfigStore(t, filepath.Join(t.TempDir(), "flash"))
	k.load()
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(size int) string { // which cannot be packed
		b := make([]byte, size)
		for i := range b {
			b[i] = byte('!' + random.IntN('~'-'!'))
		}
		return string(b)
	}
	k.mu.Lock()
	k.text = []byte("# " + noise(63<<10) + "\n")
	k.mu.Unlock()
	require.NoError(t, noteStore{k}.put(map[string]string{stateLeases: noise(maxNote), stateHostKey: "key"}))
	require.NoError(t, k.flush())
	text, _, err := k.store.Load()
	require.NoError(t, err)
	config, notes := cutNotes(text)
	assert.Equal(t, string(k.text), string(config))
	assert.Equal(t, map[string]string{stateHostKey: "key"}, notes)
	assert.Contains(t, said(), "leases are not kept over a restart: with the configuration they are too long for the flash")

	k, _ = testConfigStore(t, filepath.Join(t.TempDir(), "flash"))
	k.load()
	k.mu.Lock()
	k.text = []byte("# " + noise(80<<10) + "\n")
	k.mu.Unlock()
	require.NoError(t, noteStore{k}.put(map[string]string{stateHostKey: "key"}))
	require.ErrorIs(t, k.flush(), store.ErrTooLong)
}

// Leases of hosts that come and go all the time are written 24 times a day in the long run, and those of the last minutes at
// an orderly end.
func TestLeaseWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "flash")
		k, _ := testConfigStore(t, path)
		k.load()
		k.setDefaults(console.Default())
		d := newTestDHCP(t, noteStore{k})
		k.last = d.last
		require.NoError(t, d.Apply(dhcpConfig(t)))
		assert.NotContains(t, d.said(), "not kept")
		written := func() uint64 {
			_, info, err := k.store.Load()
			if err != nil {
				return 0
			}
			return info.Sequence
		}
		const days = 4
		for i := range days * 24 * 60 {
			require.NoError(t, d.take([]server.Change{bound("192.168.0.10", byte(i), "")}))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		assert.InDelta(t, days*24+leaseWrites, written(), 2)
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop")}))
		before := written()
		require.NoError(t, noteStore{k}.put(k.last()))
		require.NoError(t, k.flush())
		assert.Equal(t, before+1, written())

		again, _ := testConfigStore(t, path)
		again.load()
		again.setDefaults(console.Default())
		d = newTestDHCP(t, noteStore{again})
		require.NoError(t, d.Apply(dhcpConfig(t)))
		all, err := d.list()
		require.NoError(t, err)
		require.Len(t, all, 1)
		assert.Equal(t, "laptop", all[0].HostName)
		assert.Contains(t, d.said(), "1 leases of before the restart")
		require.NoError(t, again.flush())
	})
}
