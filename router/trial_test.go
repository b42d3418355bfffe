package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/upgrade"
)

func TestFallBack(t *testing.T) {
	old := upgrade.State{Whole: true, Sequence: 4, Tried: true, Confirmed: true}
	failed := upgrade.State{Whole: true, Sequence: 5, Tried: true, Version: "v2"}
	assert.Equal(t, "version v2 in slot b was tried and is not started again: port ether1 is missing", fallBack("b", old, failed, "b 5 port ether1 is missing"))
	assert.Contains(t, fallBack("b", old, failed, "b 3 an older one"), "it ended without a word")
	assert.Contains(t, fallBack("b", old, failed, ""), "it ended without a word")
	for name, other := range map[string]upgrade.State{
		"empty": {}, "older": {Whole: true, Sequence: 3, Tried: true},
		"confirmed": {Whole: true, Sequence: 5, Tried: true, Confirmed: true}, "not tried": {Whole: true, Sequence: 5},
	} {
		assert.Empty(t, fallBack("b", old, other, "b 5 x"), name)
	}
}

func TestUntilWell(t *testing.T) {
	// No question is due just when the time is over.
	const steady, limit = 5 * time.Second, 59500 * time.Millisecond
	for _, c := range []struct {
		name string
		// well is asked for the n-th time, from 1.
		well func(n int) error
		want string
		took time.Duration
	}{
		{"at once", func(int) error { return nil }, "", steady},
		{"later", func(n int) error {
			if n < 5 {
				return errors.New("not yet")
			}
			return nil
		}, "", 4*time.Second + steady},
		{"now and then", func(n int) error {
			if n%3 == 0 {
				return errors.New("shaky")
			}
			return nil
		}, "shaky", limit},
		{"too late", func(n int) error {
			if n < 58 {
				return errors.New("not yet")
			}
			return nil
		}, "it was well too late", limit},
		{"never", func(int) error { return errors.New("bad") }, "bad", limit},
		{"no answer", func(int) error { time.Sleep(time.Hour); return nil }, "it does not say within 59.5s how it is: the start has not ended", limit + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, n := time.Now(), 0
				err := untilWell(t.Context(), func() error { n++; return c.well(n) }, limit, steady)
				assert.Equal(t, c.took, time.Since(start))
				if c.want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, c.want)
				}
				time.Sleep(time.Hour) // until the last answer is there
			})
		})
	}
	t.Run("the end", func(t *testing.T) {
		for _, well := range []func() error{func() error { return errFake }, func() error { time.Sleep(time.Second); return nil }} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(500*time.Millisecond, cancel)
				require.ErrorIs(t, untilWell(ctx, well, time.Minute, steady), context.Canceled)
				time.Sleep(time.Second)
			})
		}
	})
}

// slots gives the router a disk with two slots, of which that one runs, and the states of the
// images in them: the fields of its text that are not the default ones of a good image.
func (g *rig) slots(running string, images ...map[string]string) {
	g.Helper()
	dev := filepath.Join(g.r.root, "dev")
	require.NoError(g, os.MkdirAll(dev, 0o755))
	var paths [2]string
	for i, name := range append(board.Slots[:], board.SlotStates) {
		device := fmt.Sprintf("vda%d", i+1)
		g.file("sys/class/block/"+device+"/uevent", "PARTNAME="+name+"\n")
		require.NoError(g, os.WriteFile(filepath.Join(dev, device), make([]byte, 64<<10), 0o600))
		if i < 2 {
			paths[i] = filepath.Join(dev, device)
		}
	}
	states := filepath.Join(dev, "vda3")
	all, err := upgrade.OpenSlots(paths, states)
	require.NoError(g, err)
	for i, image := range images {
		if image == nil {
			continue
		}
		text := []byte("an image")
		require.NoError(g, all[i].Write(upgrade.Header{Version: "v" + fmt.Sprint(i+1), Length: int64(len(text)), Sum: sha256.Sum256(text)},
			bytes.NewReader(text), uint32(i+1), nil))
		written, err := os.ReadFile(states)
		require.NoError(g, err)
		at := 4096 * (1 + 2*i)
		block := string(written[at : at+4096])
		for name, value := range image {
			before, rest, ok := strings.Cut(block, name+"=")
			require.True(g, ok, block)
			_, rest, _ = strings.Cut(rest, "\n")
			block = before + name + "=" + value + "\n" + rest
		}
		copy(written[at:], block)
		require.NoError(g, os.WriteFile(states, written, 0o600))
	}
	require.NoError(g, all.Close())
	g.r.commandLine = "quiet postern.slot=" + running
	g.r.upgrades.running.Version = "own"
}

