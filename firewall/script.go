package firewall

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

const (
	// openChain holds the openings. It is a chain of its own, so that one process can
	// open or close one without regard to the other rules.
	openChain = "postern-open"
	// rehearsalChain is a chain that no rule jumps to: the kernel checks its rules, and
	// no packet meets them.
	rehearsalChain = "postern-rehearsal"
	// ownPrefix begins the names of the user's chains: what users call them can be too long for
	// the kernel, and have any characters.
	ownPrefix = "postern-chain-"
)

// entry is one rule of a Config as the kernel has it.
type entry struct {
	chain         string // the kernel's
	match, target []string
	// counting are matches that count, and so must see no packet that another match leaves out.
	counting []string
	// log is the target that logs; nil if the rule does not.
	log []string
	// sets are the interfaces and addresses that it matches.
	sets
	// needs are matches that the target cannot do without.
	needs []string
	// final is set if the packet is accepted behind the target.
	final bool
	// jumps is set if the target is a chain of the user's. returns is set if it is RETURN, which
	// has to leave the chain of the rule, and not only a chain that the rule has for its sets.
	jumps, returns bool
	// disabled is a rule that the kernel does not have, and nowhere one that it does not have
	// because nothing would match: that keeps its counters.
	disabled, nowhere bool
	key               digest // the same for rules that match and do the same

	// id is in the names of its chains: another for each rule of a table, and the same after a change.
	id    string
	count Counter
}

// kernelRule is one of the kernel's rules: its matches and its target. It belongs to the entry with that index, or
// with -1 to none. counts says that what it counts is what the entry has matched: each entry has one such rule.
type kernelRule struct {
	entry         int
	counts        bool
	match, target []string
}

// kernelChain is a chain of the kernel's. It belongs to the entry with that index, or with -1 to several.
type kernelChain struct {
	entry int
	name  string
	rules []kernelRule
}

// kernelChains is the chains of a table.
type kernelChains struct {
	all   []kernelChain
	place map[string]int // of a name
}

func (k *kernelChains) chain(entry int, name string) {
	if _, ok := k.place[name]; !ok {
		k.place[name] = len(k.all)
		k.all = append(k.all, kernelChain{entry: entry, name: name})
	}
}

func (k *kernelChains) add(chain string, r kernelRule) {
	c := &k.all[k.place[chain]]
	c.rules = append(c.rules, r)
}

// layout returns the kernel's chains for the entries of a table, but for openChain. Without entries they are those of
// a closed table.
//
// A rule of the kernel can name one incoming and one outgoing interface, and sets of which an address has to be in all. For one
// of several the entry gets a chain, which returns for each member that does not match or goes on for each that does. Where all match
// is a last chain, which does what the rule says and counts: so nothing of it changes when the members do.
//
// The names of these chains stay while there is the rule, wherever it stands: so a change of the rules changes little in the kernel.
//
// A RETURN in such a chain would only leave that chain. So a rule with the action return goes to its
// chains for good (-g), from which RETURN leaves the chain of the rule, and what does not
// match goes on in another chain, which has the rest of the rules.
//
// The rules of clamp come first. A rule whose target or limits must meet each packet once, and that has more than one target, has
// a chain for these.
func layout(t Table, es []entry, clamp ...string) []kernelChain {
	k := kernelChains{place: map[string]int{}}
	for _, c := range t.chains() {
		k.chain(-1, c.builtin)
	}
	for _, name := range clamp {
		for _, side := range []string{"-i", "-o"} {
			k.add("FORWARD", kernelRule{entry: -1, match: slices.Concat([]string{side, name}, ofSYN), target: []string{"-j", "TCPMSS", "--clamp-mss-to-pmtu"}})
		}
	}
	if t == Filter {
		k.add("INPUT", kernelRule{entry: -1, match: []string{"-i", "lo"}, target: []string{"-j", "ACCEPT"}})
		k.add("INPUT", kernelRule{entry: -1, target: []string{"-j", openChain}})
	}
	rest := map[string]string{} // of the kernel's chains that go on in another
	for i, e := range es {
		k.chain(-1, e.chain)
		if e.disabled || e.nowhere {
			continue
		}
		chain := cmp.Or(rest[e.chain], e.chain)
		into := chain // where the rule's action is
		match := e.match
		var miss []string // what becomes of packets that do not match
		if e.several() {
			enter := "-j"
			own := ownChain(e.id, "")
			if e.returns {
				enter = "-g"
				rest[e.chain] = ownChain(e.id, "rest")
				k.chain(i, rest[e.chain])
				miss = []string{"-g", rest[e.chain]}
			}
			first := k.sides(i, e, own, miss)
			k.chain(i, own)
			k.add(chain, kernelRule{entry: i, match: match, target: []string{enter, first}})
			if e.returns {
				k.add(chain, kernelRule{entry: i, target: miss})
			}
			into, match = own, e.needs
		}
		match = slices.Concat(match, e.counting)
		if e.apart() {
			do := ownChain(e.id, "do")
			k.chain(i, do)
			k.add(into, kernelRule{entry: i, match: match, target: []string{"-j", do}})
			into, match = do, e.needs
		}
		if e.log != nil {
			k.add(into, kernelRule{entry: i, match: slices.Concat(match, logLimit), target: e.log})
		}
		k.add(into, kernelRule{entry: i, counts: true, match: match, target: e.target})
		if e.final {
			k.add(into, kernelRule{entry: i, target: []string{"-j", "ACCEPT"}})
		}
		if miss != nil && len(e.counting) > 0 {
			k.add(into, kernelRule{entry: i, target: miss})
		}
	}
	if t == Filter && es != nil { // what no rule matches
		for _, chain := range []string{"INPUT", "FORWARD"} {
			k.add(chain, kernelRule{entry: -1, target: []string{"-j", "ACCEPT"}})
		}
	}
	k.passLastPackets(t)
	return k.all
}

