package firewall

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// MaxTracked is the greatest number of connections that ListTracked returns.
const MaxTracked = 4096

// conntrackFile lists the connections of the network namespace of the process that opens
// it (net/netfilter/nf_conntrack_standalone.c).
const conntrackFile = "/proc/net/nf_conntrack"

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
}

// ListTracked lists the IPv4 connections that the kernel tracks, at most MaxTracked.
func ListTracked() ([]Tracked, error) {
	f, err := os.Open(conntrackFile)
	if err != nil {
		return nil, fmt.Errorf("tracked connections: %w", err)
	}
	defer f.Close()
	return readTracked(f)
}

// readTracked reads conntrackFile, one line at a time.
func readTracked(r io.Reader) ([]Tracked, error) {
	var all []Tracked
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 512), 4096)
	for lines.Scan() && len(all) < MaxTracked {
		if !strings.HasPrefix(lines.Text(), "ipv4 ") {
			continue
		}
		c, err := parseTracked(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("tracked connections: %q: %w", lines.Text(), err)
		}
		all = append(all, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("tracked connections: %w", err)
	}
	return all, nil
}

// parseTracked reads a line such as
//
//	ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.0.2 dst=10.5.8.8 sport=1238 dport=21 src=10.5.8.8 ...
//
// TCP and some other protocols have a state. An entry that is never forgotten has no
// timeout. Only the first direction is read, not the answers that follow it.
func parseTracked(line string) (Tracked, error) {
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return Tracked{}, errors.New("expected a protocol and its number")
	}
	c := Tracked{Protocol: fields[2]}
	if c.Protocol == "unknown" {
		c.Protocol = fields[3]
	}
	var src, dst netip.Addr
	var sport, dport uint64
	for i, f := range fields[4:] {
		name, value, assigned := strings.Cut(f, "=")
		var err error
		switch {
		case !assigned && strings.HasPrefix(f, "["): // [UNREPLIED], [ASSURED]
		case !assigned && i == 0:
			var seconds uint64
			seconds, err = strconv.ParseUint(f, 10, 31)
			c.Timeout = time.Duration(seconds) * time.Second
		case !assigned && i == 1:
			c.State = strings.ToLower(f)
		case name == "src" && !src.IsValid():
			src, err = netip.ParseAddr(value)
		case name == "dst" && !dst.IsValid():
			dst, err = netip.ParseAddr(value)
		case name == "sport" && sport == 0:
			sport, err = strconv.ParseUint(value, 10, 16)
		case name == "dport" && dport == 0:
			dport, err = strconv.ParseUint(value, 10, 16)
		}
		if err != nil {
			return Tracked{}, fmt.Errorf("%s: %w", f, err)
		}
		if name == "src" && dst.IsValid() { // the answers' direction
			break
		}
	}
	if !src.IsValid() || !dst.IsValid() {
		return Tracked{}, errors.New("expected src and dst")
	}
	c.Src, c.Dst = netip.AddrPortFrom(src, uint16(sport)), netip.AddrPortFrom(dst, uint16(dport))
	return c, nil
}
