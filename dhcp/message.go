package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Ports of DHCP.
const (
	ServerPort = 67
	ClientPort = 68
)

// What Message.Op can be.
const (
	BootRequest = 1
	BootReply   = 2
)

// FlagBroadcast asks a server for a broadcast: the client takes no unicast before it has an
// address.
const FlagBroadcast = 0x8000

// Type is the value of OptionType (RFC 2132 9.6).
type Type byte

// The types of messages.
const (
	Discover Type = 1
	Offer    Type = 2
	Request  Type = 3
	Decline  Type = 4
	ACK      Type = 5
	NAK      Type = 6
	Release  Type = 7
	Inform   Type = 8
)

func (t Type) String() string {
	names := [...]string{"", "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM"}
	if t == 0 || int(t) >= len(names) {
		return fmt.Sprintf("type %d", byte(t))
	}
	return names[t]
}

// The numbers of options (RFC 2132; 82 RFC 3046, 119 RFC 3397, 121 RFC 3442).
const (
	OptionPad             = 0
	OptionSubnetMask      = 1
	OptionRouter          = 3
	OptionNameServers     = 6
	OptionHostName        = 12
	OptionDomain          = 15
	OptionStaticRoutes    = 33
	OptionNTPServers      = 42
	OptionVendor          = 43
	OptionRequested       = 50
	OptionLeaseTime       = 51
	OptionOverload        = 52
	OptionType            = 53
	OptionServerID        = 54
	OptionParameters      = 55
	OptionMessage         = 56
	OptionMaxSize         = 57
	OptionRenewalTime     = 58
	OptionRebindingTime   = 59
	OptionVendorClass     = 60
	OptionClientID        = 61
	OptionRelayAgent      = 82
	OptionDomainSearch    = 119
	OptionClasslessRoutes = 121
	OptionCAPWAP          = 138
	OptionEnd             = 255
)

// Infinite is a lease without an end (RFC 2131 3.3), as OptionLeaseTime says it, in seconds.
const Infinite = 1<<32 - 1

// Message is a DHCP message. An address that a message does not have is 0.0.0.0 in it, and the
// zero Addr may be written for it.
type Message struct {
	Op     byte
	Hops   byte
	XID    uint32
	Secs   uint16
	Flags  uint16
	Client netip.Addr // ciaddr: an address that the client has
	Your   netip.Addr // yiaddr: the one that it gets
	Next   netip.Addr // siaddr: the next server of a machine that starts from the network
	Relay  netip.Addr // giaddr
	// HardwareType is 1 for Ethernet, whose Hardware address has 6 bytes; 16 is the most.
	HardwareType byte
	Hardware     net.HardwareAddr
	Options      Options
}

// Option is an option of a message, whole.
type Option struct {
	Code  byte // 1..254
	Value []byte
}

// Options are a message's, each code once, in the order in which they came.
type Options []Option

const (
	// headerSize is the part of a message before its options, with the magic cookie.
	headerSize = 240
	nameAt     = 44 // sname, 64 bytes
	fileAt     = 108
	fileEnd    = 236
	magic      = 0x63825363
	// minMessage is the length of a BOOTP message: some servers and relays drop a shorter one.
	minMessage = 300
	// MaxMessage is the most bytes of a message that go in a packet of 1500 bytes.
	MaxMessage = 1500 - ipHeader - udpHeader
	// MinMaxSize is what every client can take, as a message of 576 bytes of IP (RFC 2131 2).
	MinMaxSize = 576 - ipHeader - udpHeader
)

