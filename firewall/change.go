package firewall

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/match"
)

// written is what a table of the kernel's holds since we wrote it: a sum of each rule of each chain. The openings
// are not in it.
type written map[string][]uint64

func newWritten(chains []kernelChain) written {
	w := written{}
	for _, c := range chains {
		sums := make([]uint64, len(c.rules))
		for i, r := range c.rules {
			sums[i] = r.sum()
		}
		w[c.name] = sums
	}
	return w
}

// sum is a number for what the rule says, its counters aside.
func (r kernelRule) sum() uint64 {
	d := sum(r.match...)
	for _, w := range r.target {
		d = d.word(w)
	}
	return uint64(d)
}

// digest is a sum by FNV-1a, of 64 bits. hash/fnv would allocate memory for each word of some thousand rules.
type digest uint64

func (d digest) add(b byte) digest { return (d ^ digest(b)) * 1099511628211 }

func (d digest) word(w string) digest {
	for i := 0; i < len(w); i++ {
		d = d.add(w[i])
	}
	return d.add(0)
}

func (d digest) number(n uint64) digest {
	for range 8 {
		d, n = d.add(byte(n)), n>>8
	}
	return d
}

func (d digest) flags(all ...bool) digest {
	for _, is := range all {
		if is {
			d = d.add(1)
		} else {
			d = d.add(0)
		}
	}
	return d
}

func (d digest) addresses(a *match.Addresses) digest {
	from, to := a.From.As16(), a.To.As16()
	for _, b := range from {
		d = d.add(b)
	}
	for _, b := range to {
		d = d.add(b)
	}
	return d.flags(a.Not, a.From.IsValid(), a.To.IsValid())
}

func (d digest) ports(p *match.Ports) digest {
	for _, r := range p.Ranges {
		d = d.number(uint64(r.From)<<16 | uint64(r.To))
	}
	return d.flags(p.Not).number(uint64(len(p.Ranges)))
}

// texts are all properties of a rule that are text, but for the comment and what it logs.
func (r *Rule) texts() [27]*string {
	return [...]*string{
		&r.Chain, &r.Action, &r.JumpTarget, &r.Protocol, &r.SrcAddressList, &r.DstAddressList, &r.AddressList, &r.TCPFlags,
		&r.InInterface, &r.OutInterface, &r.InInterfaceList, &r.OutInterfaceList, &r.ConnectionState, &r.ConnectionNATState,
		&r.ConnectionMark, &r.PacketMark, &r.RoutingMark, &r.IPsecPolicy, &r.ICMPOptions, &r.RejectWith,
		&r.NewConnectionMark, &r.NewPacketMark, &r.NewRoutingMark, &r.NewMSS, &r.TCPMSS, &r.NewTTL, &r.NewDSCP,
	}
}

// addresses and ports are its other matchers and what it translates to.
func (r *Rule) addresses() [3]*match.Addresses {
	return [...]*match.Addresses{&r.SrcAddress, &r.DstAddress, &r.ToAddresses}
}

func (r *Rule) ports() [4]*match.Ports {
	return [...]*match.Ports{&r.SrcPort, &r.DstPort, &r.Port, &r.ToPorts}
}

// digest is a number for what a rule matches and does, but for what it logs and its comment.
func (r *Rule) digest() digest {
	d := sum()
	for _, s := range r.texts() {
		d = d.word(*s)
	}
	for _, s := range r.Extra {
		d = d.word(s)
	}
	for _, a := range r.addresses() {
		d = d.addresses(a)
	}
	for _, p := range r.ports() {
		d = d.ports(p)
	}
	return d.number(uint64(r.AddressListTimeout)).flags(r.SameNotByDst, r.Final, r.Disabled)
}

// Equal reports whether both rules say the same. Of some hundred rules reflection would take a while.
func (r *Rule) Equal(other *Rule) bool {
	ours, theirs := r.texts(), other.texts()
	for i, s := range ours {
		if *s != *theirs[i] {
			return false
		}
	}
	to, from := r.addresses(), other.addresses()
	for i, a := range to {
		if *a != *from[i] {
			return false
		}
	}
	ports, others := r.ports(), other.ports()
	for i, p := range ports {
		if p.Not != others[i].Not || !slices.Equal(p.Ranges, others[i].Ranges) {
			return false
		}
	}
	return r.Extra == other.Extra && r.AddressListTimeout == other.AddressListTimeout && r.SameNotByDst == other.SameNotByDst &&
		r.Final == other.Final && r.Disabled == other.Disabled && r.Log == other.Log && r.LogPrefix == other.LogPrefix && r.Comment == other.Comment
}

