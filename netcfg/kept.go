package netcfg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/nlattr"
)

const (
	// keptLook is how often KeepNeighbors looks. The kernel counts on a neighbour that has answered for 15 seconds at the
	// least (half of base_reachable_time_ms, arp(7)), so that none is missed.
	keptLook = 10 * time.Second
	// keptFor is how long a neighbour is kept that nothing is heard of. Then the kernel asks it, and who answers is kept on.
	keptFor = 30 * time.Minute
)

// keptNeighbors is how many neighbours are kept on a machine with so much memory in bytes: half as many as the kernel's
// table has for others, as for each that is gone some packets may wait (unres_qlen_bytes) until the next look.
func keptNeighbors(memory uint64) int { return int(min(max(memory/(256<<10), 128), 4096)) }

// KeepNeighbors has the kernel keep the entries of neighbours that have answered, until ctx is done. When its ARP table is
// full the kernel forgets who was silent for 5 seconds, and makes no new entries: who makes it ask for hosts that do not exist
// would keep others out for as long as he goes on. Entries with NTF_EXT_LEARNED (linux/neighbour.h) are not counted, and
// stay; each link has its share of them. Gateways have entries of their own, see keepGateways.
func (m *Manager) KeepNeighbors(ctx context.Context) {
	looks := time.NewTicker(keptLook)
	defer looks.Stop()
	logged := ""
	for {
		// What fails is tried again at the next look.
		message := ""
		if err := m.keepNeighbors(); err != nil {
			message = err.Error()
		}
		if message != "" && message != logged {
			m.logf("netcfg: keep ARP entries: %s", message)
		}
		logged = message
		select {
		case <-ctx.Done():
			return
		case <-looks.C:
		}
	}
}

// known is an entry of the ARP table that can be kept.
type known struct {
	link    string
	address netip.Addr
	kept    bool
	silence time.Duration // since it was last heard
}

// keepNeighbors is one look.
func (m *Manager) keepNeighbors() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.config == nil {
		return nil
	}
	socket, own, err := m.look()
	if err != nil {
		return err
	}
	defer socket.Close()
	links := m.want(*m.config, state{links: own}).links
	var all, failed []known
	_, err = list(socket, "neighbours", unix.RTM_GETNEIGH, (&nlNeighbor{}).Serialize(), func(message []byte) (struct{}, error) {
		entry, err := parseNeighbor(message, m.links)
		if err != nil || isManaged(message) {
			return struct{}{}, err
		}
		n := known{link: nameOf(m.links, number(message[4:])), address: entry.Address, kept: isKept(message), silence: silenceOf(message)}
		i := linkNamed(links, n.link)
		state := nl.NativeEndian().Uint16(message[8:])
		switch {
		case i < 0 || state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0:
		case n.kept && state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) == 0,
			n.kept && (links[i].arp == ARPDisabled || links[i].arp == ARPReplyOnly):
			failed = append(failed, n)
		case n.kept || state&unix.NUD_REACHABLE != 0:
			all = append(all, n)
		}
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	var errs []error
	did := func(n known, err error) {
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) { // the entry or its link has gone meanwhile
			errs = append(errs, fmt.Errorf("%s on %s: %w", n.address, n.link, err))
		}
	}
	for _, n := range failed {
		did(n, changeNeighbor(unix.RTM_DELNEIGH, 0, m.index(n.link), neighbor{address: n.address}, 0))
	}
	keep := chooseKept(all, m.mostKept)
	for i, n := range all {
		if keep[i] != n.kept {
			// With NTF_USE the entry's state and hardware address stay; one that was silent is asked.
			did(n, changeNeighbor(unix.RTM_NEWNEIGH, 0, m.index(n.link), neighbor{address: n.address, kept: keep[i]}, 0))
		}
	}
	return errors.Join(errs...)
}

// chooseKept chooses who is kept: most at the most. Links have equal shares of that, and what some do not need others have. On
// each link those who are kept already go first, as newcomers may be one host under many addresses, then who was heard last.
func chooseKept(all []known, most int) (keep []bool) {
	keep = make([]bool, len(all))
	byLink := map[string][]int{}
	var links []string
	for i, n := range all {
		if n.silence >= keptFor {
			continue
		}
		if byLink[n.link] == nil {
			links = append(links, n.link)
		}
		byLink[n.link] = append(byLink[n.link], i)
	}
	for _, of := range byLink {
		slices.SortFunc(of, func(a, b int) int {
			switch {
			case all[a].kept && !all[b].kept:
				return -1
			case !all[a].kept && all[b].kept:
				return 1
			}
			return cmp.Compare(all[a].silence, all[b].silence)
		})
	}
	for len(links) > 0 && most > 0 {
		links = slices.DeleteFunc(links, func(link string) bool {
			if of := byLink[link]; len(of) > 0 && most > 0 {
				keep[of[0]] = true
				byLink[link] = of[1:]
				most--
			}
			return len(byLink[link]) == 0
		})
	}
	return keep
}

// silenceOf is how long nothing was heard of the neighbour in a message of type RTM_NEWNEIGH: the first number of struct nda_cacheinfo
// (linux/neighbour.h), in hundredths of a second (USER_HZ, time(7)).
func silenceOf(message []byte) (silence time.Duration) {
	_ = nlattr.Each(message[unix.SizeofNdMsg:], func(typ uint16, value []byte) error {
		if typ == unix.NDA_CACHEINFO && len(value) >= 4 {
			silence = time.Duration(nl.NativeEndian().Uint32(value)) * (time.Second / 100)
		}
		return nil
	})
	return silence
}
