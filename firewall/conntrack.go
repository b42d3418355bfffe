package firewall

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// conntrackFile lists the connections of the network namespace of the thread that opens
// it (net/netfilter/nf_conntrack_standalone.c).
const conntrackFile = "/proc/thread-self/net/nf_conntrack"

// Tracked is a connection that the kernel tracks, as the host that opened it sees it.
type Tracked struct {
	// Protocol is as the kernel names it (tcp, udp, icmp), or a number if it does not.
	Protocol string
	// Src and Dst have no port where the protocol has none.
	Src, Dst netip.AddrPort
	// State is the state of a TCP connection, in lower case (established), else "".
	State string
	// Timeout is how long the kernel remembers the connection if no packet comes, in
	// whole seconds.
	Timeout time.Duration
	// ReplySrc and ReplyDst are the ends of the answers: what address translation has made of Dst
	// and Src.
	ReplySrc, ReplyDst netip.AddrPort
	// Assured says that packets came from both sides, so that the kernel keeps the connection
	// when the table is full.
	Assured bool
	// Bytes and ReplyBytes are how much was sent by the host that opened it, and back, with the headers of IP.
	Bytes, ReplyBytes uint64

	// Of ICMP.
	id                 uint16
	icmpType, icmpCode byte
}

// ListTracked lists the IPv4 connections that the kernel tracks. Their number is bounded by the kernel's table, whose size goes
// by the memory of the machine.
func ListTracked() (all []Tracked, err error) {
	err = eachTracked(func(c Tracked) { all = append(all, c) })
	return all, err
}

// maxReadings is how many times eachTracked reads the table at most.
const maxReadings = 4

// eachTracked calls f once with each IPv4 connection that the kernel tracks.
//
// Linux gives the table page by page and goes on by counting entries from its beginning (ct_get_idx). It drops those that are over as it comes to
// them, and others end by themselves, so that it leaves out as many behind them: behind some thousand that are over, nearly all. So the table is read again while fewer
// were read than it has. Where connections begin all the time that may never be so, and what has begun behind the reading may be missing.
func eachTracked(f func(Tracked)) error {
	return eachOf(func() (io.ReadCloser, error) { return os.Open(conntrackFile) }, func() (int, error) {
		entries, _, err := TableSize()
		return entries, err
	}, f)
}

// eachOf is eachTracked, of a table that is opened by open and of which entries tells how many it has.
func eachOf(open func() (io.ReadCloser, error), entries func() (int, error), f func(Tracked)) error {
	seed := maphash.MakeSeed()
	var known []uint64 // sorted: hashes of those of which f was told
	for reading := range maxReadings {
		file, err := open()
		if err != nil {
			return fmt.Errorf("tracked connections: %w", err)
		}
		before := known
		read, err := readTracked(file, func(c Tracked) {
			sum := maphash.Comparable(seed, c.flow())
			if _, told := slices.BinarySearch(before, sum); !told {
				known = append(known, sum)
				f(c)
			}
		})
		file.Close()
		if err != nil || reading > 0 && len(known) == len(before) {
			return err
		}
		if there, err := entries(); err != nil || read >= there {
			return err
		}
		slices.Sort(known)
	}
	return nil
}

// readTracked reads conntrackFile, one line at a time, and returns how many there were.
func readTracked(r io.Reader, f func(Tracked)) (read int, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 512), 4096)
	for ; lines.Scan(); read++ {
		line := lines.Text()
		if !strings.HasPrefix(line, "ipv4 ") {
			continue
		}
		c, err := parseTracked(line)
		if err != nil {
			return read, fmt.Errorf("tracked connections: %q: %w", line, err)
		}
		f(c)
	}
	if err := lines.Err(); err != nil {
		return read, fmt.Errorf("tracked connections: %w", err)
	}
	return read, nil
}

// parseTracked reads a line such as
//
//	ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.0.2 dst=10.5.8.8 sport=1238 dport=21 src=10.5.8.8 ...
//
// TCP and some other protocols have a state. An entry that is never forgotten has no
// timeout. The answers' direction follows the first.
func parseTracked(line string) (Tracked, error) {
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return Tracked{}, errors.New("expected a protocol and its number")
	}
	c := Tracked{Protocol: fields[2]}
	if c.Protocol == "unknown" {
		c.Protocol = fields[3]
	}
	var ends [2]direction
	way := -1 // the first direction, or the second
	for i, f := range fields[4:] {
		name, value, assigned := strings.Cut(f, "=")
		var err error
		switch {
		case f == "[ASSURED]":
			c.Assured = true
		case !assigned && strings.HasPrefix(f, "["): // [UNREPLIED], [OFFLOAD]
		case !assigned && i == 0:
			var seconds uint64
			seconds, err = strconv.ParseUint(f, 10, 31)
			c.Timeout = time.Duration(seconds) * time.Second
		case !assigned && i == 1:
			c.State = strings.ToLower(f)
		case name == "src" && way < 1:
			way++
			err = ends[way].read(name, value)
		case way >= 0:
			err = ends[way].read(name, value)
		}
		if err != nil {
			return Tracked{}, fmt.Errorf("%s: %w", f, err)
		}
	}
	there, back := ends[0], ends[1]
	if !there.src.IsValid() || !there.dst.IsValid() {
		return Tracked{}, errors.New("expected src and dst")
	}
	c.Src, c.Dst = netip.AddrPortFrom(there.src, there.sport), netip.AddrPortFrom(there.dst, there.dport)
	c.ReplySrc, c.ReplyDst = netip.AddrPortFrom(back.src, back.sport), netip.AddrPortFrom(back.dst, back.dport)
	c.Bytes, c.ReplyBytes = there.bytes, back.bytes
	c.id, c.icmpType, c.icmpCode = there.id, there.icmpType, there.icmpCode
	return c, nil
}

// direction is one direction of a connection.
type direction struct {
	src, dst         netip.Addr
	sport, dport, id uint16
	bytes            uint64

	icmpType, icmpCode byte
}

// read takes a field of a line of conntrackFile.
func (d *direction) read(name, value string) (err error) {
	number := func(bits int) (n uint64) {
		n, err = strconv.ParseUint(value, 10, bits)
		return n
	}
	switch name {
	case "src":
		d.src, err = netip.ParseAddr(value)
	case "dst":
		d.dst, err = netip.ParseAddr(value)
	case "sport":
		d.sport = uint16(number(16))
	case "dport":
		d.dport = uint16(number(16))
	case "bytes":
		d.bytes = number(64)
	case "id":
		d.id = uint16(number(16))
	case "type":
		d.icmpType = byte(number(8))
	case "code":
		d.icmpCode = byte(number(8))
	}
	return err
}
