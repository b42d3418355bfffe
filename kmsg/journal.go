package kmsg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a Journal.
const (
	// ringSize is how many bytes of lines each of the two large rings keeps, with entryCost for each
	// line beside its text. loginRing is that of logins, some 90 lines, and kernelRing that of the kernel's warnings about one topic.
	ringSize   = 24 << 10
	loginRing  = 12 << 10
	kernelRing = 3 << 10
	entryCost  = 64
	// kernelBurst is how many warnings of the kernel about a topic are kept at once, and as many errors;
	// kernelPause is the time after which one more is.
	kernelBurst = 10
	kernelPause = time.Minute
	// turn is how many records are read at most before others get their turn: all that the kernel's log can have at
	// a moment (its descriptors, one for each 32 of its 32 KiB: kernel/printk/printk.c). A flood may bring them faster than they are read.
	turn = 1024
	// lossPause is the least time between two lines about what was overwritten, or what rules left out: there are as many as
	// a flood wants.
	lossPause = 10 * time.Minute
	// PacketRate is how many packets a second a rule of the firewall logs, and PacketBurst how many at once.
	PacketRate  = 20
	PacketBurst = 40
)

// Journal keeps the lines of the log in memory, in rings. One has those that hosts of the network can
// cause at will, which are the connections of SOCKS and packets that rules log. Warnings of the kernel, some of which
// hosts can cause, have a small one for each of their topics. Logins and logouts have one, as a program that looks every few seconds
// logs in each time. All others, also the kernel's errors, are in the last.
// So whoever makes the router log without end overwrites no login, no change and no fault.
//
// Lines of a Logger that is told to ([Logger.KeepIn]) are in it at once. The others are read from
// the kernel's log, whose 32 KiB a flood of logged packets fills within milliseconds: of what is
// lost there it keeps the number.
//
// Of what the kernel says of itself it keeps warnings and errors, with RouterOS' topics, of each as
// many as kernelBurst and kernelPause allow: a disk that fails hides no process that was killed. Of before the
// Journal began it keeps errors: each board has warnings of its own at each start.
type Journal struct {
	kmsg *os.File

	mu   sync.Mutex
	buf  [maxRecord]byte
	read uint64 // sequence number that the kernel's next record should have
	// begun says that there was a record, opened is when the Journal was, since the start.
	begun  bool
	opened time.Duration
	next   uint64 // sequence number of the Journal's next line
	// ours has the lines that nobody outside can cause at will, logins those of who has a password, theirs the others but for the
	// kernel's warnings.
	ours, logins, theirs ring
	kernel               [len(kernelTopics)]kernelLines // by the topic's index
	losses               Limit
	// packets is what one rule may log, but for a few packets, and full the limit of lines that say so.
	packets, full Limit
	// lost is how many records were overwritten before they were read, since the last line about
	// that.
	lost uint64
	// fresh is closed when there is a new line.
	fresh chan struct{}
	ended chan struct{}
}

// kernelLines is what the Journal has of the kernel's lines about a topic. Its errors are among the router's own.
type kernelLines struct {
	warnings       ring
	errors, others Limit
}

// ring is the latest lines, oldest first.
type ring struct {
	room    int // bytes, as size
	entries []entry
	size    int
}

// entry is a line as the kernel has it, with its number in the Journal.
type entry struct {
	sequence uint64
	text     string
}

func (r *ring) add(e entry) {
	r.entries = append(r.entries, e)
	r.size += len(e.text) + entryCost
	for r.size > r.room {
		r.size -= len(r.entries[0].text) + entryCost
		r.entries[0].text = ""
		r.entries = r.entries[1:]
	}
}

// OpenJournal begins to keep the lines of the kernel's log, also those that it has already.
func OpenJournal() (*Journal, error) {
	f, err := os.OpenFile(kernelLog, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return newJournal(f, Uptime())
}

// newJournal begins to read f, of which each read takes one record.
func newJournal(f *os.File, opened time.Duration) (*Journal, error) {
	j := &Journal{kmsg: f, opened: opened, ours: ring{room: ringSize}, logins: ring{room: loginRing}, theirs: ring{room: ringSize},
		losses: Limit{Burst: 1, Pause: lossPause}, full: Limit{Burst: 1, Pause: lossPause},
		packets: Limit{Burst: PacketBurst, Pause: 11 * time.Second / PacketRate / 10}, fresh: make(chan struct{}), ended: make(chan struct{})}
	for i := range j.kernel {
		limit := Limit{Burst: kernelBurst, Pause: kernelPause}
		j.kernel[i] = kernelLines{ring{room: kernelRing}, limit, limit}
	}
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open the log: %w", err)
	}
	go func() {
		defer close(j.ended)
		// It reads when there is something, until the file is closed.
		for more := true; more; {
			err := conn.Read(func(fd uintptr) bool {
				var all bool
				all, more = j.take(int(fd))
				return !all || !more
			})
			more = more && err == nil
		}
	}()
	return j, nil
}

