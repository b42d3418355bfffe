package console

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// Type is the type of a property's value.
type Type int

const (
	// Text is any text, and all that has no other type: a matcher, a name, a MAC address.
	Text Type = iota
	Boolean
	Integer
	// Bytes is a number of bytes.
	Bytes
	Duration
	// Address is an IPv4 address, and Prefix one with the length of its network.
	Address
	Prefix
	// List is values separated by commas.
	List
	// Enumeration is one of a few words.
	Enumeration
)

// Value is the value of a property, with its type.
type Value struct {
	Type Type
	text string
	// number is the value of a Boolean (0 or 1), an Integer, Bytes, or a Duration in
	// nanoseconds. It may be more exact than text.
	number int64
}

// String is the value as screens show it: yes and no, 19.1MiB, 1d2h.
func (v Value) String() string { return v.text }

// Number is the value of a Boolean (0 or 1), an Integer, Bytes, or a Duration in nanoseconds, else 0.
func (v Value) Number() int64 { return v.number }

// MakeValue makes a value of its parts, for who has sent it somewhere.
func MakeValue(t Type, text string, number int64) Value { return Value{t, text, number} }

// Bool reports whether a Boolean is true.
func (v Value) Bool() bool { return v.Type == Boolean && v.number != 0 }

// Int is the value of an Integer or of Bytes, else 0.
func (v Value) Int() int64 {
	if v.Type == Integer || v.Type == Bytes {
		return v.number
	}
	return 0
}

// Duration is the value of a Duration, else 0.
func (v Value) Duration() time.Duration {
	if v.Type == Duration {
		return time.Duration(v.number)
	}
	return 0
}

// Addr is the value of an Address, else the zero Addr.
func (v Value) Addr() netip.Addr {
	a, _ := netip.ParseAddr(v.text) // of another type there may be none
	if v.Type != Address {
		return netip.Addr{}
	}
	return a
}

// Prefix is the value of a Prefix, else the zero Prefix.
func (v Value) Prefix() netip.Prefix {
	p, _ := netip.ParsePrefix(v.text) // of another type there may be none
	if v.Type != Prefix {
		return netip.Prefix{}
	}
	return p
}

// List is the values of a List, none if it is empty. Any other value is a list of one.
func (v Value) List() []string {
	switch {
	case v.text == "":
		return nil
	case v.Type == List:
		return strings.Split(v.text, ",")
	}
	return []string{v.text}
}

// Compare orders v and a value that text means. It reports false if they have no order, as two names have
// none: numbers, times and addresses have one; addresses are compared without their netmask.
func (v Value) Compare(text string) (order int, ok bool) {
	if v.Type == Integer || v.Type == Bytes {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && v.text != "" && v.text[0] >= '0' && v.text[0] <= '9' {
			return cmp.Compare(v.number, n), true
		}
	}
	return compare(v.text, text)
}

// valueOf makes a value of its text, in the form that a property's get returns.
func valueOf(t Type, text string) Value {
	v := Value{Type: t, text: text}
	switch t {
	case Boolean:
		if text == "yes" {
			v.number = 1
		}
	case Integer:
		n, _ := socks.ParseRate(text) // an unset one has no number
		v.number = int64(n)
	case Duration:
		d, _ := ParseDuration(text)
		v.number = int64(d)
	}
	return v
}

func textPair(name, text string) Pair { return Pair{name, Value{text: text}} }

func booleanPair(name string, is bool) Pair {
	return Pair{name, valueOf(Boolean, boolean().format(is))}
}

func wordPair(name, word string) Pair { return Pair{name, Value{Type: Enumeration, text: word}} }

func numberPair[N int | uint16 | uint64](name string, n N) Pair {
	return Pair{name, Value{Integer, strconv.FormatInt(int64(n), 10), int64(n)}}
}

func bytesPair[N int64 | uint64](name string, n N) Pair {
	return Pair{name, Value{Bytes, strconv.FormatInt(int64(n), 10), int64(n)}}
}

// durationPair has a text in whole seconds.
func durationPair(name string, d time.Duration) Pair {
	return Pair{name, Value{Duration, formatDuration(d.Truncate(time.Second)), int64(d)}}
}

func addressPair(name string, a netip.Addr) Pair {
	return Pair{name, Value{Type: Address, text: a.String()}}
}

func prefixPair(name string, p netip.Prefix) Pair {
	return Pair{name, Value{Type: Prefix, text: p.String()}}
}

// Pair is a property of a row: its name and its value.
type Pair struct {
	Name  string
	Value Value
}