// Parse reads a message, and shares no memory with b. It refuses what is no DHCP message by its
// form: what the values of options mean is not looked at.
func Parse(b []byte) (*Message, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("a DHCP message of %d bytes, expected at least %d", len(b), headerSize)
	}
	if binary.BigEndian.Uint32(b[fileEnd:]) != magic {
		return nil, errors.New("no DHCP message: the magic cookie is missing")
	}
	size := int(b[2])
	if size > 16 {
		return nil, fmt.Errorf("a hardware address of %d bytes, expected at most 16", size)
	}
	m := &Message{
		Op: b[0], HardwareType: b[1], Hops: b[3],
		XID: binary.BigEndian.Uint32(b[4:]), Secs: binary.BigEndian.Uint16(b[8:]), Flags: binary.BigEndian.Uint16(b[10:]),
		Client: addr(b[12:]), Your: addr(b[16:]), Next: addr(b[20:]), Relay: addr(b[24:]),
		Hardware: slices.Clone(b[28 : 28+size]),
	}
	if m.Op != BootRequest && m.Op != BootReply {
		return nil, fmt.Errorf("operation %d, expected 1 or 2", m.Op)
	}
	if err := m.Options.parse(b[headerSize:]); err != nil {
		return nil, err
	}
	overload, _ := m.Options.Get(OptionOverload)
	if len(overload) == 1 {
		// In this order, for the pieces of an option (RFC 3396 5). Option 52 in there says nothing.
		if overload[0]&1 != 0 {
			if err := m.Options.parse(b[fileAt:fileEnd]); err != nil {
				return nil, err
			}
		}
		if overload[0]&2 != 0 {
			if err := m.Options.parse(b[nameAt:fileAt]); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func addr(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }

// parse adds the options of one field, to which some servers give no end.
func (o *Options) parse(b []byte) error {
	for len(b) > 0 && b[0] != OptionEnd {
		code := b[0]
		if code == OptionPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return fmt.Errorf("option %d is longer than its message", code)
		}
		value := b[2 : 2+int(b[1])]
		b = b[2+int(b[1]):]
		if i := o.find(code); i >= 0 {
			(*o)[i].Value = append((*o)[i].Value, value...)
		} else {
			*o = append(*o, Option{code, slices.Clone(value)})
		}
	}
	return nil
}

func (o Options) find(code byte) int {
	return slices.IndexFunc(o, func(p Option) bool { return p.Code == code })
}

// Get returns the value of an option, and whether the message has it.
func (o Options) Get(code byte) ([]byte, bool) {
	if i := o.find(code); i >= 0 {
		return o[i].Value, true
	}
	return nil, false
}

// Set gives an option a value, which is not copied.
func (o *Options) Set(code byte, value []byte) {
	if i := o.find(code); i >= 0 {
		(*o)[i].Value = value
	} else {
		*o = append(*o, Option{code, value})
	}
}

// SetByte sets an option of one byte, SetUint32 one of a number or of seconds, SetAddrs one of
// addresses, all of IPv4.
func (o *Options) SetByte(code, value byte) { o.Set(code, []byte{value}) }

// SetUint32 is described at SetByte.
func (o *Options) SetUint32(code byte, value uint32) {
	o.Set(code, binary.BigEndian.AppendUint32(nil, value))
}

// SetAddrs is described at SetByte.
func (o *Options) SetAddrs(code byte, addrs ...netip.Addr) {
	value := make([]byte, 0, 4*len(addrs))
	for _, a := range addrs {
		value = append(value, a.AsSlice()...)
	}
	o.Set(code, value)
}

// Type returns the message's type, 0 if it has none that is right: then it is BOOTP's.
func (o Options) Type() Type {
	if v, _ := o.Get(OptionType); len(v) == 1 && v[0] >= byte(Discover) && v[0] <= byte(Inform) {
		return Type(v[0])
	}
	return 0
}

// Uint32 returns an option of four bytes, and whether it is there with that length.
func (o Options) Uint32(code byte) (uint32, bool) {
	if v, _ := o.Get(code); len(v) == 4 {
		return binary.BigEndian.Uint32(v), true
	}
	return 0, false
}

// Uint16 returns an option of two bytes, and whether it is there with that length.
func (o Options) Uint16(code byte) (uint16, bool) {
	if v, _ := o.Get(code); len(v) == 2 {
		return binary.BigEndian.Uint16(v), true
	}
	return 0, false
}

// Seconds returns an option that is a time, and whether it is there. Infinite is
// Infinite * time.Second, 136 years.
func (o Options) Seconds(code byte) (time.Duration, bool) {
	n, ok := o.Uint32(code)
	return time.Duration(n) * time.Second, ok
}

// Addr returns an option of one address, the zero Addr if it is not there with that length.
func (o Options) Addr(code byte) netip.Addr {
	if v, _ := o.Get(code); len(v) == 4 {
		return addr(v)
	}
	return netip.Addr{}
}

// Addrs returns the first max addresses of an option; nil if it is not there, or its length is
// no multiple of four.
func (o Options) Addrs(code byte, max int) []netip.Addr {
	v, _ := o.Get(code)
	if len(v)%4 != 0 {
		return nil
	}
	var addrs []netip.Addr
	for ; len(v) > 0 && len(addrs) < max; v = v[4:] {
		addrs = append(addrs, addr(v))
	}
	return addrs
}

// Text returns an option of text, without zero bytes at its end, which some servers send. What
// cannot be printed is a question mark: it goes to logs and screens.
func (o Options) Text(code byte) string {
	v, _ := o.Get(code)
	for len(v) > 0 && v[len(v)-1] == 0 {
		v = v[:len(v)-1]
	}
	text := make([]byte, len(v))
	for i, c := range v {
		if c < ' ' || c > '~' {
			c = '?'
		}
		text[i] = c
	}
	return string(text)
}

// Route is a route of OptionClasslessRoutes. Gateway 0.0.0.0 is the link itself.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
}

