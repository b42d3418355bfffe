package firewall

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestHangingProgram has programs that never end, each with a child that has their
// pipes, and checks that every operation ends, says why it failed, and works once the
// programs do.
func TestHangingProgram(t *testing.T) {
	t.Parallel()
	newRouter(t)
	dir := t.TempDir()
	hang := filepath.Join(dir, "hang")
	for _, name := range []string{"", "-restore"} {
		real, err := exec.LookPath("iptables-legacy" + name)
		require.NoError(t, err, "install the Debian package iptables")
		script := fmt.Sprintf("#!/bin/sh\n[ -e %s ] || exec %s \"$@\"\necho complaint >&2\nsleep 1000\n", hang, real)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables"+name), []byte(script), 0o755))
	}
	one := Opening{Port: 4000}
	for _, op := range []struct {
		name string
		do   func(*Firewall) error
		want string
	}{
		{"lock", (*Firewall).Lock, "firewall: lock: iptables-restore: complaint; "},
		{"apply", func(f *Firewall) error { return f.Apply(Config{}) }, "firewall: apply: "},
		{"counters", func(f *Firewall) error { _, err := f.Counters(Filter); return err }, "firewall: counters: list filter: "},
		{"open", func(f *Firewall) error { return openFirewall(f, Opening{Port: 4001}) }, "firewall: close 0 and open 1 openings: "},
		{"close", func(f *Firewall) error { return closeFirewall(f, one) }, "firewall: close 1 and open 0 openings: "},
	} {
		t.Run(op.name, func(t *testing.T) {
			newRouter(t)
			f := newFirewall(t, filepath.Join(dir, "iptables"))
			require.NoError(t, f.Apply(full))
			require.NoError(t, openFirewall(f, one))
			before := saveTables(t, "iptables-legacy")

			require.NoError(t, os.WriteFile(hang, nil, 0o600))
			f.processTime = 300 * time.Millisecond
			err := op.do(f)
			assert.ErrorContains(t, err, op.want)
			assert.ErrorContains(t, err, "killed, as it had not ended after 300ms")

			require.NoError(t, os.Remove(hang))
			f.processTime = processTime
			assert.Equal(t, before, saveTables(t, "iptables-legacy"), "nothing has changed")
			require.NoError(t, op.do(f))
			require.NoError(t, f.Apply(full))
			_, err = f.Counters(Filter)
			assert.NoError(t, err)
		})
	}
}

// TestOpeningsWaitForNoProcess asks for the openings while a program hangs.
func TestOpeningsWaitForNoProcess(t *testing.T) {
	t.Parallel()
	newRouter(t)
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	require.NoError(t, unix.Mkfifo(started, 0o600))
	for _, name := range []string{"iptables", "iptables-restore"} {
		script := "#!/bin/sh\necho >" + started + "\nsleep 1000\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	f := newFirewall(t, filepath.Join(dir, "iptables"))
	locked := make(chan error)
	go func() { locked <- f.Lock() }()
	_, err := os.ReadFile(started) // waits until the program runs
	require.NoError(t, err)
	assert.Empty(t, f.Openings())
	select {
	case <-locked:
		t.Error("Openings has waited for the end of the program")
	default:
	}
	killProgram(f.restoreProgram) // so that the test does not wait for processTime
	assert.ErrorContains(t, <-locked, "signal: killed")
}

// TestCountGivesWay has a count hang, which must not hold up a change, and is made again.
func TestCountGivesWay(t *testing.T) {
	t.Parallel()
	router := newRouter(t)
	dir := t.TempDir()
	hang, started := filepath.Join(dir, "hang"), filepath.Join(dir, "started")
	require.NoError(t, unix.Mkfifo(started, 0o600))
	for name, script := range map[string]string{
		"":         "#!/bin/sh\n[ -e " + hang + " ] || exec iptables-legacy \"$@\"\nrm " + hang + "\necho >" + started + "\nsleep 1000\n",
		"-restore": "#!/bin/sh\nexec iptables-legacy-restore \"$@\"\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables"+name), []byte(script), 0o755))
	}
	f := newFirewall(t, filepath.Join(dir, "iptables"))
	require.NoError(t, f.Apply(full))
	require.NoError(t, os.WriteFile(hang, nil, 0o600))

	counted := make(chan error)
	var filter []Counter
	go func() {
		counted <- router.Do(func() (err error) {
			filter, err = f.Counters(Filter)
			return err
		})
	}()
	_, err := os.ReadFile(started) // waits until the program hangs
	require.NoError(t, err)
	require.NoError(t, f.Apply(full))
	require.NoError(t, <-counted)
	assert.Len(t, filter, len(full.Filter))
}

// TestKilledBetweenTables kills iptables-restore when it has swapped one table and not
// the other: the old rules must come back.
func TestKilledBetweenTables(t *testing.T) {
	t.Parallel()
	newRouter(t)
	dir := t.TempDir()
	hang := filepath.Join(dir, "hang")
	for name, script := range map[string]string{
		"": "#!/bin/sh\nexec iptables-legacy \"$@\"\n",
		// Only the tables up to the second COMMIT, the filter table's: then no more comes.
		"-restore": `#!/bin/sh
[ -e ` + hang + ` ] || exec iptables-legacy-restore "$@"
rm ` + hang + `
sed '/COMMIT/{x;s/^/x/;/xx/{x;q};x}' | iptables-legacy-restore "$@"
sleep 1000
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables"+name), []byte(script), 0o755))
	}
	f := newFirewall(t, filepath.Join(dir, "iptables"))
	require.NoError(t, f.Apply(full))
	require.NoError(t, os.WriteFile(hang, nil, 0o600))
	f.processTime = 5 * time.Second // which bounds those that put the old rules back too
	err := f.Apply(Config{NAT: []Rule{{Chain: "dstnat", Action: "passthrough"}}})
	require.ErrorContains(t, err, "killed, as it had not ended after 5s")
	assert.NotContains(t, err.Error(), "putting the old rules back")
	assert.Equal(t, fullSaved, saveTables(t, "iptables-legacy"))
}

// TestLockOfAnother has another program hold xtables' lock.
func TestLockOfAnother(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	require.NoError(t, f.Lock())
	f.lockSeconds = 1
	lock, err := os.OpenFile("/run/xtables.lock", os.O_RDWR, 0)
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	for _, do := range []func() error{
		f.Lock,
		func() error { return f.Apply(full) },
		func() error { return openFirewall(f, Opening{Port: 4000}) },
	} {
		assert.ErrorContains(t, do(), "holding the xtables lock")
	}
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	assert.NoError(t, f.Apply(full))
}

// TestKillProgram kills a program that is making processes: none of them is left. Each
// holds the pipe from which this test reads.
func TestKillProgram(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "forks")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nfor i in $(seq 100); do echo started; sleep 1000 & done\nwait\n"), 0o755))
	for range 5 {
		cmd := exec.Command("/bin/sh", program)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 8))
		require.NoError(t, err)
		killProgram(program)
		_, err = io.Copy(io.Discard, out) // until the last of them has ended
		require.NoError(t, err)
		require.Error(t, cmd.Wait())
	}
}