// row is a line of what a menu lists: an item of the configuration, or something that only
// the system has. A menu without items has one row. All forms of print, find and Query show
// these rows.
type row struct {
	// id is set by identified, or by whoever made the row.
	id ID
	// key is what the number of the row refers to; the zero key if it cannot be changed.
	key     key
	flags   flags
	comment string
	pairs   []Pair
	line    string // of the log, as it is
	// removal adds what the row shows to what is removed; nil if that is not possible.
	removal func(*Action)
}

// value is the text of the property of that name, "" if the row has none.
func (r row) value(name string) string {
	switch name {
	case "comment":
		return r.comment
	case idName:
		return r.id.String()
	}
	for _, p := range r.pairs {
		if p.Name == name {
			return p.Value.text
		}
	}
	return ""
}

// flags is a set of flags, with a bit for each of flagChoices.
type flags uint32

const (
	flagInvalid flags = 1 << iota
	flagActive
	flagDynamic
	flagRunning
	flagSlave
	flagComplete
	flagConnect
	flagStatic
	flagDisabled
	flagBlocked
	flagInactive
	flagBuiltin
	flagNegative
	flagUndoable
	flagRedoable
	flagFloating
	flagBlackhole
	flagUnreachable
	flagProhibit
	flagPublished
	flagDHCP
	flagPrivateKey
	flagExpired
)

// flagChoices are the flags, with help, in the order of their bits.
var flagChoices = []Choice{
	{"invalid", "whether it has no effect for lack of something"},
	{"active", "whether it is the one in use"},
	{"dynamic", "whether the system made it"},
	{"running", "whether there is a carrier"},
	{"slave", "whether it is a port of a bridge"},
	{"complete", "whether the hardware address is known"},
	{"connect", "whether it is the network of an address"},
	{"static", "whether a person has set it, or a gateway for it"},
	{"disabled", "whether it is kept without effect"},
	{"blocked", "whether the host gets no address"},
	{"inactive", "whether its gateway cannot be reached"},
	{"builtin", "whether it is always there"},
	{"negative", "whether it says that there is nothing"},
	{"undoable", "whether undo takes it back"},
	{"redoable", "whether it is undone, and redo does it again"},
	{"floating-undo", "whether the end of Safe Mode undoes it"},
	{netcfg.Blackhole, "whether it drops packets without a word"},
	{netcfg.Unreachable, "whether it drops packets, and says that there is no such host"},
	{netcfg.Prohibit, "whether it drops packets, and says that they are forbidden"},
	{"published", "whether the router answers for the address"},
	{"DHCP", "whether it is there for as long as a lease of the DHCP server"},
	{"private-key", "whether there is a key, and so a certificate"},
	{"expired", "whether its time is over"},
}

func flagNamed(name string) flags {
	if i := slices.IndexFunc(flagChoices, func(c Choice) bool { return c.Name == name }); i >= 0 {
		return 1 << i
	}
	return 0
}

// legendFlag is a flag that the rows of a menu can have, and its letter.
type legendFlag struct {
	letter byte
	name   string
}

// legendFlags are the flags that m's legend explains: "Flags: X - disabled, R - running".
func (m *menu) legendFlags() []legendFlag {
	var all []legendFlag
	text, _ := strings.CutPrefix(m.legend, "Flags: ")
	for entry := range strings.SplitSeq(text, ", ") {
		if letter, name, ok := strings.Cut(entry, " - "); ok {
			all = append(all, legendFlag{letter[0], name})
		}
	}
	return all
}

// flag returns the flag of that name if rows of m can have it, else 0.
func (m *menu) flag(name string) flags {
	if slices.ContainsFunc(m.legendFlags(), func(f legendFlag) bool { return f.name == name }) {
		return flagNamed(name)
	}
	return 0
}

