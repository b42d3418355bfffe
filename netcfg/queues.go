package netcfg

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/machine"
	"github.com/postern-router/postern/internal/nlattr"
)

// LinkQueues are the classes of what a link sends (tc-htb(8)). A packet is in the class whose number, behind QueueMajor, is its priority, as a
// firewall's CLASSIFY sets it. What is in no class is sent at once.
type LinkQueues struct {
	Interface string
	// Classes come behind those that they are in.
	Classes []Class
}

// Class is a share of what a link sends.
type Class struct {
	// ID is 1..65535, another for each class of a link. Parent is the class that it is in, 0 for none.
	ID, Parent uint16
	// Rate is what it has in any case, and Ceil what it never exceeds, in bytes per second. The rest it borrows from its parent.
	Rate, Ceil uint32
	// Burst and CeilBurst are how many bytes it may send above these rates after it has sent less.
	Burst, CeilBurst uint32
	// Priority is 0..7: of classes in one parent the lowest borrows first.
	Priority uint8
	// Leaf says that packets are in the class itself. They are shared out among its connections (tc-fq_codel(8)).
	Leaf bool
}

const (
	// QueueMajor is the first half of the numbers of our classes. A queue of another number on a link is somebody else's.
	QueueMajor = 0x5051
	// MaxClasses is how many classes a Config can have.
	MaxClasses = 1024
	// leafFlows is into how many shares a class sorts its connections; each takes 64 bytes.
	leafFlows = 32
	// quantum is how many bytes classes of one priority borrow in turn: two packets.
	quantum = 3028
	// directPackets is how many packets in no class wait where the link is busy.
	directPackets = 256
)

// The bounds of the memory of packets that wait in one class. All together it is an eighth of the machine's, as long as a class has the lower bound.
const (
	minLeaf = 32 << 10
	maxLeaf = 512 << 10
)

// class is a class of the kernel's. A parent or a leaf of 0 is none.
type class struct {
	id, parent    uint16
	rate, ceil    uint32 // bytes per second
	burst, cburst uint32 // ticks of 64 ns (PSCHED_SHIFT, net/pkt_sched.h) that so many bytes take at that rate
	priority      uint32
	// leaf is how much memory its packets may take.
	leaf uint32
}

// classes are those of a link that has our queue.
type classes struct {
	link string
	all  []class // in no order
	// dropped is what those with packets have dropped, by their numbers.
	dropped map[uint16]uint64
}

func (c classes) find(id uint16) int {
	return slices.IndexFunc(c.all, func(o class) bool { return o.id == id })
}

// around calls f for a class and each that it is in.
func (c classes) around(id uint16, f func(id uint16)) {
	i := c.find(id)
	for range c.all { // as long as none is in itself
		if i < 0 {
			return
		}
		f(c.all[i].id)
		i = c.find(c.all[i].parent)
	}
}

// ticks is how long so many bytes take at a rate, as the kernel has it.
func ticks(bytes, rate uint32) uint32 {
	return uint32(min(uint64(bytes)*1e9/uint64(max(rate, 1))>>6, 1<<32-1))
}

// leafMemory is the memory for the packets of each of so many classes, on a machine with so many bytes of it. It changes by doubling, so that
// few changes of the number change all of them.
func leafMemory(memory uint64, leaves int) uint32 {
	size := uint64(minLeaf)
	for size < maxLeaf && size*2*uint64(leaves) <= memory/8 {
		size *= 2
	}
	return uint32(size)
}

// wantQueues returns the classes that links should have.
func (c Config) wantQueues(links []link) (all []classes) {
	leaves := 0
	for _, q := range c.Queues {
		for _, k := range q.Classes {
			if k.Leaf {
				leaves++
			}
		}
	}
	_, memory := machine.Memory()
	size := leafMemory(memory, leaves)
	for _, q := range c.Queues {
		if linkNamed(links, q.Interface) < 0 {
			continue // it waits
		}
		w := classes{link: q.Interface}
		for _, k := range q.Classes {
			made := class{k.ID, k.Parent, k.Rate, k.Ceil, ticks(k.Burst, k.Rate), ticks(k.CeilBurst, k.Ceil), uint32(k.Priority), 0}
			if k.Leaf {
				made.leaf = size
			}
			w.all = append(w.all, made)
		}
		all = append(all, w)
	}
	return all
}