// ClasslessRoutes returns the first max routes of OptionClasslessRoutes (RFC 3442), and whether
// the message has that option in a form that can be read.
func (o Options) ClasslessRoutes(max int) ([]Route, bool) {
	v, ok := o.Get(OptionClasslessRoutes)
	if !ok || len(v) == 0 {
		return nil, false
	}
	var routes []Route
	for len(v) > 0 {
		bits := int(v[0])
		significant := (bits + 7) / 8
		if bits > 32 || len(v) < 1+significant+4 {
			return nil, false
		}
		var destination [4]byte
		copy(destination[:], v[1:1+significant])
		if len(routes) < max {
			routes = append(routes, Route{netip.PrefixFrom(netip.AddrFrom4(destination), bits).Masked(), addr(v[1+significant:])})
		}
		v = v[1+significant+4:]
	}
	return routes, true
}

// StaticRoutes returns the first max routes of OptionStaticRoutes (RFC 2132 5.8): pairs of a destination and a gateway.
// The destination's network is that of its class, or the largest in that which it is the address of: 10.1.0.0 is
// 10.1.0.0/16, as dhcpcd reads it too. A default route is none (RFC 2132).
func (o Options) StaticRoutes(max int) []Route {
	all := o.Addrs(OptionStaticRoutes, 2*max)
	var routes []Route
	for ; len(all) >= 2; all = all[2:] {
		destination, bits := all[0].As4(), 24
		switch first := destination[0]; {
		case first == 0:
			continue
		case first < 128:
			bits = 8
		case first < 192:
			bits = 16
		}
		for n := binary.BigEndian.Uint32(destination[:]); bits < 32 && n<<bits != 0; {
			bits++
		}
		routes = append(routes, Route{netip.PrefixFrom(all[0], bits), all[1]})
	}
	return routes
}

// SetClasslessRoutes sets OptionClasslessRoutes.
func (o *Options) SetClasslessRoutes(routes []Route) {
	var v []byte
	for _, r := range routes {
		bits := r.Destination.Bits()
		v = append(v, byte(bits))
		v = append(v, r.Destination.Masked().Addr().AsSlice()[:(bits+7)/8]...)
		v = append(v, r.Gateway.AsSlice()...)
	}
	o.Set(OptionClasslessRoutes, v)
}

// ErrTooLong is the error of a message whose options do not fit.
var ErrTooLong = errors.New("the options do not fit into the message")

// Marshal returns the message in at most max bytes, MinMaxSize at least, or ErrTooLong. Its
// options keep their order, and go on in the fields of the file and of the server's name where
// there is no other room. A value above 255 bytes goes in pieces.
func (m *Message) Marshal(max int) ([]byte, error) {
	if len(m.Hardware) > 16 {
		return nil, fmt.Errorf("a hardware address of %d bytes, expected at most 16", len(m.Hardware))
	}
	b := make([]byte, headerSize, minMessage)
	b[0], b[1], b[2], b[3] = m.Op, m.HardwareType, byte(len(m.Hardware)), m.Hops
	binary.BigEndian.PutUint32(b[4:], m.XID)
	binary.BigEndian.PutUint16(b[8:], m.Secs)
	binary.BigEndian.PutUint16(b[10:], m.Flags)
	for i, a := range []netip.Addr{m.Client, m.Your, m.Next, m.Relay} {
		if a.IsValid() {
			four := a.As4()
			copy(b[12+4*i:], four[:])
		}
	}
	copy(b[28:], m.Hardware)
	binary.BigEndian.PutUint32(b[fileEnd:], magic)
	// The last byte of a field is its end, and three are for option 52.
	rooms := []int{max - headerSize - 1 - 3, fileEnd - fileAt - 1, fileAt - nameAt - 1}
	var fields [3][]byte
	at := 0
	for _, o := range m.Options {
		if o.Code == OptionOverload {
			continue // Marshal's own
		}
		value := o.Value
		for first := true; first || len(value) > 0; first = false {
			piece := value[:min(len(value), 255)]
			value = value[len(piece):]
			for at < len(rooms) && len(fields[at])+2+len(piece) > rooms[at] {
				at++
			}
			if at == len(rooms) {
				return nil, ErrTooLong
			}
			fields[at] = append(append(fields[at], o.Code, byte(len(piece))), piece...)
		}
	}
	if at > 0 {
		overload := byte(0)
		for i, start := range []int{fileAt, nameAt} {
			if field := fields[1+i]; len(field) > 0 {
				overload |= 1 << i
				b[start+copy(b[start:], field)] = OptionEnd
			}
		}
		fields[0] = append(fields[0], OptionOverload, 1, overload)
	}
	b = append(append(b, fields[0]...), OptionEnd)
	for len(b) < minMessage {
		b = append(b, OptionPad)
	}
	return b, nil
}
