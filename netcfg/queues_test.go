package netcfg

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// tc runs tc(8) and returns what it prints.
func tc(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("tc", strings.Fields(args)...).CombinedOutput()
	require.NoError(t, err, "tc %s: %s", args, out)
	return string(out)
}

// queuesShown are the queues and classes of a link as tc(8) prints them, without what the kernel chooses.
func queuesShown(t *testing.T, link string) string {
	t.Helper()
	var lines []string
	text := tc(t, "qdisc show dev "+link) + tc(t, "class show dev "+link)
	text = regexp.MustCompile(` leaf [0-9a-f]+:|direct_packets_stat \d+ | refcnt \d+| r2q 10`).ReplaceAllString(text, "")
	for line := range strings.Lines(regexp.MustCompile(`pfifo [0-9a-f]{4}:`).ReplaceAllString(text, "pfifo 0:")) {
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// queued is a router with queues: one with two others in it on ether2, and one on ether1.
func queued() Config {
	c := router()
	c.Queues = []LinkQueues{
		{"ether1", []Class{{ID: 9, Rate: 125_000, Ceil: 125_000, Burst: 12_500, CeilBurst: 12_500, Priority: 7, Leaf: true}}},
		{"ether2", []Class{
			{ID: 1, Rate: 250_000, Ceil: 250_000, Burst: 25_000, CeilBurst: 25_000, Priority: 7},
			{ID: 2, Parent: 1, Rate: 1000, Ceil: 250_000, Burst: 3200, CeilBurst: 25_000, Priority: 0, Leaf: true},
			{ID: 3, Parent: 1, Rate: 1000, Ceil: 250_000, Burst: 3200, CeilBurst: 25_000, Priority: 7, Leaf: true},
		}},
		{"later", []Class{{ID: 1, Rate: 1000, Ceil: 1000, Burst: 3200, CeilBurst: 3200, Leaf: true}}},
	}
	return c
}

const (
	queuedEther1 = `class htb 5051:9 root prio 7 rate 1Mbit ceil 1Mbit burst 12500b cburst 12500b
qdisc htb 5051: root default 0 direct_qlen 256
qdisc pfifo 0: parent 5051:9 limit 256p`
	queuedEther2 = `class htb 5051:1 root rate 2Mbit ceil 2Mbit burst 25000b cburst 25000b
class htb 5051:2 parent 5051:1 prio 0 rate 8Kbit ceil 2Mbit burst 3200b cburst 25000b
class htb 5051:3 parent 5051:1 prio 7 rate 8Kbit ceil 2Mbit burst 3200b cburst 25000b
qdisc htb 5051: root default 0 direct_qlen 256
qdisc pfifo 0: parent 5051:2 limit 256p
qdisc pfifo 0: parent 5051:3 limit 256p`
)

// hasCodel reports whether the kernel of this machine has the queue that those of the boards have. link is one that nobody uses.
func hasCodel(link string) bool {
	return exec.Command("tc", "qdisc", "add", "dev", link, "root", "fq_codel").Run() == nil
}

// queueManager is newManager, whose classes have first come first served in them: fq_codel is not in each kernel that tests run on.
func queueManager(t *testing.T) *Manager {
	m := newManager(t, twoPorts...)
	m.PlainQueues = true
	return m
}

// Queues are made with their links, changed where they differ, repaired, and removed with the last of a link.
func TestQueues(t *testing.T) {
	lab(t, "k0", "k1")
	m := queueManager(t)
	require.NoError(t, m.Apply(router()))
	assert.False(t, m.queued, "a kernel without queues is asked for none")
	none := queuesShown(t, "ether2")
	tc(t, "qdisc add dev ether1 root handle 7: pfifo limit 9") // somebody else's: we want none there yet
	c := queued()
	require.NoError(t, m.Apply(c))
	assert.Equal(t, queuedEther1, queuesShown(t, "ether1"))
	assert.Equal(t, queuedEther2, queuesShown(t, "ether2"))

	running(t, m)
	for name, damage := range map[string]func(){
		"another rate":         func() { tc(t, "class change dev ether2 parent 5051:1 classid 5051:3 htb rate 1mbit") },
		"a class removed":      func() { tc(t, "class del dev ether2 classid 5051:3") },
		"a class added":        func() { tc(t, "class add dev ether2 parent 5051:1 classid 5051:77 htb rate 1mbit") },
		"a class below a leaf": func() { tc(t, "class add dev ether2 parent 5051:3 classid 5051:78 htb rate 1mbit") },
		"all removed":          func() { tc(t, "qdisc del dev ether2 root") },
		"another queue":        func() { tc(t, "qdisc replace dev ether2 root handle 9: pfifo") },
		"other leaves":         func() { tc(t, "qdisc replace dev ether2 parent 5051:2 handle 8f33: pfifo limit 5") },
		"the device gone and back": func() {
			ip(t, "link del ether2")
			plug(t, "k1")
		},
	} {
		damage()
		require.Eventually(t, func() bool {
			return exec.Command("ip", "link", "show", "ether2").Run() == nil && queuesShown(t, "ether2") == queuedEther2
		},
			time.Minute, 20*time.Millisecond, name)
	}

	// The link that queues wait for.
	c = queued()
	c.Bridges = []Bridge{{Name: "later"}}
	require.NoError(t, m.Apply(c))
	assert.Contains(t, queuesShown(t, "later"), "class htb 5051:1 root prio 0 rate 8Kbit")
	assert.Equal(t, queuedEther2, queuesShown(t, "ether2"))

	// A class gets another parent, and an inner class becomes a leaf.
	c.Queues = slices.Clone(c.Queues)
	c.Queues[1].Classes = []Class{
		{ID: 3, Rate: 2000, Ceil: 250_000, Burst: 3200, CeilBurst: 25_000, Priority: 6},
		{ID: 1, Rate: 250_000, Ceil: 250_000, Burst: 25_000, CeilBurst: 25_000, Priority: 7, Leaf: true},
		{ID: 2, Parent: 3, Rate: 1000, Ceil: 250_000, Burst: 3200, CeilBurst: 25_000, Priority: 0, Leaf: true},
	}
	require.NoError(t, m.Apply(c))
	assert.Equal(t, `class htb 5051:1 root prio 7 rate 2Mbit ceil 2Mbit burst 25000b cburst 25000b
class htb 5051:2 parent 5051:3 prio 0 rate 8Kbit ceil 2Mbit burst 3200b cburst 25000b
class htb 5051:3 root rate 16Kbit ceil 2Mbit burst 3200b cburst 25000b
qdisc htb 5051: root default 0 direct_qlen 256
qdisc pfifo 0: parent 5051:1 limit 256p
qdisc pfifo 0: parent 5051:2 limit 256p`, queuesShown(t, "ether2"))

	require.NoError(t, m.Apply(router()))
	assert.Equal(t, none, queuesShown(t, "ether2"))
	tc(t, "qdisc add dev ether2 root handle 7: pfifo limit 9")
	require.NoError(t, m.Apply(router()))
	assert.Contains(t, queuesShown(t, "ether2"), "qdisc pfifo 7:", "another's stays")
}

// The kernel keeps the priority of a class with others in it: one that differs is not repaired again and again.
func TestPriorityOfInnerClass(t *testing.T) {
	lab(t, "k0", "k1")
	m := queueManager(t)
	c := queued()
	require.NoError(t, m.Apply(c))
	c.Queues[1].Classes[0].Priority = 2
	c.Queues[1].Classes[2].Priority = 3
	require.NoError(t, m.Apply(c))
	assert.Contains(t, queuesShown(t, "ether2"), "class htb 5051:3 parent 5051:1 prio 3")
	changes, err := m.repair()
	require.NoError(t, err)
	assert.Empty(t, changes)
	c.Queues[1].Classes = c.Queues[1].Classes[:1]
	c.Queues[1].Classes[0].Leaf = true
	require.NoError(t, m.Apply(c))
	assert.Contains(t, queuesShown(t, "ether2"), "class htb 5051:1 root prio 2")
}

// With the kernels of the boards connections share a class.
func TestQueueLeaves(t *testing.T) {
	lab(t, "k0", "k1")
	if !hasCodel("x-k0") {
		m := newManager(t, twoPorts...)
		require.NoError(t, m.Apply(router()))
		before := queuesShown(t, "ether1") + queuesShown(t, "ether2")
		require.ErrorIs(t, m.Apply(queued()), unix.ENOENT)
		assert.Equal(t, before, queuesShown(t, "ether1")+queuesShown(t, "ether2"), "nothing is half applied")
		return
	}
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(queued()))
	assert.Contains(t, queuesShown(t, "ether1"), "qdisc fq_codel")
	require.NoError(t, m.Apply(queued()))
	changes, err := m.repair()
	require.NoError(t, err)
	assert.Empty(t, changes)
}

// The kernel takes as many classes one in the other as package queue makes of them.
func TestDeepQueues(t *testing.T) {
	lab(t, "k0", "k1")
	m := queueManager(t)
	c := router()
	q := LinkQueues{Interface: "ether1"}
	for id := range uint16(6) {
		q.Classes = append(q.Classes, Class{ID: id + 1, Parent: id, Rate: 1000, Ceil: 1000, Burst: 3200, CeilBurst: 3200, Leaf: id == 5})
	}
	c.Queues = []LinkQueues{q}
	require.NoError(t, m.Apply(c))
	assert.Contains(t, queuesShown(t, "ether1"), "class htb 5051:6 parent 5051:5 prio 0")
}

func TestQueueCounters(t *testing.T) {
	lab(t, "k0", "k1")
	m := queueManager(t)
	c := queued()
	require.NoError(t, m.Apply(c))
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	require.NoError(t, unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_PRIORITY, QueueMajor<<16|3))
	ip(t, "neigh add 192.168.0.77 lladdr 02:00:00:00:00:77 dev ether2")
	send := func(n int) {
		for range n {
			require.NoError(t, unix.Sendto(s, make([]byte, 100-28), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 168, 0, 77}}))
		}
	}
	counted := func(id uint16, packets uint64) ClassCounters {
		t.Helper()
		var got ClassCounters
		require.Eventually(t, func() bool {
			all, err := m.QueueCounters()
			require.NoError(t, err)
			got = all[id]
			return got.Packets == packets
		}, time.Minute, 10*time.Millisecond)
		return got
	}
	send(5)
	assert.EqualValues(t, 5*114, counted(3, 5).Bytes)
	assert.EqualValues(t, 5*114, counted(1, 5).Bytes, "the class that it is in counts too")
	counted(2, 0)
	counted(9, 0)
	// A change of a class leaves its counters.
	c.Queues = slices.Clone(c.Queues)
	c.Queues[1].Classes = slices.Clone(c.Queues[1].Classes)
	c.Queues[1].Classes[2].Priority = 3
	require.NoError(t, m.Apply(c))
	counted(3, 5)
	require.NoError(t, m.ResetQueueCounters([]uint16{3}))
	counted(3, 0)
	counted(1, 5)
	send(2)
	assert.EqualValues(t, 2*114, counted(3, 2).Bytes)
	counted(1, 7)
}

