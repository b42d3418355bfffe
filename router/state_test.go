package router

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/kmsg"
)

func TestKeptState(t *testing.T) {
	log, said := testLog(t)
	path := filepath.Join(t.TempDir(), "state")
	opened := func() *stateStore {
		k := &stateStore{log: log, values: map[string]string{}}
		require.NoError(t, k.open(path))
		t.Cleanup(k.close)
		return k
	}
	k := opened()
	assert.Empty(t, k.get(stateFailure))
	require.NoError(t, k.put(map[string]string{stateFailure: "b 5 two\nlines", statePorts: "ether1"}))
	require.NoError(t, k.put(map[string]string{statePorts: "ether1 ether2"}))
	k = opened()
	assert.Equal(t, "b 5 two lines", k.get(stateFailure))
	assert.Equal(t, "ether1 ether2", k.get(statePorts))

	none := &stateStore{log: log}
	require.Error(t, none.put(map[string]string{stateTime: "1"}))
	assert.False(t, none.kept())
	none.close()

	t.Run("a clock that is not behind stays", func(t *testing.T) {
		require.NoError(t, k.put(map[string]string{stateTime: "1700000000"}))
		never := func(time.Time) error { t.Error("the clock was set"); return nil }
		k.startClock(time.Unix(1700000001, 0), never)
		require.NoError(t, k.put(map[string]string{stateTime: "4000000000"})) // 2096
		k.startClock(time.Unix(1, 0), never)
		require.NoError(t, k.put(map[string]string{stateTime: "x"}))
		k.startClock(time.Unix(1, 0), never)
		assert.NotContains(t, said(), "the clock goes on")
	})
	t.Run("one that is behind goes on", func(t *testing.T) {
		require.NoError(t, k.put(map[string]string{stateTime: "1700000000"}))
		var set time.Time
		k.startClock(time.Unix(1, 0), func(at time.Time) error { set = at; return nil })
		assert.Equal(t, time.Unix(1700000000, 0), set)
		assert.Contains(t, said(), "the clock goes on from 2023-11-14 22:13:20, when it last ran")
		k.startClock(time.Unix(1, 0), func(time.Time) error { return errFake })
		assert.Contains(t, said(), "system,error refused by the test")
	})
	assert.Nil(t, times(kmsg.Clock{Now: time.Unix(5, 0)}), "a time that is not known is not kept")
	assert.Equal(t, map[string]string{"time": "1700000000"}, times(kmsg.Clock{Now: time.Unix(1700000000, 0), Set: true}))
}

func TestSplitSeed(t *testing.T) {
	old := bytes.Repeat([]byte{7}, seedSize)
	next, now := splitSeed(old)
	assert.Len(t, next, seedSize)
	assert.Len(t, now, seedSize)
	assert.NotEqual(t, next, now)
	assert.NotEqual(t, old, next)
	again, _ := splitSeed(next)
	assert.NotEqual(t, next, again)
	first, err := newSeed()
	require.NoError(t, err)
	second, err := newSeed()
	require.NoError(t, err)
	assert.NotEqual(t, first, second)
	b, err := hex.DecodeString(first)
	require.NoError(t, err)
	assert.Len(t, b, seedSize)
}

func TestOpenState(t *testing.T) {
	log, said := testLog(t)
	assert.False(t, openState(log, t.TempDir(), "/dev").kept())
	assert.Contains(t, said(), "time and random seed are not kept: no partition is named postern-state")
	// That was a warning each hour.
	openState(log, t.TempDir(), "/dev").keepTime(nil) // returns
	sys, dev := system(t, "block", board.StatePartition), t.TempDir()
	k := openState(log, sys, dev)
	assert.True(t, k.kept())
	k.close()
	assert.False(t, k.kept())
	require.EqualError(t, k.put(nil), "there is no flash for the state", "nothing is put after the end")
	k = openState(log, sys, dev)
	assert.Len(t, k.get(stateSeed), 2*seedSize)
	k.close()
	require.NoError(t, os.RemoveAll(filepath.Join(dev, "vda1")))
	require.NoError(t, os.Mkdir(filepath.Join(dev, "vda1"), 0o755))
	assert.False(t, openState(log, sys, dev).kept())
	assert.Contains(t, said(), "system,error state: ")
}

// The seed of a start is counted on once, and only if the next one is on flash.
func TestStartSeed(t *testing.T) {
	log, said := testLog(t)
	type added struct {
		seed []byte
		bits int
	}
	var got []added
	add := func(seed []byte, bits int) error { got = append(got, added{seed, bits}); return nil }
	none := &stateStore{log: log}
	none.startSeed(add)
	assert.Empty(t, got)

	m := &fakeMedium{}
	k := &stateStore{log: log, store: m, values: map[string]string{}}
	k.startSeed(add)
	require.Eventually(t, func() bool { return k.get(stateSeed) != "" }, time.Minute, time.Millisecond, "the first start leaves one")
	assert.Empty(t, got)
	first := k.get(stateSeed)
	k.startSeed(add)
	old, err := hex.DecodeString(first)
	require.NoError(t, err)
	next, now := splitSeed(old)
	assert.Equal(t, []added{{now, 256}}, got)
	assert.Equal(t, hex.EncodeToString(next), k.get(stateSeed))
	m.err = errFake
	k.startSeed(add)
	assert.Zero(t, got[1].bits)
	assert.Contains(t, said(), "random seed: it stays as it was, and is not counted on: state: refused by the test")
	k.startSeed(func([]byte, int) error { return errFake })
	assert.Contains(t, said(), "system,warning random seed: refused by the test")
	k.values[stateSeed] = ""
	k.startSeed(add)
	require.Eventually(t, func() bool { return strings.Contains(said(), "warning random seed: state: refused by the test") }, time.Minute, time.Millisecond)
	k.close()
	assert.Contains(t, said(), "system,error state: refused by the test")
}

// The time is written now and then, if it is known.
func TestKeepTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := testLog(t)
		k := &stateStore{log: log, store: &fakeMedium{}, values: map[string]string{}}
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() { k.keepTime(stop); close(done) }()
		time.Sleep(timeInterval + time.Second)
		synctest.Wait()
		assert.Empty(t, k.get(stateTime), "the bubble begins in 2000, which no router knows to be")
		time.Sleep(21 * 366 * 24 * time.Hour)
		synctest.Wait()
		assert.NotEmpty(t, k.get(stateTime))
		k.mu.Lock()
		k.store.(*fakeMedium).err = errFake
		k.mu.Unlock()
		time.Sleep(timeInterval)
		synctest.Wait()
		assert.Contains(t, said(), "system,warning state: refused by the test")
		close(stop)
		<-done
	})
}