// noFile puts a folder in the place of a file: it cannot be opened.
func (g *rig) noFile(path string) {
	path = filepath.Join(g.r.root, path)
	require.NoError(g, os.Remove(path))
	require.NoError(g, os.Mkdir(path, 0o755))
}

// A new version is tried, and confirmed if it is well.
func TestTrial(t *testing.T) {
	good, tried := map[string]string{"tried": "1", "confirmed": "1"}, map[string]string{"tried": "1"}
	for _, c := range []struct {
		name, running string
		images        []map[string]string
		do            func(g *rig) // before
		said          []string
		confirmed     bool // slot b
		restart       bool
		failure       string // what is left for the other version
	}{
		{"one that is confirmed", "b", []map[string]string{good, good}, nil, []string{"info version own in slot b\n"}, true, false, ""},
		{"one that is well", "b", []map[string]string{good, tried}, nil,
			[]string{"version own in slot b is on trial\n", "version own in slot b is confirmed after "}, true, false, ""},
		{"one that forwards nothing", "b", []map[string]string{good, tried}, func(g *rig) { g.file("proc/sys/net/ipv4/ip_forward", "0\n") },
			[]string{"this version is not well: the kernel does not forward: ip_forward is \"0\"; restarting with the one before"}, false, true,
			"b 2 the kernel does not forward: ip_forward is \"0\""},
		{"one that lacks a port", "b", []map[string]string{good, tried}, func(g *rig) {
			require.NoError(g, g.r.state.put(map[string]string{statePorts: "ether1"}))
			g.network.state = func() ([]netcfg.LinkState, error) { return []netcfg.LinkState{{Name: "ether2", Present: true}}, nil }
		}, []string{"this version is not well: port ether1 is missing"}, false, true, "b 2 port ether1 is missing"},
		{"one whose ports cannot be listed", "b", []map[string]string{good, tried}, func(g *rig) {
			g.network.state = func() ([]netcfg.LinkState, error) { return nil, errFake }
		}, []string{"this version is not well: ports: refused by the test"}, false, true, "b 2 ports: refused by the test"},
		{"one whose service is ill", "b", []map[string]string{good, tried}, func(g *rig) { g.second.ill.Store(&errFake) },
			[]string{"this version is not well: refused by the test"}, false, true, "b 2 refused by the test"},
		{"one that cannot be confirmed", "b", []map[string]string{good, tried}, func(g *rig) {
			g.second.ill.Store(&errFake)
			time.AfterFunc(time.Second, func() {
				g.second.ill.Store(nil)
				g.noFile("dev/vda3")
			})
		}, []string{"this version is not well: states of the slots: "}, false, true, ""},
		{"the old one after a new one that failed", "a", []map[string]string{good, tried}, nil,
			[]string{"version v2 in slot b was tried and is not started again: it ended without a word", "info version own in slot a\n"}, false, false, ""},
		{"the old one, and why", "a", []map[string]string{good, tried}, func(g *rig) {
			require.NoError(g, g.r.state.put(map[string]string{stateFailure: "b 2 port ether1 is missing"}))
		}, []string{"version v2 in slot b was tried and is not started again: port ether1 is missing\n"}, false, false, "b 2 port ether1 is missing"},
		{"slots that cannot be read", "b", []map[string]string{good, tried}, func(g *rig) { g.noFile("dev/vda2") },
			[]string{"info version own in slot b\n", "slots: open slot "}, false, false, ""},
		{"slots that somebody else is at", "b", []map[string]string{good, tried}, func(g *rig) { g.r.upgrades.busy <- struct{}{} },
			[]string{"info version own in slot b\n", "slots: failure: an upgrade is under way"}, false, false, ""},
		{"another loader", "", []map[string]string{good, good}, nil,
			[]string{"version own, in no slot: the router was not started from flash, but by something else than its boot loader\n"}, true, false, ""},
		{"a small flash", "", nil, func(g *rig) { g.file("sys/class/mtd/mtd2/name", "image\n") }, []string{"version own, the one image of this flash\n"}, false, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := started(t)
				require.NoError(t, g.r.state.open(filepath.Join(g.r.root, "state")))
				g.slots(c.running, c.images...)
				if c.do != nil {
					c.do(g)
				}
				g.r.runTrial(t.Context())
				for _, said := range c.said {
					assert.Contains(t, g.log(), said)
				}
				if all, err := os.ReadFile(filepath.Join(g.r.root, "dev/vda3")); err == nil {
					assert.Equal(t, c.confirmed, strings.Contains(string(all[3*4096:]), "confirmed=1"))
				}
				if !strings.Contains(g.r.state.get(stateFailure), "states of the slots") {
					assert.Equal(t, c.failure, g.r.state.get(stateFailure))
				}
				if c.restart {
					assert.Equal(t, console.Reboot, <-g.requests)
				}
				assert.Empty(t, g.requests)
				time.Sleep(trialEnd + time.Second)
				assert.Equal(t, c.restart, g.machine.restarted.Load(), "an orderly restart that does not come is done without order")
			})
		})
	}
	t.Run("the end of the router", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t)
			g.slots("b", good, tried)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			g.r.runTrial(ctx)
			assert.Empty(t, g.requests)
			assert.NotContains(t, g.log(), "confirmed")
		})
	})
}

