package firewall

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Timeout is how long the kernel remembers a connection, in one of its states, if no packet comes.
type Timeout struct {
	// Name is that of RouterOS, Help one sentence.
	Name, Help string
	parameter  string // below trackingFolder
	Default    time.Duration
}

// MaxTimeout is the longest timeout that can be set.
const MaxTimeout = 7 * 24 * time.Hour

// Timeouts are those of Tracking, in RouterOS's order. The defaults are the kernel's, but for
// connections of TCP, for which it has 5 days and RFC 5382 (REQ-5) asks 2 hours and 4 minutes, and
// for streams of UDP, for which it has the 2 minutes that RFC 4787 (REQ-5) asks at the least. Behind the end of a connection
// they are RouterOS's 10 seconds, not 2 minutes: who opens and ends 30 a second would have 1 MB of a router's 32 with what is over.
var Timeouts = [...]Timeout{
	{"tcp-syn-sent-timeout", "behind a SYN", "tcp_timeout_syn_sent", 2 * time.Minute},
	{"tcp-syn-received-timeout", "behind the answer to a SYN", "tcp_timeout_syn_recv", time.Minute},
	{"tcp-established-timeout", "of an open connection", "tcp_timeout_established", 2*time.Hour + 4*time.Minute},
	{"tcp-fin-wait-timeout", "behind the first FIN", "tcp_timeout_fin_wait", 2 * time.Minute},
	{"tcp-close-wait-timeout", "until the FIN of the other side", "tcp_timeout_close_wait", time.Minute},
	{"tcp-last-ack-timeout", "behind the second FIN", "tcp_timeout_last_ack", 30 * time.Second},
	{"tcp-time-wait-timeout", "behind the end of a connection", "tcp_timeout_time_wait", 10 * time.Second},
	{"tcp-close-timeout", "behind a reset", "tcp_timeout_close", 10 * time.Second},
	{"tcp-max-retrans-timeout", "behind three segments that were sent again without an answer", "tcp_timeout_max_retrans", 5 * time.Minute},
	{"tcp-unacked-timeout", "behind data that was not acknowledged", "tcp_timeout_unacknowledged", 5 * time.Minute},
	{"udp-timeout", "of UDP from one side", "udp_timeout", 30 * time.Second},
	{"udp-stream-timeout", "of UDP from both sides", "udp_timeout_stream", 3 * time.Minute},
	{"icmp-timeout", "of ICMP", "icmp_timeout", 30 * time.Second},
	{"generic-timeout", "of all other protocols", "generic_timeout", 10 * time.Minute},
}

// Tracking are the settings of connection tracking.
type Tracking struct {
	// Timeouts are those of the list Timeouts, in whole seconds; 0 stands for the default.
	Timeouts [len(Timeouts)]time.Duration
	// Strict takes up no connection of TCP in the middle, such as one of before a restart.
	Strict bool
}

// DefaultTracking is what holds where nothing was set.
func DefaultTracking() (t Tracking) {
	for i, timeout := range Timeouts {
		t.Timeouts[i] = timeout.Default
	}
	return t
}

// Set brings the kernel to t.
func (t Tracking) Set() error {
	write := func(name, value string) error {
		if err := os.WriteFile(trackingFolder+name, []byte(value), 0); err != nil {
			return fmt.Errorf("connection tracking: %w", err)
		}
		return nil
	}
	parametersTurn.Lock()
	defer parametersTurn.Unlock()
	for i, timeout := range Timeouts {
		seconds := cmp.Or(t.Timeouts[i], timeout.Default) / time.Second
		if err := write(timeout.parameter, strconv.Itoa(int(seconds))); err != nil {
			return err
		}
	}
	loose := "1"
	if t.Strict {
		loose = "0"
	}
	if err := write("tcp_loose", loose); err != nil {
		return err
	}
	// What a connection carries is counted from its beginning, or not at all. The room for it is there anyway.
	return write("acct", "1")
}

// TableSize is how many entries the kernel's table of connections has, and how many it can have.
func TableSize() (entries, limit int, err error) {
	entries, err = readTracking("count")
	if err == nil {
		limit, err = readTracking("max")
	}
	return entries, limit, err
}

// readTracking reads a parameter that is a number. The size of the table is read each second, and leaves hardly any garbage: package os
// makes a file of it, and room for 512 bytes.
func readTracking(name string) (int, error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("connection tracking: %s: %w", name, err) }
	fd, err := unix.Open(trackingFolder+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var text [20]byte
	size, err := unix.Read(fd, text[:])
	if err != nil {
		return fail(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text[:size])))
	if err != nil {
		return fail(err)
	}
	return n, nil
}

// Trimmed is what Trim has made a host lose.
type Trimmed struct {
	Source netip.Addr
	Had    int // entries before
	Lost   int
}

