package netcfg

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// When someone changes what Run keeps, the router's network comes back as it was.
func TestRunRepairs(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T)
	}{
		{"a link set down", func(t *testing.T) { ip(t, "link set ether1 down") }},
		{"a link set down and up, without its routes", func(t *testing.T) {
			ip(t, "link set ether1 down")
			ip(t, "link set ether1 up")
		}},
		{"a link renamed", func(t *testing.T) {
			ip(t, "link set ether1 down")
			ip(t, "link set ether1 name mine")
		}},
		{"another MTU", func(t *testing.T) { ip(t, "link set ether1 mtu 1000") }},
		{"an address deleted", func(t *testing.T) { ip(t, "addr del 10.0.0.2/24 dev ether1") }},
		{"an address added", func(t *testing.T) { ip(t, "addr add 10.77.0.1/24 dev ether1") }},
		{"a point-to-point address added", func(t *testing.T) { ip(t, "addr add 10.77.0.1 peer 10.77.0.2/32 dev ether1") }},
		{"the address with another prefix length", func(t *testing.T) {
			ip(t, "addr add 10.0.0.2/8 dev ether1")
			ip(t, "addr del 10.0.0.2/24 dev ether1")
		}},
		{"a route deleted", func(t *testing.T) { ip(t, "route del default") }},
		{"a static route added", func(t *testing.T) { ip(t, "route add 10.44.0.0/16 via 10.0.0.1 proto static") }},
		{"a static route of many ways added", func(t *testing.T) {
			ip(t, "route add 10.44.0.0/16 proto static nexthop via 10.0.0.1 nexthop via 192.168.0.9")
		}},
		{"a static blackhole added", func(t *testing.T) { ip(t, "route add blackhole 10.44.0.0/16 proto static") }},
		{"a route replaced", func(t *testing.T) { ip(t, "route replace default via 192.168.0.3 proto static metric 1") }},
		{"forwarding turned off", func(t *testing.T) { require.NoError(t, setForwarding(false)) }},
		{"a device gone and back", func(t *testing.T) {
			ip(t, "link del ether1")
			time.Sleep(3 * settle)
			plug(t, "k0")
		}},
		{"much at once", func(t *testing.T) {
			for i := range 50 {
				ip(t, fmt.Sprintf("addr add 10.77.%d.1/24 dev ether2", i))
			}
			ip(t, "link set ether1 down")
			ip(t, "link set ether2 down")
			ip(t, "addr flush dev ether1")
			ip(t, "link set ether2 up")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			running(t, m)
			require.NoError(t, m.Apply(router()))
			tt.damage(t)
			becomes(t, routerShown)
		})
	}
}

func TestMissingPortAppears(t *testing.T) {
	lab(t, "k1")
	m := newManager(t, Port{"ether1", "pci0000:00/0000:00:12.0"}, Port{"ether2", "k1"})
	running(t, m)
	c := router()
	c.Routes = append(c.Routes, by("0.0.0.0/0", "192.168.0.254", 9))
	require.NoError(t, m.Apply(c))
	looks(t, `
		link lo up mtu 65536
		link ether2 up mtu 1500
		addr lo inet 127.0.0.1/8 scope host lo
		addr ether2 inet 192.168.0.1/24 brd 192.168.0.255 scope global ether2
		route default via 192.168.0.254 dev ether2 proto static metric 9
		route 172.16.0.0/12 via 192.168.0.9 dev ether2 proto static metric 5
		route 192.168.0.0/24 dev ether2 proto kernel scope link src 192.168.0.1
		forwarding true`)

	sysfsDevice(t, m.sysfs, "usb0", "pci0000:00/0000:00:12.0/virtio0")
	plug(t, "usb0")
	becomes(t, strings.Replace(routerShown, "\troute 10.0.0.0/24",
		"\troute default via 192.168.0.254 dev ether2 proto static metric 9\n\troute 10.0.0.0/24", 1))
}

func TestCarrierLoss(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	running(t, m)
	require.NoError(t, m.Apply(router()))
	ip(t, "link set x-k0 down")
	without := strings.NewReplacer("static metric 1\n", "static metric 1 linkdown\n", "src 10.0.0.2\n", "src 10.0.0.2 linkdown\n").Replace(routerShown)
	becomes(t, without)
	time.Sleep(3 * settle) // the time in which Run would take the routes away
	looks(t, without)
	ip(t, "link set x-k0 up")
	becomes(t, routerShown)
}

// Run hears its own changes. They must not keep it busy.
func TestRunComesToRest(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	running(t, m)
	require.NoError(t, m.Apply(router()))
	ip(t, "link set ether1 down")
	becomes(t, routerShown)
	time.Sleep(5 * settle)
	before := processorTime(t)
	assert.Empty(t, monitored(t, func() { time.Sleep(10 * settle) }))
	// What `ip monitor` costs is another process's.
	assert.Less(t, processorTime(t)-before, 200*time.Millisecond)
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A second program that changes the same port must not keep both busy.
func TestRunYieldsInAFight(t *testing.T) {
	lab(t, "k0", "k1")
	var mu sync.Mutex
	repairs := 0
	m, err := New(twoPorts, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		repairs++
	})
	require.NoError(t, err)
	m.sysfs = t.TempDir()
	running(t, m)
	require.NoError(t, m.Apply(router()))
	begin := time.Now()
	repaired := func() int {
		mu.Lock()
		defer mu.Unlock()
		return repairs
	}
	for repaired() < 4 && time.Since(begin) < patience {
		if strings.Contains(ip(t, "-o -4 addr show dev ether1"), "10.0.0.2/24") {
			ip(t, "addr del 10.0.0.2/24 dev ether1")
		}
		time.Sleep(20 * time.Millisecond)
	}
	assert.GreaterOrEqual(t, repaired(), 4, "it does not give up")
	assert.Greater(t, time.Since(begin), (1+2+4)*settle, "pauses of 100, 200, 400 ms ...")
}

