package router

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/postern-router/postern/kmsg"
)

// kernelTable is a table, a cache or a queue of the kernel that packets fill. docs/MEMORY.md has
// all of them, with what each can take on a machine with 32 MB.
type kernelTable struct {
	// files are below the root folder, a * standing for each device. Those of a device that
	// comes later have the value of "default" if there is such, and else what sizeQueues sets.
	files string
	// One unit for each so many bytes of memory, but no less than low and no more than high.
	bytesPerUnit, low, high uint64
}

// kernelTables are in the order in which they are written. The kernel refuses a high threshold
// that is below the low one.
//
// The kernel's own values are for servers: with 32 MB, fragments and packets that wait for ARP
// alone may take all that there is.
var kernelTables = []kernelTable{
	// Tracked connections, in entries. SOCKS takes two for each of its 500, and as many for those
	// that have ended.
	{"proc/sys/net/netfilter/nf_conntrack_max", 8 << 10, 4096, 1 << 18},
	// The lists that these are looked for in, each of which is in two: lists of four when it is
	// full. The kernel has 1,024 lists on 32 MB, and with more memory so few that each packet looks
	// through 32 connections.
	{"proc/sys/net/netfilter/nf_conntrack_buckets", 16 << 10, 2048, 1 << 17},
	// Connections that FTP's helper expects, one for each control connection: the kernel has 16 on 32 MB, which a single host
	// could hold for as long as it likes.
	{"proc/sys/net/netfilter/nf_conntrack_expect_max", 256 << 10, 128, 2048},
	// Fragments of datagrams that are not complete, in bytes. They are put together ahead of
	// every rule, whoever has sent them (CERT VU#641765).
	{"proc/sys/net/ipv4/ipfrag_low_thresh", 170, 192 << 10, 3 << 20},
	{"proc/sys/net/ipv4/ipfrag_high_thresh", 128, 256 << 10, 4 << 20},
	// How long they wait for the others, in seconds, as RFC 791, section 3.2 recommends. Whoever
	// fills the room must do so again as often; the kernel has 30.
	{"proc/sys/net/ipv4/ipfrag_time", 1, 15, 15},
	// What is known of other hosts, such as how many ICMP errors they were sent, in hosts.
	{"proc/sys/net/ipv4/inet_peer_threshold", 64 << 10, 512, 1 << 16},
	// Neighbours (ARP), in entries: how many are never removed, are removed when older than 5
	// seconds, and how many there can be.
	{"proc/sys/net/ipv4/neigh/default/gc_thresh1", 512 << 10, 64, 2048},
	{"proc/sys/net/ipv4/neigh/default/gc_thresh2", 256 << 10, 128, 4096},
	{"proc/sys/net/ipv4/neigh/default/gc_thresh3", 128 << 10, 256, 8192},
	// Packets that wait for the answer of a neighbour, in bytes for each: a long one or some short
	// ones. Whoever sends to each address of a network that nobody has fills it for all.
	{"proc/sys/net/ipv4/neigh/*/unres_qlen_bytes", 1, 4096, 4096},
	// Connections that a program has not accepted yet, in connections for each port that it listens
	// on. Go's net.Listen asks for all that there may be, and the kernel's 4096 may take 10 MB.
	{"proc/sys/net/core/somaxconn", 256 << 10, 128, 4096},
	// What a program has not read yet of a socket that is not of TCP, in bytes for each. The
	// kernel's own is 160 KiB.
	{"proc/sys/net/core/rmem_default", 512, 64 << 10, 208 << 10},
	portQueues,
}

// portQueues are packets that wait until a port can send them, in packets of each of three priorities.
var portQueues = kernelTable{"sys/class/net/*/tx_queue_len", 128 << 10, 256, 1000}

// kernelSwitches are parameters of the kernel that are the same on each machine.
var kernelSwitches = []struct{ file, value string }{
	// By itself the kernel drops lines of a process that logs many.
	{"proc/sys/kernel/printk_devkmsg", "on"},
	// Addresses of the kernel help those who attack it: only zeros are shown, and the log only to
	// who may read it (Documentation/admin-guide/sysctl/kernel.rst).
	{"proc/sys/kernel/kptr_restrict", "2"},
	{"proc/sys/kernel/dmesg_restrict", "1"},
	// A kernel that has found a fault in itself starts anew (panic= of the command line says when)
	// instead of going on with locks that nobody releases, or under who caused the fault.
	{"proc/sys/kernel/panic_on_oops", "1"},
	// When memory is in pieces the kernel by itself keeps as much as a block more free for a while, which is 4 MiB on ARM and is of the
	// processes: with 64 MiB it ended one after the other for that, sshd, dnsd, socksd.
	{"proc/sys/vm/watermark_boost_factor", "0"},
	// Each processor holds pages for itself, which count neither as free nor as available: by itself up to an 8th of the memory, all processors
	// together, and a single one gives them back only for want of memory (decay_pcp_high in mm/vmstat.c is for several). What
	// a process gave back that the kernel had ended stayed there, and another one was ended. This is the part that they hold, 0.1 MB of 32.
	{"proc/sys/vm/percpu_pagelist_high_fraction", "256"},
	// Packets are allocated from single pages instead of blocks of 32 kB: a block is freed only
	// when its last packet has reached a slow receiver.
	{"proc/sys/net/core/high_order_alloc_disable", "1"},
	// Processes of group 0, as PID 1 is, may open ping sockets.
	{"proc/sys/net/ipv4/ping_group_range", "0 0"},
}

// size is the table's size on a machine with that much memory in bytes.
func (t kernelTable) size(memory uint64) uint64 {
	return min(max(memory/t.bytesPerUnit, t.low), t.high)
}

// SetKernelParameters bounds what packets can make the kernel keep, by the memory of the machine,
// and sets the kernel's switches. root is the folder of proc and sys. What cannot be set is logged.
func SetKernelParameters(log *kmsg.Logger, root string) {
	for _, s := range kernelSwitches {
		if err := writeParameter(filepath.Join(root, s.file), s.value); err != nil {
			log.Printf(kmsg.Warning, "set a parameter of the kernel: %v", err)
		}
	}
	sizeTables(log, root, kernelTables...)
}

// sizeQueues bounds what waits for ports: the kernel gives one that was plugged in since the start 1,000 packets.
func sizeQueues(log *kmsg.Logger, root string) { sizeTables(log, root, portQueues) }

// sizeTables bounds tables by the memory of the machine. root is the folder of proc and sys. What cannot be set is logged.
func sizeTables(log *kmsg.Logger, root string, tables ...kernelTable) {
	text, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err == nil {
		var memory uint64
		if memory, err = parseMeminfo(string(text), "MemTotal"); err == nil {
			err = setSizes(root, memory, tables)
		}
	}
	if err != nil {
		log.Printf(kmsg.Warning, "size the kernel's tables: %v", err)
	}
}

func setSizes(root string, memory uint64, tables []kernelTable) error {
	var failed []error
	for _, t := range tables {
		files, err := filepath.Glob(filepath.Join(root, t.files))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("%s: %w", t.files, fs.ErrNotExist)
		}
		failed = append(failed, err)
		for _, file := range files {
			failed = append(failed, writeParameter(file, strconv.FormatUint(t.size(memory), 10)))
		}
	}
	return errors.Join(failed...)
}

// writeParameter writes a parameter of the kernel. It creates no file.
func writeParameter(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(value + "\n"); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