// letters writes flags in m's columns. Each column has the letter of one flag that is set,
// the first in the order of the legend, or a blank.
func (m *menu) letters(set flags) string {
	var b strings.Builder
	legend := m.legendFlags()
	for _, column := range m.flags {
		letter := byte(' ')
		for _, f := range legend {
			if letter == ' ' && strings.IndexByte(column, f.letter) >= 0 && set&flagNamed(f.name) != 0 {
				letter = f.letter
			}
		}
		if letter != ' ' || !m.packed {
			b.WriteByte(letter)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// rows are all that a menu lists: what the system has made, then the items. A menu without
// items has one row.
func (x *execution) rows(m *menu) ([]row, error) {
	var rows []row
	if m.dynamic != nil {
		var err error
		if rows, err = m.dynamic(x); err != nil {
			return nil, err
		}
		for i := range rows {
			rows[i].flags = cmp.Or(rows[i].flags, flagDynamic)
		}
	}
	items, err := x.itemRows(m)
	return append(rows, items...), err
}

// itemRows are the rows of a menu without what the system has added to the configuration.
func (x *execution) itemRows(m *menu) ([]row, error) {
	switch {
	case m.numbersLive():
		return x.numberedRows(m)
	case m.rows != nil:
		return m.rows(x)
	case m.items != nil:
		return x.configured(m), nil
	}
	pairs, err := x.screen(m)
	return []row{{pairs: pairs}}, err
}

// screen are the properties of a menu without items, and what the system adds to them.
func (x *execution) screen(m *menu) ([]Pair, error) {
	var pairs []Pair
	for _, p := range m.properties {
		pairs = append(pairs, Pair{p.name, p.value(&x.cfg, 0)})
	}
	if m.live == nil {
		return pairs, nil
	}
	live, err := m.live(x)
	for _, pair := range live {
		at := len(pairs)
		if i := slices.IndexFunc(m.readOnly, func(r readOnly) bool { return r.name == pair.Name && r.after != "" }); i >= 0 {
			at = 1 + slices.IndexFunc(pairs, func(p Pair) bool { return p.Name == m.readOnly[i].after })
		}
		pairs = slices.Insert(pairs, at, pair)
	}
	return pairs, err
}

// configured are the rows of the items of the configuration.
func (x *execution) configured(m *menu) []row {
	var rows []row
	known := x.interfaceNames()
	// Who looks for some rows needs what they are looked for by.
	needs := func(name string) bool { return x.looked == nil || x.lookedIn != m || x.looked.mentions(name) }
	var invalid []ID
	if needs("invalid") {
		invalid = x.invalid(m)
	}
	for i := range m.items.count(&x.cfg) {
		r := row{key: key{id: (*m.items.ids(&x.cfg))[i]}}
		for _, p := range m.properties {
			if p.sensitive || p.name != "disabled" && !needs(p.name) && !(p.isInterface && needs("invalid")) {
				continue
			}
			value := p.value(&x.cfg, i)
			switch {
			case p.name == "disabled":
				if value.Bool() {
					r.flags |= flagDisabled
				}
				continue
			case p.name == "comment":
				r.comment = value.text
				continue
			case p.isInterface && !p.list && value.text != "" && known != nil && !slices.Contains(known, strings.TrimPrefix(value.text, "!")):
				r.flags |= flagInvalid
			}
			if value.text != "" {
				r.pairs = append(r.pairs, Pair{p.name, value})
			}
		}
		for _, p := range m.readOnly {
			if p.of != nil {
				r.pairs = append(r.pairs, p.of(&x.cfg, i))
			}
		}
		if m.temporary != nil && m.temporary(&x.cfg, i) {
			r.flags |= flagDynamic
		}
		if slices.Contains(invalid, r.key.id) {
			r.flags |= flagInvalid
		}
		if r.flags&flagDisabled != 0 {
			r.flags &^= flagInvalid // a disabled item shows no other reason
		}
		rows = append(rows, r)
	}
	return rows
}

// invalid are the items of m that have no effect although they are not disabled.
func (x *execution) invalid(m *menu) []ID {
	if x.live.Invalid == nil {
		return nil
	}
	indices, err := x.live.Invalid(m.path)
	if err != nil {
		return nil // the items are as good without the flag
	}
	before := *m.items.ids(&Config{ids: x.before})
	var invalid []ID
	for _, i := range indices {
		if i >= 0 && i < len(before) {
			invalid = append(invalid, before[i])
		}
	}
	return invalid
}

// identified gives each row of m its ID.
func (x *execution) identified(m *menu, rows []row) error {
	seen := map[ID]int{}
	for i := range rows {
		r := &rows[i]
		switch {
		case r.id != 0 || m.items == nil && m.rows == nil: // it has one, or needs none
		case r.key == key{}:
			r.id = liveID(m, *r, seen)
		default:
			var err error
			if r.id, err = x.keyID(r.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// asked are the names that conditions in m can be about.
func (m *menu) conditionNames() []string {
	var names []string
	for _, p := range m.rowProperties() {
		names = append(names, p.Name)
	}
	return names
}

// shown are the properties and flags that rows of m can have, with help.
func (m *menu) rowProperties() []Choice {
	var all []Choice
	readOnly := func(counted bool) {
		for _, p := range m.readOnly {
			if p.counted == counted {
				all = append(all, Choice{p.name, p.help})
			}
		}
	}
	readOnly(false)
	for _, p := range m.properties {
		if !p.sensitive && p.hashed == nil {
			all = append(all, Choice{p.name, p.help})
		}
	}
	readOnly(true)
	if m.allLinks {
		all = append(all, Choice{"disabled", "whether it is kept without effect"}, Choice{"comment", "a note for people"})
	}
	for _, c := range flagChoices {
		if _, own := m.property(c.Name); !own && c.Name != "disabled" && m.flag(c.Name) != 0 {
			all = append(all, c)
		}
	}
	return all
}
