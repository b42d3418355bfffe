package resolve

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// maxSearch is how many domains of the search list are tried.
const maxSearch = 6

// files are the files that configure name resolution on a Linux system. They are read again
// for each lookup, because they can change.
type files struct {
	hosts  string // hosts(5)
	resolv string // resolv.conf(5)
}

// addresses returns the IPv4 addresses of a name in the hosts file.
func (f files) addresses(name string) []netip.Addr {
	name = strings.TrimSuffix(name, ".")
	var addrs []netip.Addr
	// A file that does not exist or cannot be read has no addresses.
	readLines(f.hosts, "#", func(words []string) {
		a, err := netip.ParseAddr(words[0])
		if err != nil || !a.Is4() || len(addrs) == maxAddresses {
			return
		}
		for _, w := range words[1:] {
			if strings.EqualFold(w, name) {
				addrs = append(addrs, a)
				return
			}
		}
	})
	return addrs
}

// plan returns the addresses in the hosts file or, if it has none, the servers of resolv.conf
// and the names to ask for: also the name with each domain of the search list, unless it ends
// with a dot.
func (f files) plan(name string) (plan, error) {
	if addrs := f.addresses(name); len(addrs) > 0 {
		return plan{known: addrs}, nil
	}
	var servers Servers
	var search []string
	err := readLines(f.resolv, "#;", func(words []string) {
		switch words[0] {
		case "nameserver":
			if len(words) < 2 {
				return
			}
			if a, err := netip.ParseAddr(words[1]); err == nil {
				servers = append(servers, netip.AddrPortFrom(a, port))
			}
		case "search", "domain": // the last line of either counts
			search = words[1:min(len(words), 1+maxSearch)]
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plan{}, fmt.Errorf("%w: %w", ErrNoServers, err)
	}
	if len(servers) == 0 {
		return plan{}, ErrNoServers
	}
	names := []string{name}
	if !strings.HasSuffix(name, ".") {
		var longer []string
		for _, domain := range search {
			if n := name + "." + strings.TrimPrefix(domain, "."); ValidName(n) {
				longer = append(longer, n)
			}
		}
		if strings.Contains(name, ".") {
			names = append(names, longer...)
		} else {
			names = append(longer, names...)
		}
	}
	return plan{names: names, servers: servers}, nil
}

// readLines calls line with the words of each line of a file that has words. The characters
// of comment begin a comment.
func readLines(path, comment string, line func(words []string)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		text := lines.Text()
		if i := strings.IndexAny(text, comment); i >= 0 {
			text = text[:i]
		}
		if words := strings.Fields(text); len(words) > 0 {
			line(words)
		}
	}
	return lines.Err()
}
