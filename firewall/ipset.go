package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/nlattr"
)

// This file speaks the netlink protocol of the kernel's sets (linux/netfilter/ipset/ip_set.h). All sets are of the type
// hash:net with timeouts: prefixes of 1 to 32 bits, each of which ends at a time or does not.

// element is a prefix of a set, not 0.0.0.0/0. It ends at a time, or never if that is zero.
type element struct {
	netip.Prefix
	until time.Time
}

// MaxListTimeout is the longest timeout of an entry of an address list (IPSET_MAX_TIMEOUT,
// linux/netfilter/ipset/ip_set.h), in whole seconds.
const MaxListTimeout = (1<<31 - 1) / 1000 * time.Second

const (
	ipsetListNames   = 1 << 1 // IPSET_FLAG_LIST_SETNAME
	ipsetListHeaders = 1 << 2 // IPSET_FLAG_LIST_HEADER
	ipsetRevision    = 0      // what is here needs none later than the first
	// ipsetBatch is how many elements one message has: an attribute has at most 65,535 bytes, and an element 32.
	ipsetBatch = 2000
	// setPrefix begins the names of our sets: a number follows. What users call their lists can be too long for
	// the kernel, and have any characters.
	setPrefix = "postern-list-"
)

func setName(number int) string { return setPrefix + strconv.Itoa(number) }

// ipsetRequest makes a request about a set, or with name "" about all.
func ipsetRequest(command int, name string, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_IPSET<<8|command, nl.GetIpsetFlags(command))
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	if name != "" {
		req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name)))
	}
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

// ipset carries a request out.
func ipset(command int, name string, attrs ...*nl.RtAttr) ([][]byte, error) {
	messages, err := ipsetRequest(command, name, attrs...).Execute(unix.NETLINK_NETFILTER, 0)
	var errno syscall.Errno
	if errors.As(err, &errno) && errno >= nl.IPSET_ERR_PRIVATE {
		err = nl.IPSetError(errno)
	}
	return messages, err
}

func bigEndian32(kind int, value uint32) *nl.RtAttr {
	return nl.NewRtAttr(kind|unix.NLA_F_NET_BYTEORDER, binary.BigEndian.AppendUint32(nil, value))
}

func nested(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil) }

// createSet makes a set for at most limit elements, with room for some of them.
func createSet(name string, limit, room int) error {
	data := nested(nl.IPSET_ATTR_DATA)
	// How many buckets there are, 64 at least, of up to 12 elements each. It grows when one is full, which takes 10 ms and more each
	// time, but not for what packets add: that is left out then (ip_set_add, net/netfilter/ipset/ip_set_core.c).
	data.AddChild(bigEndian32(nl.IPSET_ATTR_HASHSIZE, uint32(max(64, room/3))))
	data.AddChild(bigEndian32(nl.IPSET_ATTR_MAXELEM, uint32(limit)))
	// That of elements which come without one; ours all come with one. The kernel looks for what has ended the less often the
	// longer this is, every three minutes at least.
	data.AddChild(bigEndian32(nl.IPSET_ATTR_TIMEOUT, uint32(MaxListTimeout/time.Second)))
	_, err := ipset(nl.IPSET_CMD_CREATE, name, nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated("hash:net")),
		nl.NewRtAttr(nl.IPSET_ATTR_REVISION, nl.Uint8Attr(ipsetRevision)), nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(unix.AF_INET)), data)
	if err != nil {
		return fmt.Errorf("create set %s: %w", name, err)
	}
	return nil
}

// changeSet adds elements to a set, or removes them from it. One is no error that is there already, or is not. An element that
// has ended is neither added nor removed. Several elements are not one change to packets.
func changeSet(command int, name string, elements []element) error {
	now := time.Now()
	for batch := range slices.Chunk(elements, ipsetBatch) {
		var all []byte
		for _, e := range batch {
			left := uint32(0)
			if !e.until.IsZero() {
				if !e.until.After(now) { // no time at all would be for ever
					continue
				}
				left = uint32((e.until.Sub(now) + time.Second - 1) / time.Second)
			}
			address := e.Addr().As4()
			all = attribute(all, nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED, 28)
			all = attribute(all, nl.IPSET_ATTR_IP|unix.NLA_F_NESTED, 8)
			all = append(attribute(all, nl.IPSET_ATTR_IPADDR_IPV4|unix.NLA_F_NET_BYTEORDER, 4), address[:]...)
			all = append(attribute(all, nl.IPSET_ATTR_CIDR, 1), byte(e.Bits()), 0, 0, 0)
			all = binary.BigEndian.AppendUint32(attribute(all, nl.IPSET_ATTR_TIMEOUT|unix.NLA_F_NET_BYTEORDER, 4), left)
		}
		if all == nil {
			continue
		}
		if _, err := ipset(command, name, bigEndian32(nl.IPSET_ATTR_LINENO, 0), nl.NewRtAttr(nl.IPSET_ATTR_ADT|unix.NLA_F_NESTED, all)); err != nil {
			return fmt.Errorf("change set %s: %w", name, err)
		}
	}
	return nil
}