// Close ends the Journal.
func (j *Journal) Close() {
	j.kmsg.Close()
	<-j.ended
}

// catchUp takes what the kernel has at this moment: a line that was just logged is in the
// Journal. It does not wait for the end of a flood.
func (j *Journal) catchUp() error {
	conn, err := j.kmsg.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { j.take(int(fd)) })
	}
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

// take takes the records that there are, at most as many as turn says. It reports whether these were all, and whether there
// can be more.
func (j *Journal) take(fd int) (all, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.tell(j.next)
	for range turn {
		n, err := unix.Read(fd, j.buf[:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return true, true
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // overwritten while we read: the next read is of the oldest left
		case err != nil || n == 0:
			return true, false
		}
		j.add(string(j.buf[:n]))
	}
	return false, true
}

// tell wakes those who wait, if there are lines after the one whose number was next. The caller
// holds mu.
func (j *Journal) tell(next uint64) {
	if j.next != next {
		close(j.fresh)
		j.fresh = make(chan struct{})
	}
}

// keep adds a line of this process, behind those that the kernel's log has at this moment.
func (j *Journal) keep(level int, line string) {
	_ = j.catchUp() // without them the line is kept all the same
	text := fmt.Sprintf("%d,0,%d,-;%s", userFacility<<3|level, Uptime().Microseconds(), escape(line))
	rec, ok := parseRecord(text, sameName)
	if !ok {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.tell(j.next)
	j.put(j.ringOf(rec), text)
}

// ringOf returns the ring of a line that is not the kernel's.
func (j *Journal) ringOf(rec record) *ring {
	switch {
	case rec.causedByClients():
		return &j.theirs
	case rec.isLogin():
		return &j.logins
	}
	return &j.ours
}

// sameName is for those who do not look at the names of interfaces.
func sameName(name string) string { return name }

// add adds a record, if it is a line of the log. The caller holds mu.
func (j *Journal) add(text string) {
	rec, facility, ok := parseHead(text)
	if !ok {
		return
	}
	if j.begun && rec.sequence > j.read {
		j.lost += rec.sequence - j.read
	}
	if j.lost > 0 {
		if _, passes := j.losses.Pass(rec.at); passes {
			j.say(&j.ours, rec.at, "system", "%d lines of the log were overwritten before they could be read", j.lost)
			j.lost = 0
		}
	}
	j.begun, j.read = true, rec.sequence+1
	if facility == keptFacility {
		return
	}
	// What follows the line is a dictionary, for programs.
	line, _, _ := strings.Cut(text, "\n")
	ring := &j.theirs
	if facility == 0 && rec.level > Warning {
		// As many as there are packets: they are read when somebody wants to see them.
		if mayBePacket(rec.message) {
			j.put(ring, line)
			if _, passes := j.packets.Pass(rec.at); passes {
				return
			}
			if _, passes := j.full.Pass(rec.at); passes {
				j.say(&j.ours, rec.at, "firewall", "many packets to log: each rule logs %d a second and counts the others", PacketRate)
			}
		}
		return
	}
	said := rec.message
	if rec, _ = parseRecord(text, sameName); rec.topics == "" {
		return
	}
	if rec.kernel {
		topic := kernelTopic(said)
		about := &j.kernel[topic]
		limit := &about.others
		ring = &about.warnings
		if rec.level <= Error {
			ring, limit = &j.ours, &about.errors
		} else if rec.at < j.opened {
			return
		}
		dropped, passes := limit.Pass(rec.at)
		if !passes {
			return
		}
		if dropped > 0 {
			j.say(ring, rec.at, kernelTopics[topic].name, "%d lines of the kernel left out", dropped)
		}
	} else {
		ring = j.ringOf(rec)
	}
	j.put(ring, line)
}

// mayBePacket reports whether packetLine has to be asked about a message.
func mayBePacket(message string) bool {
	return strings.Contains(message, "IN=") && strings.Contains(message, " SRC=")
}

func (j *Journal) put(r *ring, text string) {
	r.add(entry{j.next, strings.Clone(text)})
	j.next++
}

// say adds a line of the Journal itself about topic to r. The caller holds mu.
func (j *Journal) say(r *ring, at time.Duration, topic, format string, args ...any) {
	j.put(r, fmt.Sprintf("%d,0,%d,-;postern: %s,warning ", userFacility<<3|Warning, at.Microseconds(), topic)+fmt.Sprintf(format, args...))
}

// causedByClients reports whether a line is about what a client or a packet did, as there are
// many when somebody wants that.
func (r record) causedByClients() bool {
	topic, _, _ := strings.Cut(r.topics, ",")
	return topic == "firewall" && r.level > Error || (topic == "socks" || topic == "dhcp" || topic == "dns" || topic == "pppoe") && r.level >= Info
}

// isLogin reports whether a line says that a user has logged in or out.
func (r record) isLogin() bool {
	return r.topics == "system,account,info" && strings.HasPrefix(r.message, "user ") &&
		(strings.Contains(r.message, " logged in") || strings.Contains(r.message, " logged out"))
}

// from returns the first line whose number is sequence or more, as users call interfaces. Its
// number is in the record.
func (j *Journal) from(sequence uint64, called func(string) string) (record, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rings := [3 + len(kernelTopics)]*ring{&j.ours, &j.logins, &j.theirs}
	for i := range j.kernel {
		rings[3+i] = &j.kernel[i].warnings
	}
	var first *entry
	for _, r := range rings {
		for i := range r.entries {
			if e := &r.entries[i]; e.sequence >= sequence {
				if first == nil || e.sequence < first.sequence {
					first = e
				}
				break
			}
		}
	}
	if first == nil {
		return record{}, false
	}
	rec, _ := parseRecord(first.text, called) // it was one when it was added
	rec.sequence = first.sequence
	return rec, true
}

// await waits until there is a line whose number is sequence or more, or ctx is done.
func (j *Journal) await(ctx context.Context, sequence uint64) error {
	for {
		j.mu.Lock()
		next, fresh := j.next, j.fresh
		j.mu.Unlock()
		if next > sequence {
			return nil
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end is the number of the line that comes next.
func (j *Journal) end() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// Lines returns the lines of all rings, oldest first, each as "TIME TOPICS MESSAGE".
func (j *Journal) Lines(v View) ([]string, error) {
	if err := j.catchUp(); err != nil {
		return nil, err
	}
	now := ClockNow()
	var lines []string
	for sequence := uint64(0); ; {
		rec, ok := j.from(sequence, v.Called)
		if !ok {
			return lines, nil
		}
		sequence = rec.sequence + 1
		if rec.topics == "" { // it was no packet
			continue
		}
		lines = append(lines, now.stamp(rec.at, v.Zone)+" "+rec.topics+" "+rec.message)
	}
}

// kernelTopics are RouterOS' topics of what the kernel says of itself, and by what a message about one is known, in small
// letters: by its beginning, or by what it has anywhere. The last one is of all that no other is of. Chips and disks are
// those of the boards: drivers/mtd/chips, drivers/mtd/spi-nor, block/blk-core.c (blk_errors), fs/buffer.c, drivers/mmc,
// drivers/ata, drivers/scsi/sd.c and drivers/nvme. There is no file system on any of them.
var kernelTopics = [...]struct{ name, begins, has string }{
	{"firewall", "nf_|xt_|x_tables|ip_tables|ipt_|ip_set", ""},
	{"disk", "mtd|physmap|cfi|jedec|nor |spi|waiting for chip|mmc|sdhci|nvme|ata|ahci|scsi|sd |virtio_blk|gpt:|partition",
		".flash|i/o error| error, dev |block erase|write error|write buffer error|block device|partition table"},
	{"interface", "neighbour:|bridge|br-|eth|vlan|ppp", "netdev watchdog|received packet on "},
	{"system", "", ""},
}

// kernelTopic returns the index in kernelTopics of a message of the kernel.
func kernelTopic(message string) int {
	message = strings.ToLower(message)
	for i, t := range kernelTopics[:len(kernelTopics)-1] {
		for beginning := range strings.SplitSeq(t.begins, "|") {
			if strings.HasPrefix(message, beginning) {
				return i
			}
		}
		for part := range strings.SplitSeq(t.has, "|") {
			if part != "" && strings.Contains(message, part) {
				return i
			}
		}
		if t.name == "interface" && ofDevice(message) {
			return i
		}
	}
	return len(kernelTopics) - 1
}

// ofDevice reports whether a message is a driver's about an interface: "DRIVER ADDRESS INTERFACE: ..." (__netdev_printk, net/core/dev.c),
// where an address has digits.
func ofDevice(message string) bool {
	words := strings.SplitN(message, " ", 4)
	return len(words) == 4 && strings.HasSuffix(words[2], ":") && !strings.HasSuffix(words[0], ":") && !strings.HasSuffix(words[1], ":") &&
		strings.ContainsAny(words[1], "0123456789")
}
