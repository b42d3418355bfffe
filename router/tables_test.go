package router

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kernelFiles is a folder with a file for each table, and two devices.
func kernelFiles(t *testing.T) (root string) {
	root = t.TempDir()
	for _, table := range kernelTables {
		for _, device := range []string{"default", "eth0"} {
			file := filepath.Join(root, strings.ReplaceAll(table.files, "*", device))
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte("the kernel's\n"), 0o644))
		}
	}
	return root
}

func TestTableSizes(t *testing.T) {
	for _, c := range []struct {
		name   string
		memory uint64 // MemTotal in KiB
		file   string
		want   string
	}{
		// What is left of 32 MB behind the kernel.
		{"connections, 32 MB", 24_500, "proc/sys/net/netfilter/nf_conntrack_max", "4096"},
		{"connections, all of 32 MB", 32 << 10, "proc/sys/net/netfilter/nf_conntrack_max", "4096"},
		{"connections, 1 GB", 1 << 20, "proc/sys/net/netfilter/nf_conntrack_max", "131072"},
		{"connections, 8 GB", 8 << 20, "proc/sys/net/netfilter/nf_conntrack_max", "262144"},
		{"fragments, 32 MB", 24_500, "proc/sys/net/ipv4/ipfrag_high_thresh", "262144"},
		{"fragments, 128 MB", 128 << 10, "proc/sys/net/ipv4/ipfrag_high_thresh", "1048576"},
		{"fragments, 8 GB", 8 << 20, "proc/sys/net/ipv4/ipfrag_high_thresh", "4194304"},
		{"fragments, low", 24_500, "proc/sys/net/ipv4/ipfrag_low_thresh", "196608"},
		{"neighbours, 32 MB", 24_500, "proc/sys/net/ipv4/neigh/default/gc_thresh3", "256"},
		{"neighbours, 512 MB", 512 << 10, "proc/sys/net/ipv4/neigh/default/gc_thresh3", "4096"},
		{"a device's neighbours", 24_500, "proc/sys/net/ipv4/neigh/eth0/unres_qlen_bytes", "4096"},
		{"a later device's", 8 << 20, "proc/sys/net/ipv4/neigh/default/unres_qlen_bytes", "4096"},
		{"a port's queue", 24_500, "sys/class/net/eth0/tx_queue_len", "256"},
		{"hosts", 24_500, "proc/sys/net/ipv4/inet_peer_threshold", "512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := kernelFiles(t)
			require.NoError(t, sizeTables(root, c.memory<<10))
			got, err := os.ReadFile(filepath.Join(root, c.file))
			require.NoError(t, err)
			written, _, _ := strings.Cut(string(got), "\n")
			assert.Equal(t, c.want, written)
		})
	}
}

// What the neighbours' queues can take together stays below an eighth of the memory.
func TestNeighboursFitMemory(t *testing.T) {
	size := func(suffix string, memory uint64) uint64 {
		for _, table := range kernelTables {
			if strings.HasSuffix(table.files, suffix) {
				return table.size(memory)
			}
		}
		t.Fatalf("no table %s", suffix)
		return 0
	}
	for memory := uint64(24 << 20); memory < 16<<30; memory *= 2 {
		assert.Less(t, size("gc_thresh3", memory)*size("unres_qlen_bytes", memory), memory/8)
	}
}

func TestTablesThatAreMissing(t *testing.T) {
	log, said := testLog(t)
	SizeKernelTables(log, t.TempDir())
	assert.Contains(t, said(), "system,warning size the kernel's tables: open ")

	root := kernelFiles(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 24500 kB\n"), 0o644))
	missing := filepath.Join(root, "proc/sys/net/ipv4/ipfrag_high_thresh")
	require.NoError(t, os.Remove(missing))
	SizeKernelTables(log, root)
	assert.Contains(t, said(), "system,warning size the kernel's tables: proc/sys/net/ipv4/ipfrag_high_thresh: file does not exist")
	assert.NoFileExists(t, missing)
	// The others are set all the same.
	text, err := os.ReadFile(filepath.Join(root, "sys/class/net/eth0/tx_queue_len"))
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(text), "256\n"), "%q", text)
}
