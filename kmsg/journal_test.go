package kmsg

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testKernel is a kernel's log that the test writes: each read takes one record.
type testKernel struct {
	*testing.T
	socket  int
	journal *Journal
}

func newTestKernel(t *testing.T) *testKernel {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	j, err := newJournal(os.NewFile(uintptr(ends[0]), "kmsg"), time.Minute)
	require.NoError(t, err)
	t.Cleanup(func() {
		j.Close()
		unix.Close(ends[1])
	})
	return &testKernel{t, ends[1], j}
}

func (k *testKernel) record(format string, args ...any) {
	k.Helper()
	for {
		err := unix.Sendto(k.socket, fmt.Appendf(nil, format, args...), 0, nil)
		if err != unix.EAGAIN {
			require.NoError(k, err)
			return
		}
		require.NoError(k, k.journal.catchUp()) // the socket is full
	}
}

// stampOfLine is the time of a line, with the day before it if that is not today: the records
// begin when the machine did.
var stampOfLine = regexp.MustCompile(`^(\S+/\d+ )?[\d:]+ `)

// messages are those of all lines.
func (k *testKernel) messages() (all []string) {
	k.Helper()
	lines, err := k.journal.Lines(View{Called: sameName})
	require.NoError(k, err)
	for _, line := range lines {
		all = append(all, stampOfLine.ReplaceAllString(line, ""))
	}
	return all
}

func TestJournal(t *testing.T) {
	k := newTestKernel(t)
	assert.Empty(t, k.messages())
	k.record("6,1,0,-;Linux version 6.12\n")
	k.record("14,2,1000000,-;postern: system,info one\n")
	k.record("14,3,2000000,-;postern: socks,info two\n SUBSYSTEM=net\n")
	k.record("6,4,2000000,-;IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2\n")
	k.record("no record")
	lines, err := k.journal.Lines(View{Called: strings.ToUpper})
	require.NoError(t, err)
	now := ClockNow()
	assert.Equal(t, []string{
		now.stamp(time.Second, 0) + " system,info one", now.stamp(2*time.Second, 0) + " socks,info two",
		now.stamp(2*time.Second, 0) + " firewall,info input: in:ETHER1 out:(unknown 0), proto 2, 10.1.0.66->10.1.0.104, len 60",
	}, lines)
	k.record("12,9,3000000,-;postern: system,warning three\n")
	assert.Equal(t, []string{"system,warning 4 lines of the log were overwritten before they could be read", "system,warning three"}, k.messages()[3:])
}

// What clients cause overwrites none of the rest.
func TestClientsOverwriteNothing(t *testing.T) {
	k := newTestKernel(t)
	const ours = 50
	sequence := 0
	record := func(prefix, format string, args ...any) {
		k.record("%s,%d,1000000,-;%s\n", prefix, sequence, fmt.Sprintf(format, args...))
		sequence++
	}
	for i := range ours {
		record("12", "postern: system,error,critical login failure %d", i)
		for n := range 200 {
			record("14", "postern: socks,info request %d of a client %s", n, strings.Repeat("x", 500))
			record("6", "IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2")
			record("6", "TCP: request_sock_TCP: Possible SYN flooding on port 1080. Sending cookies.")
			record("12", "postern: firewall,warning %d packets with a false source", n)
		}
	}
	all := strings.Join(k.messages(), "\n")
	for i := range ours {
		assert.Contains(t, all, fmt.Sprintf("login failure %d\n", i))
	}
	assert.Contains(t, all, "request 199 of a client")
	assert.NotContains(t, all, "request 0 of a client")
	assert.Less(t, len(all), 2*ringSize)
	// Nor do warnings and faults of the router's own parts lose the place of others.
	record("11", "postern: socks,error socksd hangs")
	record("13", "postern: socks,info accepts")
	for range 200 {
		record("14", "postern: socks,info x %s", strings.Repeat("x", 500))
	}
	assert.Contains(t, k.messages(), "socks,error socksd hangs")
	assert.Contains(t, k.messages(), "socks,info accepts")
}