// sum is a number for words, the same each time.
func sum(words ...string) digest {
	d := digest(14695981039346656037)
	for _, w := range words {
		d = d.word(w)
	}
	return d
}

// edit is what a change does to one chain: after the first keep rules it deletes some, and inserts others in
// their place.
type edit struct {
	chain             kernelChain
	keep, deleted, in int
	// made is set if there is no such chain yet.
	made bool
}

// change is the way from a table as it is written to another.
type change struct {
	edits []edit
	dead  []string // chains that go
}

// changes compares what a table holds with what it should hold.
func (w written) changes(next []kernelChain, sums written) (c change) {
	for _, chain := range next {
		old, made := w[chain.name], sums[chain.name]
		e := edit{chain: chain, made: old == nil}
		for e.keep < min(len(old), len(made)) && old[e.keep] == made[e.keep] {
			e.keep++
		}
		same := 0 // at the end
		for same < min(len(old), len(made))-e.keep && old[len(old)-1-same] == made[len(made)-1-same] {
			same++
		}
		e.deleted, e.in = len(old)-e.keep-same, len(made)-e.keep-same
		if e.made || e.deleted > 0 || e.in > 0 {
			c.edits = append(c.edits, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w)) {
		if _, ok := sums[name]; !ok {
			c.dead = append(c.dead, name)
		}
	}
	return c
}

func (c change) empty() bool { return len(c.edits) == 0 && len(c.dead) == 0 }

// deletes reports whether rules of the table go.
func (c change) deletes() bool {
	return len(c.dead) > 0 || slices.ContainsFunc(c.edits, func(e edit) bool { return e.deleted > 0 })
}

// loses reports whether a rule goes that counts for one of the entries in of. old are the table's chains.
func (c change) loses(old []kernelChain, of map[int]bool) bool {
	counts := func(r kernelRule) bool { return r.counts && of[r.entry] }
	for _, chain := range old {
		if slices.Contains(c.dead, chain.name) && slices.ContainsFunc(chain.rules, counts) {
			return true
		}
		for _, e := range c.edits {
			if e.chain.name == chain.name && slices.ContainsFunc(chain.rules[e.keep:e.keep+e.deleted], counts) {
				return true
			}
		}
	}
	return false
}

// change writes c in one piece, and takes away what a rehearsal has left. What it leaves alone keeps its counters,
// to the packet.
func (s *script) change(t Table, es []entry, c change, rehearsed bool) {
	whole := place{t, -1}
	s.begin(t)
	for _, e := range c.edits {
		if e.made {
			s.line(place{t, e.chain.entry}, ":"+e.chain.name, "-", "[0:0]")
		}
	}
	for _, e := range c.edits {
		for i, r := range e.chain.rules[e.keep : e.keep+e.in] {
			s.rule(t, es, r, "-I", e.chain.name, strconv.Itoa(e.keep+i+1))
		}
		for range e.deleted {
			s.line(whole, "-D", e.chain.name, strconv.Itoa(e.keep+e.in+1))
		}
	}
	for _, command := range []string{"-F", "-X"} {
		for _, name := range c.dead {
			s.line(whole, command, name)
		}
	}
	if rehearsed {
		s.line(whole, "-F", rehearsalChain)
		s.line(whole, "-X", rehearsalChain)
	}
	s.commit(t)
}

// tableInfo is struct ipt_getinfo (linux/netfilter_ipv4/ip_tables.h): the size of a table and where its built-in chains are.
type tableInfo struct {
	name       [32]byte
	hooks      uint32
	entry, end [5]uint32
	rules      uint32
	size       uint32
}

// info asks the kernel about a table of iptables-legacy. If there is none it is all zeros: to ask for it would make it.
func info(t Table) (i tableInfo) {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !slices.Contains(strings.Fields(string(names)), string(t)) {
		return tableInfo{}
	}
	const iptGetInfo = 64 // IPT_SO_GET_INFO
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return tableInfo{}
	}
	defer unix.Close(fd)
	copy(i.name[:], t)
	size := uint32(unsafe.Sizeof(i))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, iptGetInfo,
		uintptr(unsafe.Pointer(&i)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return tableInfo{}
	}
	return i
}