// What the kernel refuses is logged once and tried again. The rest is repaired.
func TestRunGoesOnAfterRefusal(t *testing.T) {
	lab(t, "k0", "k1", "other")
	ip(t, "link set other up")
	ip(t, "addr add 10.9.0.1/24 dev other")
	var mu sync.Mutex
	var log []string
	m, err := New(twoPorts, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if line := fmt.Sprintf(format, args...); strings.Contains(line, "cannot") {
			log = append(log, line)
		}
	})
	require.NoError(t, err)
	m.sysfs = t.TempDir()
	running(t, m)
	require.NoError(t, m.Apply(router()))

	// A route of somebody else's takes the place of ours.
	const foreign = "route default via 10.9.0.3 dev other proto bird metric 1\n"
	ip(t, "route replace default via 10.9.0.3 proto bird metric 1")
	ip(t, "addr del 10.0.0.2/24 dev ether1")
	becomes(t, strings.NewReplacer(
		"\tlink ether1", "\tlink other up mtu 1500\n\tlink ether1",
		"\taddr ether1", "\taddr other inet 10.9.0.1/24 scope global other\n\taddr ether1",
		"route default via 10.0.0.1 dev ether1 proto static metric 1\n", foreign,
		"\troute 172", "\troute 10.9.0.0/24 dev other proto kernel scope link src 10.9.0.1\n\troute 172").Replace(routerShown))
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(log) > 0
	}, patience, 20*time.Millisecond)
	time.Sleep(10 * settle) // the time in which it would be said again
	mu.Lock()
	assert.Equal(t, []string{"netcfg: cannot repair: add route 0.0.0.0/0 by 10.0.0.1 distance 1: " +
		"a route that is not ours has this destination and distance: file exists"}, log)
	mu.Unlock()

	ip(t, "route del default")
	require.Eventually(t, func() bool {
		return strings.Contains(shown(t), "route default via 10.0.0.1 dev ether1 proto static metric 1\n")
	}, patience, 50*time.Millisecond)
}

// A gateway on a link that is not ours comes and goes with that link: nothing is said of it
// as of a refusal, and Run comes to rest meanwhile.
func TestRunFollowsGateways(t *testing.T) {
	lab(t, "k0", "k1", "other")
	var mu sync.Mutex
	var log []string
	m, err := New(twoPorts, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprintf(format, args...))
	})
	require.NoError(t, err)
	m.sysfs = t.TempDir()
	running(t, m)
	c := router()
	c.Routes = append(c.Routes, by("10.12.0.0/16", "10.9.0.3", 1))
	require.NoError(t, m.Apply(c))
	const active = "route 10.12.0.0/16 via 10.9.0.3 dev other proto static metric 1\n"
	for range 2 {
		w, err := m.Waiting()
		require.NoError(t, err)
		assert.Equal(t, Waiting{Routes: []int{2}}, w)

		ip(t, "link set other up")
		ip(t, "addr add 10.9.0.1/24 dev other")
		require.Eventually(t, func() bool { return strings.Contains(shown(t), active) }, patience, 20*time.Millisecond)
		w, err = m.Waiting()
		require.NoError(t, err)
		assert.Equal(t, Waiting{}, w)

		// The kernel would keep the route, as the link has another address.
		ip(t, "addr add 10.8.0.1/24 dev other")
		ip(t, "addr del 10.9.0.1/24 dev other")
		require.Eventually(t, func() bool { return !strings.Contains(shown(t), "10.12.0.0/16") }, patience, 20*time.Millisecond)
		ip(t, "addr del 10.8.0.1/24 dev other")
	}
	mu.Lock()
	defer mu.Unlock()
	assert.NotContains(t, strings.Join(log, "\n"), "cannot")
}

// The kernel drops what does not fit the subscription's buffer. Run takes ENOBUFS for a
// change. This shows that it comes once, and that the socket goes on after it.
func TestSubscriptionOverflows(t *testing.T) {
	lab(t, "k0")
	f, err := subscribe()
	require.NoError(t, err)
	defer f.Close()
	for range 20 {
		ip(t, "link set k0 up")
		ip(t, "link set k0 down")
	}
	read := func(within time.Duration) error {
		require.NoError(t, f.SetReadDeadline(time.Now().Add(within)))
		_, err := f.Read(make([]byte, 16))
		return err
	}
	require.ErrorIs(t, read(patience), unix.ENOBUFS)
	messages := 0
	for err = read(settle); err == nil; err = read(settle) {
		messages++
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Less(t, messages, 40)
	ip(t, "link set k0 up")
	assert.NoError(t, read(patience))
}

func TestRunLeavesNothing(t *testing.T) {
	lab(t, "k0", "k1")
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 20 {
		t.Run("run", func(t *testing.T) {
			m := newManager(t, twoPorts...)
			running(t, m)
			require.NoError(t, m.Apply(router()))
		})
	}
	// What closed the sockets at the end may not be gone yet.
	left := func() bool { return runtime.NumGoroutine() > goroutines || openFiles(t) > files }
	for end := time.Now().Add(patience); left() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	assert.LessOrEqual(t, openFiles(t), files)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