func (c Config) validateQueues() error {
	count := 0
	seen := map[string]bool{}
	for _, q := range c.Queues {
		if seen[q.Interface] {
			return fmt.Errorf("queues: interface=%s: expected each interface once", q.Interface)
		}
		seen[q.Interface] = true
		count += len(q.Classes)
		inner := map[uint16]bool{0: true}
		known := map[uint16]bool{}
		for _, k := range q.Classes {
			if k.ID == 0 || known[k.ID] || !inner[k.Parent] || k.Rate == 0 || k.Ceil < k.Rate || k.Priority > 7 {
				return fmt.Errorf("queues: interface=%s class=%d: expected a number of its own, a class that it is in before it, rates and a priority of 0..7",
					q.Interface, k.ID)
			}
			known[k.ID], inner[k.ID] = true, !k.Leaf
		}
	}
	if count > MaxClasses {
		return fmt.Errorf("queues: %d classes on %d interfaces, expected at most %d: fewer queues, or interfaces as their dst",
			count, len(c.Queues), MaxClasses)
	}
	return nil
}

// reconcileQueues brings the classes of links from have to want. Classes that stay keep their packets and counters.
func (m *Manager) reconcileQueues(p *pass, have, want []classes) {
	of := func(all []classes, link string) (classes, bool) {
		i := slices.IndexFunc(all, func(c classes) bool { return c.link == link })
		if i < 0 {
			return classes{link: link}, false
		}
		return all[i], true
	}
	links := map[int]bool{}
	for _, h := range have {
		links[m.index(h.link)] = true
	}
	maps.DeleteFunc(m.dropped, func(k classKey, _ uint64) bool { return !links[k.index] })
	for _, h := range have {
		if _, stays := of(want, h.link); !stays {
			if err := m.changeRoot(unix.RTM_DELQDISC, 0, h.link); !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
				p.did("remove the queues of "+h.link, err)
			}
		}
	}
	for _, w := range want {
		h, there := of(have, w.link)
		if !there {
			if err := m.changeRoot(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, w.link); err != nil {
				p.did("make the queues of "+w.link, err)
				continue
			}
		}
		m.reconcileClasses(p, h, w, !there)
	}
}