// Trim makes room in the kernel's table of connections, until no more than limit are left that
// both sides have sent something of; it may take several calls. The hosts that have most of them
// lose as many as are too many, so that all of these have the same number at the end, and those
// with fewer keep what they have. One that dst-nat sends on is the host's that it goes to: however many call a server from outside,
// they take no other's. The router, whose addresses are own, is such a host. Of those of one host, the callers that have most lose in the same manner. Those that were silent for
// longest go first. Among so many hosts, or callers of one, that none could keep leastShare, only that counts.
// What has a bound of its own is kept: connections of TCP that the router has a socket for, and others that it has begun.
//
// In the place of what only one side has sent something of, the kernel takes new ones by itself.
// A host that opens as many as there can be would leave room for nobody else, nor for the router.
//
// It fails if none of those that are too many could be forgotten.
func Trim(limit int, own []netip.Addr) ([]Trimmed, error) {
	sockets, err := openSockets()
	if err != nil {
		return nil, err
	}
	byHost, byCaller, total := map[[4]byte]int{}, map[caller]int{}, 0
	if err := eachTracked(func(c Tracked) {
		if c.Assured {
			total++
		}
		if from, ok := c.mayGo(own, sockets); ok {
			byHost[from.host]++
			byCaller[from]++
		}
	}); err != nil || total <= limit {
		return nil, err
	}
	excess := total - limit
	share := keptShare(maps.Values(byHost), excess)
	// Of the hosts that have more than that, what each of their callers keeps.
	kept := map[[4]byte]int{}
	for host, n := range byHost {
		switch {
		case share == 0:
			kept[host] = 0
		case n > share:
			kept[host] = keptShare(func(yield func(int) bool) {
				for from, n := range byCaller {
					if from.host == host && !yield(n) {
						return
					}
				}
			}, n-share)
		}
	}
	tooMany := func(c Tracked) (caller, bool) {
		from, ok := c.mayGo(own, sockets)
		if !ok {
			return caller{}, false
		}
		least, ok := kept[from.host]
		return from, ok && byCaller[from] > least
	}
	silence, err := silences()
	if err != nil {
		return nil, err
	}
	// What is too many, or the part of it that was silent for longest.
	candidates := silentest{room: max(maxTrim, limit/5), silence: silence}
	if err := eachTracked(func(c Tracked) {
		if _, ok := tooMany(c); ok {
			candidates.add(c)
		}
	}); err != nil {
		return nil, err
	}
	slices.SortStableFunc(candidates.all, func(a, b Tracked) int { return cmp.Compare(silence(b), silence(a)) })
	doomed := candidates.all[:0]
	had, lost := maps.Clone(byCaller), map[caller]int{}
	for _, c := range candidates.all {
		if from, ok := tooMany(c); ok && len(doomed) < excess && byHost[from.host] > share {
			doomed = append(doomed, c)
			byHost[from.host]--
			byCaller[from]--
		}
	}
	gone, err := forget(doomed)
	for _, c := range doomed {
		if from, _ := c.mayGo(own, sockets); gone[c.flow()] {
			lost[from]++
		}
	}
	var all []Trimmed
	for from, n := range lost {
		all = append(all, Trimmed{netip.AddrFrom4(from.source), had[from], n})
	}
	slices.SortFunc(all, func(a, b Trimmed) int { return cmp.Compare(b.Lost, a.Lost) })
	if err == nil && len(doomed) > 0 && len(all) == 0 {
		err = fmt.Errorf("none of %d connections could be forgotten", len(doomed))
	}
	return all, err
}

// silentest are those of some connections that were silent for longest.
type silentest struct {
	room    int // how many there can be
	silence func(Tracked) time.Duration
	// all is a heap when it is full: none was silent for longer than the two that stand behind twice its place, from 0.
	all []Tracked
}

func (s *silentest) add(c Tracked) {
	if len(s.all) < s.room {
		if s.all = append(s.all, c); len(s.all) == s.room {
			slices.SortFunc(s.all, func(a, b Tracked) int { return cmp.Compare(s.silence(a), s.silence(b)) })
		}
		return
	}
	silence := s.silence(c)
	if silence <= s.silence(s.all[0]) {
		return
	}
	// It takes the place of the first, and goes back behind those that were not silent for so long.
	at := 0
	for next := 1; next < len(s.all); next = 2*at + 1 {
		if next+1 < len(s.all) && s.silence(s.all[next+1]) < s.silence(s.all[next]) {
			next++
		}
		if s.silence(s.all[next]) >= silence {
			break
		}
		s.all[at] = s.all[next]
		at = next
	}
	s.all[at] = c
}

// caller is who has begun connections, and the host that these count for, or noHost for the router.
type caller struct{ host, source [4]byte }

var noHost [4]byte

// keptShare is fairShare, but 0 if that is less than leastShare: who has how many does not matter then.
func keptShare(counts iter.Seq[int], excess int) int {
	share := fairShare(slices.Collect(counts), excess)
	if share < leastShare {
		return 0
	}
	return share
}