// apart reports whether the entry needs a chain of its own for what it does. After a packet has been marked it may not match any
// more, and of two draws (random=) one may hit.
func (e entry) apart() bool { return e.final || e.log != nil && len(e.counting) > 0 && !e.returns }

// entryRules is how many rules of chains belong to entries.
func entryRules(chains []kernelChain) (n int) {
	for _, c := range chains {
		for _, r := range c.rules {
			if r.entry >= 0 {
				n++
			}
		}
	}
	return n
}

// sides makes the chains for the sets of entry i, from which packets that all of them have go on to the chain hit, and
// returns the first of them. Others go on by the target miss, or if that is nil where they came from.
func (k *kernelChains) sides(i int, e entry, hit string, miss []string) (first string) {
	next := hit
	for _, side := range slices.Backward(e.sides()) {
		goOn := []string{"-g", next}
		each, end := goOn, miss
		if side.not {
			if each, end = miss, goOn; each == nil {
				each = []string{"-j", "RETURN"}
			}
		}
		next = ownChain(e.id, side.name)
		k.chain(i, next)
		for _, m := range side.members {
			k.add(next, kernelRule{entry: i, match: m, target: each})
		}
		if end != nil {
			k.add(next, kernelRule{entry: i, target: end})
		}
	}
	return next
}

// ownChain is the name of a chain that an entry has for itself.
func ownChain(id, name string) string {
	if name != "" {
		name = "-" + name
	}
	return "postern-" + id + name
}

// ruleSet is a Config as the kernel has it. An entry has its rule's index.
type ruleSet struct {
	entries map[Table][]entry
	clamp   []string // Config.Clamp
	queues  []QueueRule
	marks   marks
	helped  []uint16 // see Config.helped
}

// newRuleSet returns c, whose address lists the kernel has as lists says.
func newRuleSet(c Config, lists map[string]kernelList) *ruleSet {
	s := &ruleSet{map[Table][]entry{}, slices.Clone(c.Clamp), slices.Clone(c.Queues), c.marks(), slices.Clone(c.helped())}
	for _, t := range Tables {
		s.entries[t] = entries(t, c.Rules(t), c, lists)
	}
	return s
}

func (s *ruleSet) table(t Table) []entry { return s.entries[t] }

// layout returns the kernel's chains of a table.
func (s *ruleSet) layout(t Table) []kernelChain {
	switch t {
	case Mangle:
		return withQueues(layout(t, s.entries[t], s.clamp...), s.entries[t], s.queues, s.marks)
	case Raw:
		return withHelper(layout(t, s.entries[t]), s.entries[t], s.helped)
	}
	return layout(t, s.entries[t])
}

// empty reports whether the set has nothing for a table.
func (s *ruleSet) empty(t Table) bool {
	return len(s.entries[t]) == 0 && (t != Mangle || len(s.clamp)+len(s.queues) == 0) && (t != Raw || len(s.helped) == 0)
}