func (m *Manager) reconcileClasses(p *pass, h, w classes, made bool) {
	index, changed := m.index(w.link), made
	// A class cannot get another parent, so it goes, and what is in it goes before.
	stays := map[uint16]bool{0: true}
	for again := true; again; {
		again = false
		for _, c := range h.all {
			i := w.find(c.id)
			if !stays[c.id] && stays[c.parent] && i >= 0 && w.all[i].parent == c.parent {
				stays[c.id], again = true, true
			}
		}
	}
	if !made {
		m.keepDropped(index, h, w, stays)
	}
	gone := slices.DeleteFunc(slices.Clone(h.all), func(c class) bool { return stays[c.id] })
	for len(gone) > 0 {
		i := slices.IndexFunc(gone, func(c class) bool { return !slices.ContainsFunc(gone, func(o class) bool { return o.parent == c.id }) })
		if i < 0 {
			p.did("sort the queues of "+w.link, errors.New("a class is in itself"))
			return
		}
		if err := changeClass(unix.RTM_DELTCLASS, 0, index, gone[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			p.did(fmt.Sprintf("remove class %d of %s", gone[i].id, w.link), err)
			return
		}
		changed = true
		gone = slices.Delete(gone, i, i+1)
	}
	for _, c := range w.all {
		old := class{}
		if i := h.find(c.id); i >= 0 && stays[c.id] {
			old = h.all[i]
		}
		plain, oldPlain := c, old
		plain.leaf, oldPlain.leaf = 0, 0
		if c.leaf == 0 {
			oldPlain.priority = c.priority // only of a leaf can it be changed (htb_change_class, net/sched/sch_htb.c), and it has no effect else
		}
		var err error
		if plain != oldPlain {
			changed = true
			err = changeClass(unix.RTM_NEWTCLASS, unix.NLM_F_CREATE, index, c)
		}
		if err == nil && c.leaf != 0 && c.leaf != old.leaf {
			changed = true
			err = m.changeLeaf(index, c, old.leaf != 0)
		}
		if err != nil {
			p.did(fmt.Sprintf("change class %d of %s", c.id, w.link), err)
			return
		}
	}
	if changed {
		p.did("change the queues of "+w.link, nil)
	}
}

// keepDropped notes what the queues of packets have dropped that will be gone when the classes of a link are as w says: the kernel forgets it, and
// the classes that stay around them have counted their bytes.
func (m *Manager) keepDropped(index int, h, w classes, stays map[uint16]bool) {
	for _, c := range h.all {
		n := h.dropped[c.id]
		if i := w.find(c.id); n == 0 || stays[c.id] && i >= 0 && w.all[i].leaf != 0 {
			continue
		}
		h.around(c.id, func(id uint16) {
			if stays[id] {
				if m.dropped == nil {
					m.dropped = map[classKey]uint64{}
				}
				m.dropped[classKey{index, id}] += n
			}
		})
	}
	maps.DeleteFunc(m.dropped, func(k classKey, _ uint64) bool { return k.index == index && !stays[k.id] })
}

// The messages of queues (linux/rtnetlink.h, linux/pkt_sched.h).
const (
	tcaKind    = 1
	tcaOptions = 2
	tcaRate    = 5
	tcaStats2  = 7

	htbParms       = 1
	htbInit        = 2
	htbDirectQlen  = 5
	htbVersion     = 3
	htbQuantum     = 10 // rate2quantum, which each class overrides
	codelLimit     = 2
	codelFlows     = 5
	codelMemory    = 9
	statsBasic     = 1
	statsRate      = 2
	statsQueue     = 3
	statsRate64    = 5
	linkEthernet   = 1 // TC_LINKLAYER_ETHERNET: the kernel needs no table of rates
	tcmsgSize      = 20
	handleRoot     = 0xffffffff
	codelKind      = "fq_codel"
	fifoKind       = "pfifo"
	fifoPacketSize = 2 << 10
)

// tcmsg is struct tcmsg.
type tcmsg struct {
	index          int
	handle, parent uint32
}

func (t tcmsg) Len() int { return tcmsgSize }

func (t tcmsg) Serialize() []byte {
	b := make([]byte, tcmsgSize)
	order := nl.NativeEndian()
	order.PutUint32(b[4:], uint32(t.index))
	order.PutUint32(b[8:], t.handle)
	order.PutUint32(b[12:], t.parent)
	return b
}

func handle(id uint16) uint32 { return QueueMajor<<16 | uint32(id) }

// changeRoot makes or removes the queue of a link that has the classes.
func (m *Manager) changeRoot(typ, flags int, link string) error {
	options := nl.NewRtAttr(tcaOptions, nil)
	var glob [20]byte // struct tc_htb_glob
	order := nl.NativeEndian()
	order.PutUint32(glob[0:], htbVersion)
	order.PutUint32(glob[4:], htbQuantum)
	options.AddRtAttr(htbInit, glob[:])
	options.AddRtAttr(htbDirectQlen, nl.Uint32Attr(directPackets))
	attrs := []*nl.RtAttr{nl.NewRtAttr(tcaKind, nl.ZeroTerminated("htb"))}
	if typ == unix.RTM_NEWQDISC {
		attrs = append(attrs, options)
	}
	return request(typ, flags, tcmsg{m.index(link), handle(0), handleRoot}, attrs)
}

func changeClass(typ, flags, index int, c class) error {
	head := tcmsg{index, handle(c.id), handle(c.parent)}
	if typ == unix.RTM_DELTCLASS {
		return request(typ, flags, head, nil)
	}
	order := nl.NativeEndian()
	var opt [44]byte // struct tc_htb_opt: two of struct tc_ratespec, then numbers
	for i, rate := range []uint32{c.rate, c.ceil} {
		opt[12*i+1] = linkEthernet
		order.PutUint32(opt[12*i+8:], rate)
	}
	for i, n := range []uint32{c.burst, c.cburst, quantum, 0, c.priority} {
		order.PutUint32(opt[24+4*i:], n)
	}
	options := nl.NewRtAttr(tcaOptions, nil)
	options.AddRtAttr(htbParms, opt[:])
	return request(typ, flags, head, []*nl.RtAttr{
		nl.NewRtAttr(tcaKind, nl.ZeroTerminated("htb")), options,
		nl.NewRtAttr(tcaRate, []byte{0, 2}), // struct tc_estimator: the average of some seconds, once a second
	})
}

func (m *Manager) leafKind() string {
	if m.PlainQueues {
		return fifoKind
	}
	return codelKind
}

// changeLeaf makes or changes the queue of a class's packets.
func (m *Manager) changeLeaf(index int, c class, there bool) error {
	options := nl.NewRtAttr(tcaOptions, nil)
	if m.leafKind() == fifoKind {
		options.Data = nl.Uint32Attr(c.leaf / fifoPacketSize) // struct tc_fifo_qopt
	} else {
		options.AddRtAttr(codelLimit, nl.Uint32Attr(1024))
		options.AddRtAttr(codelMemory, nl.Uint32Attr(c.leaf))
		if !there { // which cannot be changed
			options.AddRtAttr(codelFlows, nl.Uint32Attr(leafFlows))
		}
	}
	flags := unix.NLM_F_CREATE
	if !there {
		flags |= unix.NLM_F_REPLACE
	}
	return request(unix.RTM_NEWQDISC, flags, tcmsg{index, 0, handle(c.id)}, []*nl.RtAttr{nl.NewRtAttr(tcaKind, nl.ZeroTerminated(m.leafKind())), options})
}

// tcItem is what a message tells of a queue or a class.
type tcItem struct {
	tcmsg
	kind    string
	options []byte
	stats   ClassCounters
}

func parseTC(b []byte) (t tcItem, err error) {
	if len(b) < tcmsgSize {
		return t, fmt.Errorf("message of %d bytes", len(b))
	}
	order := nl.NativeEndian()
	t.index, t.handle, t.parent = int(order.Uint32(b[4:])), order.Uint32(b[8:]), order.Uint32(b[12:])
	return t, nlattr.Each(b[tcmsgSize:], func(typ uint16, value []byte) error {
		switch typ {
		case tcaKind:
			t.kind = nl.BytesToString(value)
		case tcaOptions:
			t.options = slices.Clone(value)
		case tcaStats2:
			return t.stats.parse(value)
		}
		return nil
	})
}

// parse reads struct gnet_stats_basic, _rate_est and _queue (linux/gen_stats.h).
func (s *ClassCounters) parse(b []byte) error {
	order := nl.NativeEndian()
	return nlattr.Each(b, func(typ uint16, v []byte) error {
		switch {
		case typ == statsBasic && len(v) >= 12:
			s.Bytes, s.Packets = order.Uint64(v), uint64(order.Uint32(v[8:]))
		case typ == statsRate && len(v) >= 8 && s.Rate == 0:
			s.Rate, s.PacketRate = uint64(order.Uint32(v)), uint64(order.Uint32(v[4:]))
		case typ == statsRate64 && len(v) >= 16:
			s.Rate, s.PacketRate = order.Uint64(v), order.Uint64(v[8:])
		case typ == statsQueue && len(v) >= 12:
			s.QueuedPackets, s.QueuedBytes, s.Dropped = uint64(order.Uint32(v)), uint64(order.Uint32(v[4:])), uint64(order.Uint32(v[8:]))
		}
		return nil
	})
}

// listTC lists the queues of all links (RTM_GETQDISC, index 0), or the classes of one (RTM_GETTCLASS).
func listTC(nl *conn, what string, get, index int) ([]tcItem, error) {
	return list(nl, what, get, tcmsg{index: index}.Serialize(), parseTC)
}

// listQueues lists the classes of those of links that have our queue.
func (m *Manager) listQueues(nl *conn, links []link) ([]classes, error) {
	queues, err := listTC(nl, "queues", unix.RTM_GETQDISC, 0)
	if err != nil {
		return nil, err
	}
	var all []classes
	for _, l := range links {
		ours := func(t tcItem) bool {
			return t.index == l.index && t.kind == "htb" && t.handle == handle(0) && t.parent == handleRoot
		}
		if !slices.ContainsFunc(queues, ours) {
			continue
		}
		items, err := listTC(nl, "classes", unix.RTM_GETTCLASS, l.index)
		if err != nil {
			return nil, err
		}
		on := classes{link: l.name, dropped: map[uint16]uint64{}}
		for _, t := range items {
			if c, ok := t.class(); ok {
				for _, q := range queues {
					if q.index == l.index && q.parent == t.handle {
						c.leaf = q.leaf(m.leafKind())
						on.dropped[c.id] = q.stats.Dropped
					}
				}
				on.all = append(on.all, c)
			}
		}
		all = append(all, on)
	}
	return all, nil
}

// class reads one of our classes.
func (t tcItem) class() (c class, ok bool) {
	if t.kind != "htb" || t.handle>>16 != QueueMajor {
		return c, false
	}
	c.id = uint16(t.handle)
	if t.parent>>16 == QueueMajor { // else it is the root's
		c.parent = uint16(t.parent)
	}
	order := nl.NativeEndian()
	_ = nlattr.Each(t.options, func(typ uint16, v []byte) error { // what is broken is not as it should be
		if typ == htbParms && len(v) >= 44 {
			c.rate, c.ceil = order.Uint32(v[8:]), order.Uint32(v[20:])
			c.burst, c.cburst, c.priority = order.Uint32(v[24:]), order.Uint32(v[28:]), order.Uint32(v[40:])
		}
		return nil
	})
	return c, true
}

// leaf reads how much memory the packets of a class may take; 0 if its queue is of another kind.
func (t tcItem) leaf(kind string) (size uint32) {
	switch {
	case t.kind != kind:
	case kind == fifoKind && len(t.options) >= 4:
		size = nl.NativeEndian().Uint32(t.options) * fifoPacketSize
	default:
		_ = nlattr.Each(t.options, func(typ uint16, v []byte) error { // as of class
			if typ == codelMemory && len(v) >= 4 {
				size = nl.NativeEndian().Uint32(v)
			}
			return nil
		})
	}
	return size
}

// ClassCounters are what a class has sent. Rates are per second, in bytes and packets.
type ClassCounters struct {
	Bytes, Packets, Dropped uint64
	Rate, PacketRate        uint64
	// QueuedBytes and QueuedPackets wait now.
	QueuedBytes, QueuedPackets uint64
}

func (s *ClassCounters) add(o ClassCounters) {
	s.Bytes, s.Packets, s.Dropped = s.Bytes+o.Bytes, s.Packets+o.Packets, s.Dropped+o.Dropped
	s.Rate, s.PacketRate = s.Rate+o.Rate, s.PacketRate+o.PacketRate
	s.QueuedBytes, s.QueuedPackets = s.QueuedBytes+o.QueuedBytes, s.QueuedPackets+o.QueuedPackets
}

// since returns what was counted since before; all, if the counters have begun anew.
func (s ClassCounters) since(before ClassCounters) ClassCounters {
	if s.Bytes >= before.Bytes && s.Packets >= before.Packets && s.Dropped >= before.Dropped {
		s.Bytes, s.Packets, s.Dropped = s.Bytes-before.Bytes, s.Packets-before.Packets, s.Dropped-before.Dropped
	}
	return s
}

// classKey is a class of the kernel's.
type classKey struct {
	index int // of the interface
	id    uint16
}

// counters are those of all our classes, as the kernel has them.
func (m *Manager) counters() (map[classKey]ClassCounters, error) {
	nl, own, err := m.look()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	all := map[classKey]ClassCounters{}
	queues, err := listTC(nl, "queues", unix.RTM_GETQDISC, 0)
	if err != nil {
		return nil, err
	}
	for _, l := range own {
		if m.config == nil || !slices.ContainsFunc(m.config.Queues, func(q LinkQueues) bool { return q.Interface == l.name }) {
			continue
		}
		items, err := listTC(nl, "classes", unix.RTM_GETTCLASS, l.index)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		on := classes{}
		for _, t := range items {
			if c, ok := t.class(); ok {
				on.all = append(on.all, c)
				t.stats.Dropped = m.dropped[classKey{l.index, c.id}]
				all[classKey{l.index, c.id}] = t.stats
			}
		}
		// What is dropped the queue of the packets knows, and the classes that it is in do not.
		for _, q := range queues {
			if q.index != l.index || q.parent>>16 != QueueMajor {
				continue
			}
			on.around(uint16(q.parent), func(id uint16) {
				k := classKey{l.index, id}
				s := all[k]
				s.Dropped += q.stats.Dropped
				all[k] = s
			})
		}
	}
	return all, nil
}

// QueueCounters are those of the classes in force by their numbers, each on all links together. They count since a class was made on its
// link, or since ResetQueueCounters.
func (m *Manager) QueueCounters() (map[uint16]ClassCounters, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, err := m.counters()
	if err != nil {
		return nil, err
	}
	sums := map[uint16]ClassCounters{}
	for k, now := range all {
		sum := sums[k.id]
		sum.add(now.since(m.counted[k]))
		sums[k.id] = sum
	}
	return sums, nil
}

// ResetQueueCounters has those of some classes count from now on.
func (m *Manager) ResetQueueCounters(ids []uint16) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, err := m.counters()
	if err != nil {
		return err
	}
	counted := map[classKey]ClassCounters{} // of classes that are still there
	for k, now := range all {
		if before, ok := m.counted[k]; ok {
			counted[k] = before
		}
		if slices.Contains(ids, k.id) {
			counted[k] = now
		}
	}
	m.counted = counted
	return nil
}