// leastShare is how many connections a host keeps at the least because others have more. Thousands of hosts, as call from
// outside by a rule of dst-nat, would leave less to one of the LAN that uses all of its own.
const leastShare = 32

// silences returns how long a connection was silent, at the least. One that is being closed counts as silent for ever.
func silences() (func(Tracked) time.Duration, error) {
	whole := map[string]time.Duration{}
	const underWay = "data under way"
	parametersTurn.Lock() // of Forget's there are some that are 0
	defer parametersTurn.Unlock()
	for name, parameter := range map[string]string{"tcp": "tcp_timeout_established", underWay: "tcp_timeout_unacknowledged", "udp": "udp_timeout_stream", "icmp": "icmp_timeout", "": "generic_timeout"} {
		seconds, err := readTracking(parameter)
		if err != nil {
			return nil, err
		}
		whole[name] = time.Duration(seconds) * time.Second
	}
	whole[underWay] = min(whole[underWay], whole["tcp"])
	return func(c Tracked) time.Duration {
		if c.Protocol == "tcp" && c.State != "established" {
			return MaxTimeout
		}
		// One whose last data was not acknowledged yet, as one that moves mostly is, has less time left than one of which all was.
		if c.Protocol == "tcp" && c.Timeout <= whole[underWay] {
			return whole[underWay] - c.Timeout
		}
		timeout, known := whole[c.Protocol]
		if !known {
			timeout = whole[""]
		}
		return timeout - c.Timeout
	}, nil
}

// maxTrim is how many connections are looked at closely at once, or a fifth of the limit if that is more, which takes some 200 bytes
// for each. If more are too many the next call goes on.
const maxTrim = 1024

// mayGo reports whether Trim may forget a connection, and for whom it counts.
func (c Tracked) mayGo(own []netip.Addr, open map[socket]bool) (caller, bool) {
	if !c.Assured || !c.forgettable() {
		return caller{}, false
	}
	from := caller{c.Src.Addr().As4(), c.Src.Addr().As4()}
	switch tcp := c.Protocol == "tcp"; {
	case slices.Contains(own, c.Src.Addr()):
		from.host = noHost
		return from, tcp && !open[socketOf(c.Src, c.Dst)]
	case slices.Contains(own, c.ReplySrc.Addr()):
		from.host = noHost
		return from, !tcp || !open[socketOf(c.ReplySrc, c.ReplyDst)]
	case c.ReplySrc.Addr() != c.Dst.Addr():
		from.host = c.ReplySrc.Addr().As4()
	}
	return from, true
}

// socket is the address and the port of its own end, and then of the other.
type socket [12]byte

func socketOf(own, other netip.AddrPort) (s socket) {
	for i, end := range []netip.AddrPort{own, other} {
		address := end.Addr().As4()
		copy(s[6*i:], address[:])
		binary.BigEndian.PutUint16(s[6*i+4:], end.Port())
	}
	return s
}

// openSockets are the TCP sockets of the network namespace of the thread, but for those of connections that are over. Services, and the kernel
// where nobody owns one, bound how many there are. A connection that is tracked as open need not have one: where a program does not accept
// as fast as others call, the kernel says nothing of it to them.
func openSockets() (map[socket]bool, error) {
	// The addresses are hexadecimal numbers in the processor's order of bytes (get_tcp4_sock in net/ipv4/tcp_ipv4.c).
	file, err := os.Open("/proc/thread-self/net/tcp")
	if err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	defer file.Close()
	const timeWait = "06"
	all := map[socket]bool{}
	lines := bufio.NewScanner(file)
	lines.Scan() // the names of the columns
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] == timeWait {
			continue
		}
		var s socket
		for i, end := range fields[1:3] {
			address, port, _ := strings.Cut(end, ":")
			a, errA := strconv.ParseUint(address, 16, 32)
			p, errP := strconv.ParseUint(port, 16, 16)
			if err := cmp.Or(errA, errP); err != nil {
				return nil, fmt.Errorf("sockets: %q: %w", lines.Text(), err)
			}
			binary.NativeEndian.PutUint32(s[6*i:], uint32(a))
			binary.BigEndian.PutUint16(s[6*i+4:], uint16(p))
		}
		all[s] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	return all, nil
}

// fairShare is the greatest number of entries with which each of those that have counts may be left so that at
// least excess entries go. It sorts counts.
func fairShare(counts []int, excess int) int {
	slices.SortFunc(counts, func(a, b int) int { return b - a })
	if excess <= 0 || len(counts) == 0 {
		return int(^uint(0) >> 1)
	}
	// The first i sources are cut down to the next one's number, until that is enough.
	sum := 0
	for i, n := range counts {
		sum += n
		next := 0
		if i+1 < len(counts) {
			next = counts[i+1]
		}
		if sum-next*(i+1) >= excess {
			return (sum - excess) / (i + 1)
		}
	}
	return 0
}