// A program that logs in for each look at the router overwrites no change and no wrong password, and many changes no login.
func TestLoginsOverwriteNothing(t *testing.T) {
	const change, added, failure = "system,info dns changed by ssh:admin@192.168.0.2", "system,account,info user bob added by ssh:admin@192.168.0.2",
		"system,error,critical login failure for user admin from 192.168.0.9 via ssh"
	const in, out = "system,account,info user monitor logged in from 192.168.0.3 via api", "system,account,info user monitor logged out from 192.168.0.3 via api"
	for name, test := range map[string]struct{ kept, many []string }{
		"logins":  {[]string{change, added, failure}, []string{in, out}},
		"changes": {[]string{in, out}, []string{change, added}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTestKernel(t)
			sequence := 0
			record := func(line string) {
				k.record("14,%d,1000000,-;postern: %s\n", sequence, line)
				sequence++
			}
			for _, line := range test.kept {
				record(line)
			}
			for range 500 {
				for _, line := range test.many {
					record(line)
				}
			}
			all := k.messages()
			for _, line := range append(test.kept, test.many...) {
				assert.True(t, slices.Contains(all, line), line)
			}
			assert.Less(t, len(all), 300)
		})
	}
}

// A line of ours is kept although the kernel's log has overwritten it before it was read, and is
// there once if it has not.
func TestLinesThatTheKernelLoses(t *testing.T) {
	k := newTestKernel(t)
	kernel, err := os.Create(filepath.Join(t.TempDir(), "kmsg"))
	require.NoError(t, err)
	defer kernel.Close()
	log := New(kernel)
	about := log.About("socks")
	log.KeepIn(k.journal)
	written := func() string {
		t.Helper()
		text, err := os.ReadFile(kernel.Name())
		require.NoError(t, err)
		require.NoError(t, os.Truncate(kernel.Name(), 0))
		_, err = kernel.Seek(0, 0)
		require.NoError(t, err)
		return string(text)
	}
	packet := func(sequence int) {
		k.record("6,%d,1,-;IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2\n", sequence)
	}
	packet(1)
	require.NoError(t, k.journal.catchUp())
	end := k.journal.end()
	log.Printf(Critical, `login failure for user C:\x41 caf\xc3\xa9 %s`, "café")
	require.Equal(t, `<130>postern: system,error,critical login failure for user C:\x41 caf\xc3\xa9 café`+"\n", written())
	require.NoError(t, k.journal.await(t.Context(), end)) // who sends them to a syslog server is told
	packet(5000)
	const failure = `system,error,critical login failure for user C:\x41 caf\xc3\xa9 café`
	logged := "firewall,info input: in:ether1 out:(unknown 0), proto 2, 10.1.0.66->10.1.0.104, len 60"
	assert.Equal(t, []string{logged, failure, "system,warning 4998 lines of the log were overwritten before they could be read", logged}, k.messages())

	about.Printf(Info, "opened")
	require.Equal(t, "<134>postern: socks,info opened\n", written())
	k.record("134,5001,1,-;postern: socks,info opened\n")
	assert.Equal(t, "socks,info opened", k.messages()[4])
	assert.Len(t, k.messages(), 5)
	// It is one that clients cause, and those overwrite nothing else.
	for i := range 1000 {
		about.Printf(Info, "%d", i)
		k.journal.keep(Info, fmt.Sprintf("postern: dns,info %d", i))
	}
	assert.Contains(t, k.messages(), failure)
}

// How many lines were lost is said now and then, where no flood overwrites it.
func TestLossesAreSaid(t *testing.T) {
	k := newTestKernel(t)
	flood := func(sequence int, at time.Duration) {
		for i := range 1000 {
			k.record("6,%d,%d,-;IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2\n", sequence+2*i, at.Microseconds())
		}
	}
	losses := func() (all []string) {
		for _, line := range k.messages() {
			if strings.Contains(line, "overwritten") {
				all = append(all, line)
			}
		}
		return all
	}
	flood(1, 70*time.Second)
	first := "system,warning 1 lines of the log were overwritten before they could be read"
	assert.Equal(t, []string{first}, losses())
	flood(2001, 80*time.Second)
	assert.Equal(t, []string{first}, losses())
	k.record("14,4001,%d,-;postern: system,info later\n", (80*time.Second + lossPause).Microseconds())
	assert.Equal(t, []string{first, "system,warning 1999 lines of the log were overwritten before they could be read"}, losses())
}

