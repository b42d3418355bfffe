package router

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/upgrade"
)

func TestReadVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "version")
	b := board.Board{Name: "malta"}
	unknown := upgrade.Running{Board: "malta", Version: "unknown", Date: time.Unix(0, 0).UTC()}
	assert.Equal(t, unknown, readVersion(b, path))
	for text, want := range map[string]upgrade.Running{
		"v1-2-gabc 1700000000\n": {Board: "malta", Version: "v1-2-gabc", Date: time.Unix(1700000000, 0).UTC()},
		"v1":                     unknown,
		"v1 soon":                unknown,
		"":                       unknown,
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		assert.Equal(t, want, readVersion(b, path), "%q", text)
	}
}

// system makes a /sys with partitions, of a chip or a disk.
func system(t *testing.T, class string, names ...string) string {
	sys := t.TempDir()
	for i, name := range names {
		device, file, text := "mtd"+string(rune('0'+i)), "name", name
		if class == "block" {
			device, file, text = "vda"+string(rune('1'+i)), "uevent", "MAJOR=1\nPARTNAME="+name
		}
		dir := filepath.Join(sys, "class", class, device)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o600))
	}
	return sys
}

func TestFindPlaces(t *testing.T) {
	for _, c := range []struct {
		name, class, line, problem string
		partitions                 []string
		want                       places
	}{
		{"a small chip", "mtd", "", "", []string{"boot", "image"}, places{inPlace: "/dev/mtd1"}},
		{"slots of a chip", "mtd", "x postern.slot=b y", "", []string{"boot", "image-a", "image-b"},
			places{slots: [2]string{"/dev/mtd1", "/dev/mtd2"}, current: 1}},
		{"slots of a disk", "block", "postern.slot=a", "", []string{"image-a", "image-b", "postern-slots"},
			places{slots: [2]string{"/dev/vda1", "/dev/vda2"}, states: "/dev/vda3"}},
		{"another start", "mtd", "x", "was not started from flash", []string{"boot", "image-a", "image-b"}, places{}},
		{"a slot of which nobody knows", "mtd", "postern.slot=c", "was not started from flash", []string{"boot", "image-a", "image-b"}, places{}},
		{"one slot", "mtd", "postern.slot=a", "no partition is named image-b", []string{"image-a"}, places{}},
		{"no flash", "mtd", "", "no flash: no partition is named", nil, places{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := findPlaces(system(t, c.class, c.partitions...), "/dev", c.line)
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestImageOfFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	content := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // more than a pipe holds
	require.NoError(t, os.WriteFile(path, content, 0o600))
	sys := system(t, "block", "image-a")
	for path, problem := range map[string]string{
		filepath.Join(dir, "missing"): "missing: no such file or directory; disks here: /dev/vda1",
		dir:                           dir + " is neither a disk nor a file; disks here: ",
		"/dev/null":                   "/dev/null is neither a disk nor a file",
		"/proc/kmsg":                  "/proc/kmsg is empty",
	} {
		_, _, err := openImage(sys, path)
		require.ErrorContains(t, err, problem)
	}
	_, _, err := openImage(t.TempDir(), dir)
	require.ErrorContains(t, err, "disks here: none")

	copied := func(ctx context.Context, f *os.File, take int64) ([]byte, error) {
		in, body, err := os.Pipe()
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			err := fromFile(f)(ctx, body)
			body.Close()
			done <- err
		}()
		got, err := io.ReadAll(io.LimitReader(in, take))
		require.NoError(t, err)
		in.Close()
		return got, <-done
	}
	opened := func() *os.File {
		f, disk, err := openImage(sys, path)
		require.NoError(t, err)
		assert.False(t, disk)
		t.Cleanup(func() { f.Close() })
		return f
	}
	got, err := copied(t.Context(), opened(), 1<<30)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	got, err = copied(t.Context(), opened(), 1000)
	require.NoError(t, err, "who reads has enough")
	assert.Len(t, got, 1000)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	got, err = copied(ended, opened(), 1<<30)
	require.NoError(t, err)
	assert.Empty(t, got)
	torn := opened()
	require.NoError(t, torn.Close())
	_, err = copied(t.Context(), torn, 1<<30)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestSlotList(t *testing.T) {
	whole := upgrade.State{Whole: true, Sequence: 1, Tried: true, Confirmed: true, Length: 10, Version: "v1"}
	change := func(f func(*upgrade.State)) upgrade.State { s := whole; f(&s); return s }
	newer := func(tried, confirmed bool) upgrade.State {
		return change(func(s *upgrade.State) { s.Sequence, s.Tried, s.Confirmed, s.Version = 2, tried, confirmed, "v2" })
	}
	row := func(name string, running, active bool, version, state string) console.SlotState {
		s := console.SlotState{Name: name, Running: running, Active: active, Version: version, State: state}
		if state != "empty" {
			s.Size = 10
		}
		return s
	}
	for _, c := range []struct {
		name    string
		states  [2]upgrade.State
		current int
		want    []console.SlotState
	}{
		{"from the factory", [2]upgrade.State{whole, {}}, 0, []console.SlotState{row("a", true, true, "own", "confirmed"), row("b", false, false, "", "empty")}},
		{"written", [2]upgrade.State{whole, newer(false, false)}, 0, []console.SlotState{row("a", true, false, "own", "confirmed"), row("b", false, true, "v2", "untried")}},
		{"on trial", [2]upgrade.State{whole, newer(true, false)}, 1, []console.SlotState{row("a", false, true, "v1", "confirmed"), row("b", true, false, "own", "on trial")}},
		{"fallen back", [2]upgrade.State{whole, newer(true, false)}, 0, []console.SlotState{row("a", true, true, "own", "confirmed"), row("b", false, false, "v2", "failed")}},
		{"confirmed", [2]upgrade.State{whole, newer(true, true)}, 1, []console.SlotState{row("a", false, false, "v1", "confirmed"), row("b", true, true, "own", "confirmed")}},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, slotList(c.states, c.current, "own")) })
	}
	assert.Equal(t, -1, upgrade.Next([2]upgrade.State{}))
}