// entries are the rules of table t.
func entries(t Table, rules []Rule, c Config, lists map[string]kernelList) []entry {
	chains := ownChains(t, rules)
	es := make([]entry, 0, len(rules))
	m := c.marks()
	ids, tables := map[string]bool{}, map[string]bool{}
	for i := range rules {
		r := &rules[i]
		e := entry{
			chain: cmp.Or(t.builtin(r.Chain), chains[r.Chain]), target: r.target(t, chains, m, lists), disabled: r.Disabled, sets: r.sets(c.Lists, lists),
			jumps: r.Action == "jump", needs: r.needs(), final: r.Final,
		}
		e.returns = slices.Equal(e.target, []string{"-j", "RETURN"})
		e.match, e.counting, e.nowhere = r.matches(e.sets, m), r.extra(true), e.sets.none()
		e.log = r.logTarget(t)
		// A rule stays what it is when the members of its lists change.
		e.key = r.digest()
		nameLimit(e.counting, t, e.key, tables)
		if !e.disabled && (e.several() || e.apart()) {
			plain := *r
			plain.Comment, plain.Log, plain.LogPrefix = "", false, ""
			text := plain.String()
			for n := 0; e.id == "" || ids[e.id]; n++ {
				e.id = fmt.Sprintf("%08x", uint32(sum(text, strconv.Itoa(n))))
			}
			ids[e.id] = true
		}
		es = append(es, e)
	}
	return es
}

// ownChains are the kernel's names for the user's chains in a table. They stay while others come and go.
func ownChains(t Table, rules []Rule) map[string]string {
	names, users := map[string]string{}, map[string]string{}
	for i := range rules {
		r := &rules[i]
		if t.builtin(r.Chain) != "" || names[r.Chain] != "" {
			continue
		}
		var name string
		for n := 0; name == "" || users[name] != ""; n++ {
			name = fmt.Sprintf("%s%08x", ownPrefix, uint32(sum(r.Chain, strconv.Itoa(n))))
		}
		names[r.Chain], users[name] = name, r.Chain
	}
	return names
}

// inherit copies the counters of the rules that old has too. Of several equal rules, the
// first inherits from the first, and so on. It returns which of old's rules those are.
func (s *ruleSet) inherit(old *ruleSet) (stay map[Table]map[int]bool) {
	stay = map[Table]map[int]bool{}
	for _, t := range Tables {
		was, is := old.table(t), s.table(t)
		stays := make(map[int]bool, len(was))
		same := 0 // most changes leave the first rules
		for same < min(len(was), len(is)) && was[same].key == is[same].key {
			if !is[same].disabled {
				is[same].count, stays[same] = was[same].count, true
			}
			same++
		}
		left := map[digest][]int{}
		for i := same; i < len(was); i++ {
			if e := &was[i]; !e.disabled {
				left[e.key] = append(left[e.key], i)
			}
		}
		for i := same; i < len(is); i++ {
			e := &is[i]
			if from := left[e.key]; !e.disabled && len(from) > 0 {
				e.count, left[e.key] = was[from[0]].count, from[1:]
				stays[from[0]] = true
			}
		}
		stay[t] = stays
	}
	return stay
}

// script is input for iptables-restore, with what each of its lines is about.
type script struct {
	text  []byte
	lines []place // lines[i] is about line i+1
}

// place is a rule of a table. With index -1 it is the table as a whole.
type place struct {
	table Table
	index int
}

func (s *script) line(at place, words ...string) {
	for i, w := range words {
		if i > 0 {
			s.text = append(s.text, ' ')
		}
		s.text = append(s.text, w...)
	}
	s.text = append(s.text, '\n')
	s.lines = append(s.lines, at)
}

func (s *script) begin(t Table)  { s.line(place{t, -1}, "*"+string(t)) }
func (s *script) commit(t Table) { s.line(place{t, -1}, "COMMIT") }

// clear removes all rules and chains of table t, within its transaction.
func (s *script) clear(t Table) {
	s.line(place{t, -1}, "-F")
	s.line(place{t, -1}, "-X")
}

func (s *script) newChain(t Table, name, policy string) {
	s.line(place{t, -1}, ":"+name, policy, "[0:0]")
}

func (s *script) append(at place, count Counter, chain string, args ...string) {
	s.counted(at, count, []string{"-A", chain}, args)
}