// What was dropped counts on, whatever classes packets are in later, and a class has what those in it have dropped.
func TestDroppedCountsOn(t *testing.T) {
	lab(t, "k0", "k1")
	m := queueManager(t)
	c := router()
	leaf := Class{ID: 1, Rate: 1000, Ceil: 1000, Burst: 3200, CeilBurst: 3200, Leaf: true}
	set := func(all ...Class) {
		t.Helper()
		c.Queues = []LinkQueues{{"ether2", all}}
		require.NoError(t, m.Apply(c))
	}
	set(leaf)
	ip(t, "neigh add 192.168.0.77 lladdr 02:00:00:00:00:77 dev ether2")
	// drop sends more than can wait in a class.
	drop := func(class int) {
		t.Helper()
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		require.NoError(t, err)
		defer unix.Close(s)
		require.NoError(t, unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20))
		require.NoError(t, unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_PRIORITY, QueueMajor<<16|class))
		for range 600 {
			require.NoError(t, unix.Sendto(s, make([]byte, 100), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 168, 0, 77}}))
		}
	}
	dropped := func(id uint16) uint64 {
		t.Helper()
		all, err := m.QueueCounters()
		require.NoError(t, err)
		return all[id].Dropped
	}
	drop(1)
	first := dropped(1)
	require.Greater(t, first, uint64(100))

	// The class gets others in it.
	inner := leaf
	inner.Leaf = false
	child := Class{ID: 2, Parent: 1, Rate: 1000, Ceil: 1000, Burst: 3200, CeilBurst: 3200, Leaf: true}
	rest := child
	rest.ID = 3
	set(inner, child, rest)
	assert.Equal(t, first, dropped(1))
	assert.Zero(t, dropped(2))
	drop(2)
	second := dropped(2)
	require.Greater(t, second, uint64(100))
	assert.Equal(t, first+second, dropped(1), "with what is in it")
	require.NoError(t, m.ResetQueueCounters([]uint16{1}))
	assert.Zero(t, dropped(1))
	assert.Equal(t, second, dropped(2))
	drop(3)
	third := dropped(3)
	assert.Equal(t, third, dropped(1))

	// They go again, and so does the link's last class.
	set(leaf)
	assert.Equal(t, third, dropped(1))
	drop(1)
	assert.Greater(t, dropped(1), third)
	require.NoError(t, m.Apply(router()))
	set(leaf)
	assert.Zero(t, dropped(1))
	assert.Empty(t, m.dropped)
}

func TestQueuesRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"twice":        func(c *Config) { c.Queues[1].Interface = "ether1" },
		"number 0":     func(c *Config) { c.Queues[0].Classes[0].ID = 0 },
		"number twice": func(c *Config) { c.Queues[1].Classes[1].ID = 1 },
		"no parent":    func(c *Config) { c.Queues[1].Classes[1].Parent = 3 },
		"in a leaf":    func(c *Config) { c.Queues[1].Classes[2].Parent = 2 },
		"no rate":      func(c *Config) { c.Queues[0].Classes[0].Rate = 0 },
		"ceil":         func(c *Config) { c.Queues[0].Classes[0].Ceil = 1 },
		"priority":     func(c *Config) { c.Queues[0].Classes[0].Priority = 8 },
		"too many": func(c *Config) {
			for i := range MaxClasses {
				c.Queues[0].Classes = append(c.Queues[0].Classes, Class{ID: uint16(i + 100), Rate: 1, Ceil: 1})
			}
		},
	} {
		c := queued()
		change(&c)
		assert.ErrorContains(t, c.Validate(twoPorts), "queues: ", name)
	}
	require.NoError(t, queued().Validate(twoPorts))
	assert.EqualValues(t, 512<<10, leafMemory(1<<30, 4))
	assert.EqualValues(t, 64<<10, leafMemory(27<<20, 34))
	assert.EqualValues(t, 32<<10, leafMemory(28<<20, 500))
}
