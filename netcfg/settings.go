package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Values of Settings.RPFilter.
const (
	// RPFilterStrict drops a packet that did not come in by the link on which its source would be
	// answered (RFC 3704, section 2.2). It is the default. On links by which a route of a Table leaves it is
	// RPFilterLoose: the answer may take that route.
	RPFilterStrict = "strict"
	// RPFilterLoose drops a packet to whose source there is no route (section 2.4).
	RPFilterLoose = "loose"
	// RPFilterNo drops neither.
	RPFilterNo = "no"
)

// Settings are the kernel's treatment of IPv4 packets, on all links. The zero value is the
// closed one.
type Settings struct {
	// RPFilter is which sources are believed: strict, loose or no; "" stands for strict.
	RPFilter string
	// SendRedirects tells hosts of a better gateway on their link, and AcceptRedirects believes
	// what others tell (ICMP redirects, RFC 1812, sections 5.2.7.2 and 5.2.7.3). With
	// SecureRedirects only those to a gateway of our routes are believed.
	SendRedirects, AcceptRedirects, SecureRedirects bool
	// AcceptSourceRoute forwards packets by the way that their sender chose (RFC 791, section
	// 3.1).
	AcceptSourceRoute bool
	// NoSYNCookies drops connections to the router that do not fit into the queue of those that
	// are not complete, instead of answering with a cookie (RFC 4987, section 3.6).
	NoSYNCookies bool
	// loose are the names of links, with "/" between them, of which RPFilterStrict is RPFilterLoose.
	loose string
}

// parameterFolder has the parameters of the network namespace of the thread that opens it
// (Documentation/networking/ip-sysctl.rst).
const parameterFolder = "/proc/sys/net/ipv4"

func (s Settings) validate() error {
	switch s.RPFilter {
	case "", RPFilterStrict, RPFilterLoose, RPFilterNo:
		return nil
	}
	return fmt.Errorf("settings: rp-filter=%q: expected strict, loose or no", s.RPFilter)
}

// perLink are the parameters of each link.
func (s Settings) perLink() map[string]string {
	return map[string]string{
		"rp_filter":           map[string]string{RPFilterNo: "0", RPFilterLoose: "2"}[s.RPFilter],
		"send_redirects":      flag(s.SendRedirects),
		"accept_redirects":    flag(s.AcceptRedirects),
		"secure_redirects":    flag(s.SecureRedirects),
		"accept_source_route": flag(s.AcceptSourceRoute),
		// An address is answered for only on its own link, and asked from only there: no port
		// tells of the networks behind the others.
		"arp_ignore":   "1",
		"arp_announce": "2",
		// When the first address of a network goes, the others of the same link stay, and with them
		// the connections that are masqueraded behind them.
		"promote_secondaries": "1",
		// Whoever can send packets could fill the log and the serial screen: they are counted
		// instead, see FalseSources.
		"log_martians": "0",
	}
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// set brings the kernel to s: for all links that there are, and those that come.
func (s Settings) set() error {
	// The kernel combines the value of "all" with that of the link: for some parameters either
	// suffices to turn it on, for others both must. So all have the same.
	folders, err := filepath.Glob(parameterFolder + "/conf/*")
	if err != nil {
		return err
	}
	var failed []error
	for name, value := range s.perLink() {
		if value == "" { // of rp_filter
			value = "1"
		}
		for _, folder := range folders {
			v := value
			if name == "rp_filter" && v == "1" && slices.Contains(strings.Split(s.loose, "/"), filepath.Base(folder)) {
				v = "2" // the kernel goes by the greater of this and that of "all"
			}
			err := writeExisting(filepath.Join(folder, name), v)
			if _, gone := os.Stat(folder); errors.Is(gone, fs.ErrNotExist) {
				continue // with its link
			}
			failed = append(failed, err)
		}
	}
	failed = append(failed,
		writeExisting(parameterFolder+"/tcp_syncookies", flag(!s.NoSYNCookies)),
		// "Fragmentation needed" is believed only if TCP finds its sequence number in the packet that it quotes. An echo request in
		// anybody's name would else do, and the kernel keeps an exception of a route for each such name. Sockets are then made to send
		// what routers may fragment; those of TCP that send much set IP_MTU_DISCOVER.
		writeExisting(parameterFolder+"/ip_no_pmtu_disc", "3"))
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// loosen has the sources checked loosely on those of s.loose that were made since set, which the kernel gave the
// parameters of any new link. s may be nil.
func (s *Settings) loosen(p *pass) {
	if s == nil || s.loose == "" || s.RPFilter != "" && s.RPFilter != RPFilterStrict {
		return
	}
	for link := range strings.SplitSeq(s.loose, "/") {
		path := filepath.Join(parameterFolder, "conf", link, "rp_filter")
		if text, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(text)) == "2" {
			continue // it is not there
		}
		p.did("check sources on "+link+" loosely", writeExisting(path, "2"))
	}
}

// FalseSources returns how many packets were dropped since the start because their source
// cannot be behind the link that they came in by: those of Settings.RPFilter, and those with
// an address of this machine, of loopback, of broadcast or multicast.
func FalseSources() (uint64, error) {
	// A line for each processor, of hexadecimal numbers below their names
	// (rt_cpu_seq_show in net/ipv4/route.c).
	text, err := os.ReadFile("/proc/net/stat/rt_cache")
	if err != nil {
		return 0, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "in_martian_src")
	if column < 0 {
		return 0, errors.New("/proc/net/stat/rt_cache: no column in_martian_src")
	}
	var sum uint64
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if column >= len(fields) {
			return 0, fmt.Errorf("/proc/net/stat/rt_cache: %q: expected %d numbers", line, column+1)
		}
		n, err := strconv.ParseUint(fields[column], 16, 32)
		if err != nil {
			return 0, fmt.Errorf("/proc/net/stat/rt_cache: %w", err)
		}
		sum += n
	}
	return sum, nil
}