// counted writes a rule with its counters, behind the words that say where it goes.
func (s *script) counted(at place, count Counter, where []string, args ...[]string) {
	s.text = append(s.text, '[')
	s.text = strconv.AppendUint(s.text, count.Packets, 10)
	s.text = append(s.text, ':')
	s.text = strconv.AppendUint(s.text, count.Bytes, 10)
	s.text = append(s.text, ']')
	for _, w := range where {
		s.text = append(append(s.text, ' '), w...)
	}
	for _, words := range args {
		for _, a := range words {
			s.text = append(s.text, ' ')
			s.quote(a)
		}
	}
	s.text = append(s.text, '\n')
	s.lines = append(s.lines, at)
}

// chains makes the chains of one table, but for its builtin ones, and fills all.
func (s *script) chains(t Table, es []entry, chains []kernelChain) {
	for _, c := range chains {
		if !t.hasBuiltin(c.name) {
			s.line(place{t, c.entry}, ":"+c.name, "-", "[0:0]")
		}
	}
	for _, c := range chains {
		for _, r := range c.rules {
			s.rule(t, es, r, "-A", c.name)
		}
	}
}

// rule writes a rule behind the words that say where it goes.
func (s *script) rule(t Table, es []entry, r kernelRule, where ...string) {
	count := Counter{}
	if r.counts {
		count = es[r.entry].count
	}
	s.counted(place{t, r.entry}, count, where, r.match, r.target)
}

// filter writes the whole filter table. If es is nil, the table lets nothing in or
// through.
func (s *script) filter(es []entry, openings []Opening) {
	whole := place{Filter, -1}
	s.begin(Filter)
	s.clear(Filter)
	// After -X, which resets the policies of iptables-nft.
	s.newChain(Filter, "INPUT", "DROP")
	s.newChain(Filter, "FORWARD", "DROP")
	s.newChain(Filter, "OUTPUT", "ACCEPT")
	s.newChain(Filter, openChain, "-")
	for _, o := range openings {
		s.add(whole, o)
	}
	s.chains(Filter, es, layout(Filter, es))
	s.commit(Filter)
}

// whole writes a whole table of a set.
func (s *script) whole(t Table, set *ruleSet, openings []Opening) {
	if t == Filter {
		s.filter(set.table(t), openings)
		return
	}
	s.begin(t)
	s.clear(t)
	for _, c := range t.chains() {
		s.newChain(t, c.builtin, "ACCEPT")
	}
	s.chains(t, set.table(t), set.layout(t))
	s.commit(t)
}

// rehearse has the kernel check the rules of table t in a chain where no packet meets
// them. If each is set, every rule has a transaction of its own, so that a refusal tells
// which rule it is about.
func (s *script) rehearse(t Table, es []entry, each bool) {
	s.begin(t)
	s.newChain(t, rehearsalChain, "-")
	for i, e := range es {
		if e.disabled || e.nowhere {
			continue
		}
		target := e.target
		switch {
		case e.jumps:
			target = nil // the chain is not there yet
		case target == nil:
			target = e.log
		}
		s.append(place{t, i}, Counter{}, rehearsalChain, slices.Concat(e.match, e.counting, target)...)
		if each {
			s.line(place{t, i}, "COMMIT")
			s.begin(t)
		}
	}
	s.commit(t)
}

// sweep removes what a rehearsal has left in table t, if anything.
func (s *script) sweep(t Table) {
	s.begin(t)
	s.newChain(t, rehearsalChain, "-")
	s.line(place{t, -1}, "-X", rehearsalChain)
	s.commit(t)
}

// quote writes word so that iptables-restore reads exactly this word. It splits a line at
// blanks outside of double quotes; inside them, the byte after a backslash stands for
// itself (add_param_to_argv, iptables/xshared.c). A line break cannot be quoted; Validate
// lets none through.
func (s *script) quote(word string) {
	plain := word != ""
	for i := 0; i < len(word) && plain; i++ {
		c := word[i]
		plain = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '+' < c && c < ';' || c == '_' || c == '!'
	}
	if plain {
		s.text = append(s.text, word...)
		return
	}
	s.text = append(s.text, '"')
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' || word[i] == '"' {
			s.text = append(s.text, '\\')
		}
		s.text = append(s.text, word[i])
	}
	s.text = append(s.text, '"')
}
