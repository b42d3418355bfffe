package kmsg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseRecord(t *testing.T) {
	for _, c := range []struct {
		name, record string
		want         record
		ok           bool
	}{
		{"ours", "14,361,1234567,-;postern: socks,info accepts on port 1080\n",
			record{sequence: 361, level: 6, at: 1234567 * time.Microsecond, topics: "socks,info", message: "accepts on port 1080"}, true},
		{"with a dictionary", "12,362,60000001,-,caller=T1;postern: system,warning hello\n SUBSYSTEM=net\n",
			record{sequence: 362, level: 4, at: 60000001 * time.Microsecond, topics: "system,warning", message: "hello"}, true},
		{"with escapes", `14,1,0,-;postern: system,info caf\xc3\xa9 C:\x5cx41 \x4 \xzz \x`, record{sequence: 1, level: 6, at: 0, topics: "system,info", message: `café C:\x41 \x4 \xzz \x`}, true},
		{"a packet", "6,7,5,-;note IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2\n",
			record{sequence: 7, level: 6, at: 5 * time.Microsecond, topics: "firewall,info", message: "note input: in:ether1 out:(unknown 0), proto 2, 10.1.0.66->10.1.0.104, len 60"}, true},
		{"a packet that nat logs", "7,7,5,-;IN=ether1 OUT= MAC= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=2\n",
			record{sequence: 7, level: 6, at: 5 * time.Microsecond, topics: "firewall,info", message: "dstnat: in:ether1 out:(unknown 0), proto 2, 10.1.0.66->10.1.0.104, len 60"}, true},
		{"a packet that a program tells of", "14,7,5,-;IN=ether1 OUT= SRC=10.1.0.66 DST=10.1.0.104\n",
			record{sequence: 7, level: 6, at: 5 * time.Microsecond, topics: "", message: "IN=ether1 OUT= SRC=10.1.0.66 DST=10.1.0.104"}, true},
		{"the kernel's", "6,1,0,-;Linux version 6.12\n", record{sequence: 1, level: 6, at: 0, topics: "", message: "Linux version 6.12"}, true},
		{"a full table", "4,1,0,-;nf_conntrack: nf_conntrack: table full, dropping packet\n", record{sequence: 1, level: 4, topics: "firewall,warning",
			message: "kernel: nf_conntrack: nf_conntrack: table full, dropping packet", kernel: true}, true},
		{"a process that is killed for memory", "3,1,0,-;Out of memory: Killed process 71 (socksd) total-vm:9000kB\n", record{sequence: 1, level: 3,
			topics: "system,error", message: "kernel: Out of memory: Killed process 71 (socksd) total-vm:9000kB", kernel: true}, true},
		{"a full set of addresses", "4,1,0,-;Set postern-list-7 is full, maxelem 2048 reached\n", record{sequence: 1, level: 4, message: "Set postern-list-7 is full, maxelem 2048 reached"}, true},
		{"a disk", "3,1,0,-;I/O error, dev sda, sector 9 op 0x1\n", record{sequence: 1, level: 3, topics: "disk,error", message: "kernel: I/O error, dev sda, sector 9 op 0x1", kernel: true}, true},
		{"an emergency", "0,1,0,-;Kernel panic\n", record{sequence: 1, level: 0, topics: "system,error,critical", message: "kernel: Kernel panic", kernel: true}, true},
		{"the kernel's warning in our name", "4,1,0,-;postern: system,info x\n", record{sequence: 1, level: 4, topics: "system,warning", message: "kernel: postern: system,info x", kernel: true}, true},
		{"the kernel in our name", "6,1,0,-;postern: system,info x\n", record{sequence: 1, level: 6, at: 0, topics: "", message: "postern: system,info x"}, true},
		{"the end of time", "14,1,9223372036854775807,-;postern: system,info x\n", record{sequence: 1, level: 6, at: 1 << 53 * time.Microsecond, topics: "system,info", message: "x"}, true},
		{"no prefix", "postern: hello", record{}, false},
		{"no time", "13,361;postern: hello", record{}, false},
		{"bad time", "13,361,x,-;postern: hello", record{}, false},
		{"bad priority", "-1,361,1,-;postern: hello", record{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec, ok := parseRecord(c.record, sameName)
			assert.Equal(t, c.ok, ok)
			assert.Equal(t, c.want, rec)
		})
	}
}

