package firewall

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHalfAChange has the kernel lack memory from the moment on when a change of two tables has reached the first one: all of it is
// undone.
func TestHalfAChange(t *testing.T) {
	t.Parallel()
	newRouter(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "state") // "half" until a script was carried out by half, then "none" for one that is not at all
	for name, script := range map[string]string{
		"iptables": "#!/bin/sh\nexec %[1]s \"$@\"\n",
		"iptables-restore": `#!/bin/sh
case $(cat %[2]s 2>/dev/null) in
half)
	echo none >%[2]s
	awk '{ print } /^COMMIT/ && ++n == 2 { exit }' | %[1]s "$@" # a rehearsal, and filter
	echo "iptables-restore: line 9999 failed" >&2
	exit 1;;
none)
	rm %[2]s
	echo "iptables-restore: line 1 failed" >&2
	exit 1;;
esac
exec %[1]s "$@"
`,
	} {
		real, err := exec.LookPath("iptables-legacy" + name[len("iptables"):])
		require.NoError(t, err, "install the Debian package iptables")
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, script+"# %[1]s %[2]s\n", real, state), 0o755))
	}
	f := newFirewall(t, filepath.Join(dir, "iptables"))
	require.NoError(t, f.Apply(full))
	before := saveTables(t, "iptables-legacy")
	next := full
	next.Filter = []Rule{{Chain: "input", Action: "accept"}}
	next.NAT = []Rule{{Chain: "srcnat", Action: "masquerade", SrcAddress: addresses("10.0.0.0/8")}}
	require.True(t, f.known())
	require.NoError(t, os.WriteFile(state, []byte("half"), 0o600))
	require.ErrorContains(t, f.Apply(next), "the kernel refused it")
	require.NoFileExists(t, state)
	assert.Equal(t, before, saveTables(t, "iptables-legacy"), "the old rules stand")
	require.NoError(t, f.Apply(next))

	f.restoreProgram = filepath.Join(dir, "refuses")
	require.NoError(t, os.WriteFile(f.restoreProgram, []byte("#!/bin/sh\nexit 1\n"), 0o755))
	require.ErrorIs(t, f.Apply(full), ErrUnsure)
	f.restoreProgram = filepath.Join(dir, "iptables-restore")
	require.NoError(t, f.Apply(full))
	assert.Equal(t, before, saveTables(t, "iptables-legacy"))
}
