package router

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kernelFiles is a folder with a file for each parameter, and two devices.
func kernelFiles(t *testing.T) (root string) {
	root = t.TempDir()
	write := func(file string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte("the kernel's\n"), 0o644))
	}
	for _, s := range kernelSwitches {
		write(filepath.Join(root, s.file))
	}
	for _, table := range kernelTables {
		for _, device := range []string{"default", "eth0"} {
			write(filepath.Join(root, strings.ReplaceAll(table.files, "*", device)))
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
		{"lists of connections, 32 MB", 24_500, "proc/sys/net/netfilter/nf_conntrack_buckets", "2048"},
		{"expected connections, 32 MB", 24_500, "proc/sys/net/netfilter/nf_conntrack_expect_max", "128"},
		{"lists of connections, 1 GB", 1 << 20, "proc/sys/net/netfilter/nf_conntrack_buckets", "65536"},
		{"fragments, 32 MB", 24_500, "proc/sys/net/ipv4/ipfrag_high_thresh", "262144"},
		{"fragments, 128 MB", 128 << 10, "proc/sys/net/ipv4/ipfrag_high_thresh", "1048576"},
		{"fragments, 8 GB", 8 << 20, "proc/sys/net/ipv4/ipfrag_high_thresh", "4194304"},
		{"fragments, low", 24_500, "proc/sys/net/ipv4/ipfrag_low_thresh", "196608"},
		{"fragments, time", 8 << 20, "proc/sys/net/ipv4/ipfrag_time", "15"},
		{"not accepted, 32 MB", 24_500, "proc/sys/net/core/somaxconn", "128"},
		{"not accepted, 512 MB", 512 << 10, "proc/sys/net/core/somaxconn", "2048"},
		{"not read, 32 MB", 24_500, "proc/sys/net/core/rmem_default", "65536"},
		{"not read, 1 GB", 1 << 20, "proc/sys/net/core/rmem_default", "212992"},
		{"neighbours, 32 MB", 24_500, "proc/sys/net/ipv4/neigh/default/gc_thresh3", "256"},
		{"neighbours, 512 MB", 512 << 10, "proc/sys/net/ipv4/neigh/default/gc_thresh3", "4096"},
		{"a device's neighbours", 24_500, "proc/sys/net/ipv4/neigh/eth0/unres_qlen_bytes", "4096"},
		{"a later device's", 8 << 20, "proc/sys/net/ipv4/neigh/default/unres_qlen_bytes", "4096"},
		{"a port's queue", 24_500, "sys/class/net/eth0/tx_queue_len", "256"},
		{"hosts", 24_500, "proc/sys/net/ipv4/inet_peer_threshold", "512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := kernelFiles(t)
			require.NoError(t, setSizes(root, c.memory<<10, kernelTables))
			got, err := os.ReadFile(filepath.Join(root, c.file))
			require.NoError(t, err)
			written, _, _ := strings.Cut(string(got), "\n")
			assert.Equal(t, c.want, written)
		})
	}
}

// A card that is plugged in later waits for no more than the others do.
func TestLaterPort(t *testing.T) {
	log, said := testLog(t)
	root := kernelFiles(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 24500 kB\n"), 0o644))
	later := filepath.Join(root, "sys/class/net/eth7/tx_queue_len")
	require.NoError(t, os.MkdirAll(filepath.Dir(later), 0o755))
	require.NoError(t, os.WriteFile(later, []byte("1000\n"), 0o644))
	untouched := filepath.Join(root, "proc/sys/net/ipv4/ipfrag_time")
	sizeQueues(log, root)
	for file, want := range map[string]string{later: "256\n", untouched: "the kernel's\n"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(text), want), "%s: %q", file, text)
	}
	assert.Empty(t, said())
}

func tableOf(t *testing.T, suffix string) kernelTable {
	t.Helper()
	i := slices.IndexFunc(kernelTables, func(k kernelTable) bool { return strings.HasSuffix(k.files, suffix) })
	require.GreaterOrEqual(t, i, 0, suffix)
	return kernelTables[i]
}

// What the neighbours' queues can take together stays below an eighth of the memory.
func TestNeighboursFitMemory(t *testing.T) {
	size := func(suffix string, memory uint64) uint64 { return tableOf(t, suffix).size(memory) }
	for memory := uint64(24 << 20); memory < 16<<30; memory *= 2 {
		assert.Less(t, size("gc_thresh3", memory)*size("unres_qlen_bytes", memory), memory/8)
	}
}

// A list of connections is short on each machine, also when the table is full.
func TestConnectionsAreFound(t *testing.T) {
	size := func(suffix string, memory uint64) uint64 { return tableOf(t, suffix).size(memory) }
	for memory := uint64(24 << 20); memory < 16<<30; memory *= 2 {
		const directions = 2
		assert.LessOrEqual(t, size("nf_conntrack_max", memory)*directions/size("nf_conntrack_buckets", memory), uint64(4))
	}
}

// Nobody but root learns where the kernel is, and a kernel with a fault starts anew.
func TestKernelSwitches(t *testing.T) {
	log, said := testLog(t)
	root := kernelFiles(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 24500 kB\n"), 0o644))
	SetKernelParameters(log, root)
	assert.NotContains(t, said(), "warning")
	for file, want := range map[string]string{"kptr_restrict": "2\n", "dmesg_restrict": "1\n", "panic_on_oops": "1\n", "printk_devkmsg": "on\n"} {
		text, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel", file))
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(text), want), "%s: %q", file, text)
	}
	for file, want := range map[string]string{"watermark_boost_factor": "0\n", "percpu_pagelist_high_fraction": "256\n"} {
		text, err := os.ReadFile(filepath.Join(root, "proc/sys/vm", file))
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(text), want), "%s: %q", file, text)
	}
	require.NoError(t, os.Remove(filepath.Join(root, "proc/sys/kernel/kptr_restrict")))
	SetKernelParameters(log, root)
	assert.Contains(t, said(), "system,warning set a parameter of the kernel: open ")
}

func TestTablesThatAreMissing(t *testing.T) {
	log, said := testLog(t)
	SetKernelParameters(log, t.TempDir())
	assert.Contains(t, said(), "system,warning size the kernel's tables: open ")

	root := kernelFiles(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 24500 kB\n"), 0o644))
	missing := filepath.Join(root, "proc/sys/net/ipv4/ipfrag_high_thresh")
	require.NoError(t, os.Remove(missing))
	SetKernelParameters(log, root)
	assert.Contains(t, said(), "system,warning size the kernel's tables: proc/sys/net/ipv4/ipfrag_high_thresh: file does not exist")
	assert.NoFileExists(t, missing)
	// The others are set all the same.
	text, err := os.ReadFile(filepath.Join(root, "sys/class/net/eth0/tx_queue_len"))
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(text), "256\n"), "%q", text)
}