// The kernel's own warnings and errors are lines, so many a minute about each topic, and the faults that count are
// not lost among the others.
func TestKernelLines(t *testing.T) {
	k := newTestKernel(t)
	k.record("4,1,1000,-;a warning of the start\n")
	k.record("3,2,1000,-;an error of the start\n")
	assert.Equal(t, []string{"system,error kernel: an error of the start"}, k.messages())
	sequence := 2
	at := 70 * time.Second
	record := func(prefix, text string) {
		sequence++
		k.record("%s,%d,%d,-;%s\n", prefix, sequence, at.Microseconds(), text)
	}
	for range 100 {
		record("4", "Mem-Info")
	}
	record("3", "Out of memory: Killed process 71 (socksd)")
	got := k.messages()
	assert.Len(t, got, 1+kernelBurst+1)
	assert.Equal(t, "system,error kernel: Out of memory: Killed process 71 (socksd)", got[len(got)-1])
	at += kernelPause + time.Second
	record("4", "later")
	assert.Equal(t, []string{"system,warning 90 lines of the kernel left out", "system,warning kernel: later"}, k.messages()[len(got):])

	// A chip that fails hides no process that is killed, and what it says itself is told apart.
	at += time.Hour
	before := len(k.messages())
	for range 100 {
		record("3", "1e000000.flash: block erase error: (bad VPP)")
	}
	record("3", "Out of memory: Killed process 72 (sshd)")
	got = k.messages()
	assert.Len(t, got, before+kernelBurst+1)
	assert.Equal(t, "system,error kernel: Out of memory: Killed process 72 (sshd)", got[len(got)-1])
	at += kernelPause + time.Second
	record("3", "1e000000.flash: block erase error: (bad VPP)")
	assert.Equal(t, []string{"disk,warning 90 lines of the kernel left out", "disk,error kernel: 1e000000.flash: block erase error: (bad VPP)"}, k.messages()[len(got):])

	// What the kernel warns of is overwritten by nothing that hosts cause, nor by warnings about what they can fill.
	record("4", "MTD do_erase_oneblock(): software timeout")
	record("4", "nf_conntrack: nf_conntrack: table full, dropping packet")
	for n := range 1000 {
		record("14", fmt.Sprintf("postern: socks,info request %d of a client %s", n, strings.Repeat("x", 500)))
	}
	assert.Contains(t, k.messages(), "firewall,warning kernel: nf_conntrack: nf_conntrack: table full, dropping packet")
	for range 1000 {
		at += kernelPause
		record("4", "nf_conntrack: nf_conntrack: table full, dropping packet")
	}
	// The kernel says at info that these are full.
	at += time.Hour
	record("6", "neighbour: arp_cache: neighbor table overflow!")
	record("6", "TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:1080. Sending cookies.")
	record("6", "neighbour: another line")
	got = k.messages()
	assert.Equal(t, []string{"interface,warning kernel: neighbour: arp_cache: neighbor table overflow!",
		"system,warning kernel: TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:1080. Sending cookies."}, got[len(got)-2:])
	assert.Contains(t, k.messages(), "disk,warning kernel: MTD do_erase_oneblock(): software timeout")
	assert.Contains(t, k.messages(), "system,error kernel: Out of memory: Killed process 71 (socksd)")
	assert.Less(t, strings.Count(strings.Join(k.messages(), "\n"), "table full"), 30)
}

