package firewall

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
)

func TestClamp(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) { testClamp(t, program) })
}

// TestClampKilled kills iptables-restore when it has written the table mangle: what was in force before is put back.
func TestClampKilled(t *testing.T) {
	t.Parallel()
	newRouter(t)
	dir := t.TempDir()
	hang, started := filepath.Join(dir, "hang"), filepath.Join(dir, "started")
	require.NoError(t, unix.Mkfifo(started, 0o600))
	for name, script := range map[string]string{
		"":         "#!/bin/sh\nexec iptables-legacy \"$@\"\n",
		"-restore": "#!/bin/sh\n[ -e " + hang + " ] || exec iptables-legacy-restore \"$@\"\niptables-legacy-restore \"$@\"\necho >" + started + "\nsleep 1000\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables"+name), []byte(script), 0o755))
	}
	f := newFirewall(t, filepath.Join(dir, "iptables"))
	require.NoError(t, f.Apply(Config{}))
	require.NoError(t, os.WriteFile(hang, nil, 0o600))
	killed := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(started) // waits until the table is written
		_ = os.Remove(hang)
		killProgram(f.restoreProgram)
		killed <- err
	}()
	err := f.Apply(Config{Clamp: []string{"wan"}})
	select {
	case err := <-killed:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		require.Fail(t, "the table mangle was not written", "%v", err)
	}
	require.ErrorContains(t, err, "iptables-restore: signal: killed")
	assert.NotContains(t, save(t, "iptables-legacy", "-t", "mangle"), "-j TCPMSS", "it was put back")
	require.NoError(t, f.Apply(Config{Clamp: []string{"wan"}}))
	assert.Contains(t, save(t, "iptables-legacy", "-t", "mangle"), "-j TCPMSS")
	require.NoError(t, f.Apply(Config{}))
	assert.NotContains(t, save(t, "iptables-legacy", "-t", "mangle"), "-j TCPMSS")
}

func testClamp(t *testing.T, program string) {
	f := newFirewall(t, program)
	rules := func() string {
		var all []string
		for line := range strings.Lines(save(t, program, "-t", "mangle")) {
			if strings.HasPrefix(line, "-A ") {
				all = append(all, strings.TrimSpace(line))
			}
		}
		return strings.Join(all, "\n")
	}
	require.NoError(t, f.Apply(Config{Clamp: []string{"pppoe-out1", "wan"}}))
	clamped := `-A FORWARD -i pppoe-out1 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -o pppoe-out1 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -i wan -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -o wan -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu`
	assert.Equal(t, clamped, rules())
	filter, nat, err := bothCounters(f)
	require.NoError(t, err)
	assert.Empty(t, filter)
	assert.Empty(t, nat)

	// What is refused leaves all as it was.
	assert.Error(t, f.Apply(Config{Clamp: []string{"-j DROP"}}))
	restore := f.restoreProgram
	f.restoreProgram = "/no-program"
	assert.Error(t, f.Apply(Config{Clamp: []string{"other"}}))
	f.restoreProgram = restore
	assert.Equal(t, clamped, rules())
	// So does what is refused after the table mangle has been written.
	err = f.apply(Config{Clamp: []string{"other"}, NAT: []Rule{{Chain: "dstnat", Action: "drop"}}})
	require.ErrorContains(t, err, "nat rule 0 (chain=dstnat action=drop): ")
	assert.NotContains(t, err.Error(), "putting the old table mangle back")
	assert.Equal(t, clamped, rules())

	require.NoError(t, f.Lock())
	assert.Equal(t, clamped, rules(), "nothing passes anyway")
	require.NoError(t, f.Apply(Config{Clamp: []string{"wan"}}))
	assert.Equal(t, 2, strings.Count(rules(), "-A "))
	require.NoError(t, f.Apply(Config{}))
	assert.Empty(t, rules())
}