// Whatever is in the log, it can be read, and shown.
func FuzzParseRecord(f *testing.F) {
	f.Add("14,361,1234567,-;postern: socks,info accepts\\x5c on port 1080\n")
	f.Add("6,7,5,-;note IN=ether1 OUT= SRC=10.1.0.66 DST=10.1.0.104 LEN=60 PROTO=TCP SPT=1 DPT=2 SYN\n")
	f.Fuzz(func(t *testing.T, text string) {
		rec, ok := parseRecord(text, sameName)
		if !ok {
			return
		}
		for _, set := range []bool{false, true} {
			now := Clock{Now: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC), Up: time.Hour, Set: set}
			assert.NotEmpty(t, now.stamp(rec.at, time.Hour))
			assert.NotContains(t, strings.SplitN(syslogMessage(rec, "postern", now), " - ", 2)[0], "\n")
		}
	})
}

func TestPrintf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	log := New(f)
	log.Printf(Notice, "one\ntwo")
	log.About("socks").Printf(Warning, "%d", 3)
	log.About("system,account").Printf(Critical, "four")
	_, err = log.About("socks").Write([]byte("socksd: five\n\n six \n"))
	require.NoError(t, err)
	log.Printf(Error, "%s", strings.Repeat("x", 2000))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "<5>postern: system,info one two\n<4>postern: socks,warning 3\n<2>postern: system,account,error,critical four\n"+
		"<6>postern: socks,info five\n<6>postern: socks,info six\n<3>postern: system,error "+strings.Repeat("x", 900)+"...\n", string(text))
}

func TestStamp(t *testing.T) {
	day := func(text string) time.Time {
		t, err := time.Parse(time.DateTime, text)
		if err != nil {
			panic(err) // a constant
		}
		return t
	}
	for _, c := range []struct {
		name string
		now  Clock
		at   time.Duration
		zone time.Duration
		want string
	}{
		{"the clock is not set", Clock{day("1970-01-01 00:05:00"), time.Minute, false}, 12 * time.Second, time.Hour, "00:00:12"},
		{"nor was it yesterday", Clock{day("1970-01-02 01:00:00"), 25 * time.Hour, false}, 12 * time.Second, 0, "jan/01 00:00:12"},
		{"today", Clock{day("2030-01-31 12:00:00"), time.Hour, true}, 12 * time.Second, 0, "11:00:12"},
		{"today, east of Greenwich", Clock{day("2030-01-31 22:00:00"), time.Hour, true}, 12 * time.Second, 150 * time.Minute, "jan/31 23:30:12"},
		{"yesterday", Clock{day("2030-01-31 00:30:00"), time.Hour, true}, 12 * time.Second, 0, "jan/30 23:30:12"},
		{"last year", Clock{day("2030-01-01 00:30:00"), time.Hour, true}, 12 * time.Second, 0, "dec/31/2029 23:30:12"},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, c.now.stamp(c.at, c.zone)) })
	}
}

// TestClockNow: what happened has the same time each time that somebody looks.
func TestClockNow(t *testing.T) {
	first := ClockNow()
	require.True(t, first.Set)
	assert.WithinDuration(t, time.Now(), first.Now, time.Minute)
	assert.InDelta(t, Uptime().Seconds(), first.Up.Seconds(), 60)
	for range 3000 {
		require.Equal(t, first.time(time.Second), ClockNow().time(time.Second))
	}
	// Somebody has set the clock since.
	started.Add(int64(time.Hour))
	assert.WithinDuration(t, first.time(time.Second), ClockNow().time(time.Second), time.Minute)
}