// What the kernel and its drivers say has the topic of what it is about.
func TestKernelTopics(t *testing.T) {
	for message, want := range map[string]string{
		"nf_conntrack: nf_conntrack: table full, dropping packet":                      "firewall",
		"xt_hashlimit: max count of 1000 reached":                                      "firewall",
		"MTD do_write_oneword(): software timeout":                                     "disk",
		"MTD do_write_buffer_wait(): software timeout, address:0x00080000.":            "disk",
		"1e000000.flash: block erase failed at 0x003c0000 (status 0xa0)":               "disk",
		"0.flash: buffer write error (status timeout)":                                 "disk",
		"Waiting for chip to be ready timed out.":                                      "disk",
		"spi-nor spi0.0: timeout while writing configuration register":                 "disk",
		"critical medium error, dev sda, sector 2048 op 0x1:(WRITE) flags 0x800":       "disk",
		"I/O error, dev vda, sector 8 op 0x0:(READ) flags 0x0":                         "disk",
		"timeout error, dev mmcblk0, sector 0 op 0x1:(WRITE) flags 0x0":                "disk",
		"Buffer I/O error on dev mmcblk0p2, logical block 0, lost async page write":    "disk",
		"mmc0: Timeout waiting for hardware interrupt.":                                "disk",
		"ata1.00: failed command: WRITE DMA":                                           "disk",
		"sd 0:0:0:0: [sda] Synchronize Cache(10) failed: Result: hostbyte=0x01":        "disk",
		"nvme nvme0: I/O 1 QID 1 timeout, aborting":                                    "disk",
		"GPT:Alternate GPT header not at the end of the disk.":                         "disk",
		"neighbour: arp_cache: neighbor table overflow!":                               "interface",
		"pcnet32 0000:00:0b.0 ether1: NETDEV WATCHDOG: CPU: 0: transmit queue 0 timed": "interface",
		"e1000e 0000:00:02.0 ether2: Reset adapter unexpectedly":                       "interface",
		"bridge1: received packet on ether2 with own address as source address":        "interface",
		"Out of memory: Killed process 71 (socksd) total-vm:1kB":                       "system",
		"sshd: page allocation failure: order:0, mode:0x820(GFP_ATOMIC)":               "system",
		"TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:1080.":           "system",
		"usb 1-1: device descriptor read/64, error -71":                                "system",
		"CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 6.12.0 #1":                        "system",
	} {
		rec, ok := parseRecord("4,1,1,-;"+message, sameName)
		assert.True(t, ok && rec.kernel)
		assert.Equal(t, want+",warning", rec.topics, message)
	}
}

// Who logs or looks does not wait for the end of a flood that is faster than its reader.
func TestFloodWithoutEnd(t *testing.T) {
	f, err := os.Open("/dev/zero") // each read takes something
	require.NoError(t, err)
	j, err := newJournal(f, time.Minute)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.keep(Info, "postern: system,info one")
		lines, err := j.Lines(View{Called: sameName})
		assert.NoError(t, err)
		assert.Len(t, lines, 1)
		j.Close()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("still waits")
	}
}

// What a rule leaves out when it has logged as many packets as it may is said now and then.
func TestPacketsLeftOut(t *testing.T) {
	k := newTestKernel(t)
	sequence := 0
	packets := func(n int, at, pause time.Duration) {
		for range n {
			sequence++
			k.record("6,%d,%d,-;IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2\n", sequence, at.Microseconds())
			at += pause
		}
	}
	said := func() int {
		return strings.Count(strings.Join(k.messages(), "\n"), "firewall,warning many packets to log: each rule logs 20 a second and counts the others")
	}
	packets(PacketBurst, time.Minute, 0)
	packets(100, time.Hour, 2*time.Second/PacketRate)
	assert.Zero(t, said())
	for range 2 { // a rule at its limit
		packets(PacketBurst, 2*time.Hour, 0)
		packets(100, 2*time.Hour+time.Second/PacketRate, time.Second/PacketRate)
		assert.Equal(t, 1, said())
	}
	packets(1000, 3*time.Hour, time.Millisecond)
	assert.Equal(t, 2, said())
}
