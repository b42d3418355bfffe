package router

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A set has what the kernel of each board has put into it, and nothing else.
func TestInSet(t *testing.T) {
	for _, c := range []struct {
		long  int
		order binary.ByteOrder
		at    int // the byte of bit 0x198, which is bit 0 of it
	}{
		{4, binary.LittleEndian, 51}, {4, binary.BigEndian, 48},
		{8, binary.LittleEndian, 51}, {8, binary.BigEndian, 52},
	} {
		t.Run(fmt.Sprintf("%d bytes, %v", c.long, c.order), func(t *testing.T) {
			set := make([]byte, keyBytes)
			for i := range 8 * keyBytes {
				require.False(t, inSet(set, i, c.long, c.order), i)
			}
			set[c.at] = 1
			for i := range 8*keyBytes + 200 {
				require.Equal(t, i == keyRestart, inSet(set, i, c.long, c.order), i)
			}
		})
	}
}

func TestAnyPressed(t *testing.T) {
	dir := t.TempDir()
	pattern := filepath.Join(dir, "event*")
	set := make([]byte, keyBytes)
	keys := func(path string) ([]byte, error) {
		if filepath.Base(path) == "event0" {
			return nil, errors.New("it has just gone")
		}
		return set, nil
	}
	assert.False(t, anyPressed(pattern, keyRestart, keys), "no device")
	for _, name := range []string{"event0", "event1"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	assert.False(t, anyPressed(pattern, keyRestart, keys), "nothing is pressed")
	for i := range set {
		set[i] = 0xff
	}
	assert.True(t, anyPressed(pattern, keyRestart, keys))
	_, err := pressedKeys(filepath.Join(dir, "event1"))
	assert.ErrorContains(t, err, "which keys are pressed", "a file is no input device")
	_, err = pressedKeys(filepath.Join(dir, "event2"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestResetHeld(t *testing.T) {
	for _, c := range []struct {
		name string
		held time.Duration
		want bool
		said string
	}{
		{"not at all", 0, false, ""},
		{"too short", resetHold - time.Second, false, "the reset button was let go"},
		{"long enough", resetHold, true, "the reset button is held: 5s more for a start with the defaults"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, said := testLog(t)
				start := time.Now()
				assert.Equal(t, c.want, resetHeld(log, func() bool { return time.Since(start) < c.held }))
				assert.Contains(t, said(), c.said)
				assert.Equal(t, c.held, time.Since(start))
			})
		})
	}
}