// /partitions print tells the slot that runs, and waits for an upgrade no longer than a
// person does; an upgrade and the list need no other lock.
func TestPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		_, err := g.run(&session.Session{}, "/partitions print")
		require.ErrorContains(t, err, "no flash: no partition is named")
		g.slots("b", map[string]string{"tried": "1", "confirmed": "1"}, map[string]string{"tried": "1"})
		all, err := g.r.slots()
		require.NoError(t, err)
		require.Len(t, all, 2)
		assert.Equal(t, []bool{false, true}, []bool{all[0].Running, all[1].Running})
		assert.Equal(t, []string{"v1", "own"}, []string{all[0].Version, all[1].Version})
		assert.Contains(t, g.must("/partitions print"), "on trial")

		require.NoError(t, g.r.upgrades.enter(time.Second))
		start := time.Now()
		_, err = g.run(&session.Session{}, "/partitions print")
		require.ErrorContains(t, err, "an upgrade is under way")
		assert.Equal(t, lookTime, time.Since(start))
		require.ErrorIs(t, g.r.upgradeTo(t.Context(), console.UpgradeArguments{From: "/x"}, nil), errUpgrading)
		// The end of the router waits for it.
		time.AfterFunc(10*time.Second, g.r.upgrades.leave)
		start = time.Now()
		g.r.EndUpgrade()
		assert.Equal(t, 10*time.Second, time.Since(start))
		require.ErrorIs(t, g.r.upgradeTo(t.Context(), console.UpgradeArguments{From: "/x"}, nil), errUpgrading, "there is none after it")

		g.file("sys/class/mtd/mtd2/name", "image\n")
		g.r.upgrades.leave()
		assert.Contains(t, g.must("/partitions print"), "own")
		_ = g.r.upgrades.enter(time.Second)
		g.r.upgrades.leave()
	})
	t.Run("of a disk that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t)
			g.slots("a", nil, nil)
			g.noFile("dev/vda1")
			_, err := g.run(&session.Session{}, "/partitions print")
			require.ErrorContains(t, err, "open slot ")
		})
	})
}

// Before an upgrade the router leaves for the new version which ports there are, and nothing
// of what failed before.
func TestKeepPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.r.keepPorts()
		assert.NotContains(t, g.log(), "warning", "there is no flash for it")
		require.NoError(t, g.r.state.open(filepath.Join(g.r.root, "state")))
		require.NoError(t, g.r.state.put(map[string]string{stateFailure: "b 2 x"}))
		g.r.keepPorts()
		assert.Equal(t, "ether1 ether2", g.r.state.get(statePorts))
		assert.Empty(t, g.r.state.get(stateFailure))
		g.network.state = func() ([]netcfg.LinkState, error) { return nil, errFake }
		g.r.keepPorts()
		assert.Contains(t, g.log(), "system,warning ports: refused by the test")
	})
}