// attribute appends the head of an attribute with size bytes.
func attribute(b []byte, kind uint16, size int) []byte {
	order := nl.NativeEndian()
	b = append(b, 0, 0, 0, 0)
	order.PutUint16(b[len(b)-4:], uint16(unix.SizeofRtAttr+size))
	order.PutUint16(b[len(b)-2:], kind)
	return b
}

// swapSets swaps what two sets have.
func swapSets(a, b string) error {
	if _, err := ipset(nl.IPSET_CMD_SWAP, a, nl.NewRtAttr(nl.IPSET_ATTR_SETNAME2, nl.ZeroTerminated(b))); err != nil {
		return fmt.Errorf("swap sets %s and %s: %w", a, b, err)
	}
	return nil
}

// destroySet removes a set, unless a rule names it.
func destroySet(name string) error {
	if _, err := ipset(nl.IPSET_CMD_DESTROY, name); err != nil {
		return fmt.Errorf("destroy set %s: %w", name, err)
	}
	return nil
}

// setNumbers are the numbers of our sets that the kernel has.
func setNumbers() (numbers []int, err error) {
	messages, err := ipset(nl.IPSET_CMD_LIST, "", bigEndian32(nl.IPSET_ATTR_FLAGS, ipsetListNames))
	for _, m := range messages {
		err = errors.Join(err, ipsetAttributes(m, func(kind uint16, value []byte) error {
			digits, ours := strings.CutPrefix(strings.TrimRight(string(value), "\x00"), setPrefix)
			if n, err := strconv.Atoi(digits); kind == nl.IPSET_ATTR_SETNAME && ours && err == nil {
				numbers = append(numbers, n)
			}
			return nil
		}))
	}
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	return numbers, nil
}

// setSize is how many elements a set has. Some may have ended within the last minutes.
func setSize(name string) (n int, err error) {
	messages, err := ipset(nl.IPSET_CMD_LIST, name, bigEndian32(nl.IPSET_ATTR_FLAGS, ipsetListHeaders))
	for _, m := range messages {
		err = errors.Join(err, ipsetAttributes(m, func(kind uint16, value []byte) error {
			if kind != nl.IPSET_ATTR_DATA {
				return nil
			}
			return nlattr.Each(value, func(kind uint16, value []byte) error {
				if kind == nl.IPSET_ATTR_ELEMENTS && len(value) == 4 {
					n = int(binary.BigEndian.Uint32(value))
				}
				return nil
			})
		}))
	}
	if err != nil {
		return 0, fmt.Errorf("read set %s: %w", name, err)
	}
	return n, nil
}

// readSet calls f for each prefix of a set with how long it will be there, or 0 for ever.
func readSet(name string, f func(p netip.Prefix, left time.Duration)) error {
	messages, err := ipset(nl.IPSET_CMD_LIST, name)
	for _, m := range messages {
		err = errors.Join(err, ipsetAttributes(m, func(kind uint16, value []byte) error {
			if kind != nl.IPSET_ATTR_ADT {
				return nil
			}
			return nlattr.Each(value, func(kind uint16, value []byte) error {
				p, left, err := parseElement(value)
				if err == nil {
					f(p, left)
				}
				return err
			})
		}))
	}
	if err != nil {
		return fmt.Errorf("read set %s: %w", name, err)
	}
	return nil
}

// parseElement reads an element of a set.
func parseElement(data []byte) (p netip.Prefix, left time.Duration, err error) {
	var address netip.Addr
	bits := 32
	err = nlattr.Each(data, func(kind uint16, value []byte) error {
		switch {
		case kind == nl.IPSET_ATTR_IP:
			return nlattr.Each(value, func(_ uint16, value []byte) error {
				address, _ = netip.AddrFromSlice(value)
				return nil
			})
		case kind == nl.IPSET_ATTR_CIDR && len(value) == 1:
			bits = int(value[0])
		case kind == nl.IPSET_ATTR_TIMEOUT && len(value) == 4:
			left = time.Duration(binary.BigEndian.Uint32(value)) * time.Second
		}
		return nil
	})
	if err == nil && !address.Is4() {
		err = errors.New("element without an address")
	}
	if err != nil {
		return netip.Prefix{}, 0, err
	}
	return netip.PrefixFrom(address, bits), left, nil
}

// ipsetAttributes calls f for each attribute of an answer.
func ipsetAttributes(message []byte, f func(kind uint16, value []byte) error) error {
	if len(message) < nl.SizeofNfgenmsg {
		return fmt.Errorf("message of %d bytes", len(message))
	}
	return nlattr.Each(message[nl.SizeofNfgenmsg:], f)
}
