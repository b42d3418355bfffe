package firewall

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
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

// inputPreamble is how many rules there are in INPUT ahead of the user's.
const inputPreamble = 2

// entry is one rule of a Config as the kernel has it.
type entry struct {
	chain         string // the kernel's
	match, target []string
	// counting are matches that count, and so must see no packet that another match leaves out.
	counting []string
	// log is the target that logs; nil if the rule does not, or does nothing else.
	log []string
	// sets are the interfaces and addresses that it matches.
	sets
	// jumps is set if the target is a chain of the user's. returns is set if it is RETURN, which
	// has to leave the chain of the rule, and not only a chain that the rule has for its sets.
	jumps, returns bool
	// disabled is a rule that the kernel does not have, and nowhere one that it does not have
	// because nothing would match: that keeps its counters.
	disabled, nowhere bool
	key               string // the same for rules that match and do the same
	count             Counter
}

// kernelRule is one of the kernel's rules. It belongs to the entry with that index. counts says
// that what it counts is what the entry has matched.
type kernelRule struct {
	entry  int
	chain  string
	args   []string
	counts bool
}

// kernelChain is a chain that belongs to the entry with that index.
type kernelChain struct {
	entry int
	name  string
}

// layout returns the kernel's rules for the entries of a table, and the chains that they need.
//
// A rule of the kernel can name one incoming and one outgoing interface, and one range of
// source and of destination addresses. For a set of several the entry gets a chain, which returns for
// each member that does not match or goes on for each that does. A packet has one interface and one
// address on each side, and the ranges of a set do not overlap: so at most one of the rules that count
// matches it. Of many ranges each part has a chain of its own, so that a packet is
// compared with 2*sqrt(n) of n ranges.
//
// A RETURN in such a chain would only leave that chain. So a rule with the action return goes to its
// chains for good (-g), from which RETURN leaves the chain of the rule, and what does not
// match goes on in another chain, which has the rest of the rules.
func layout(es []entry) (chains []kernelChain, rules []kernelRule) {
	rest := map[string]string{} // of the kernel's chains that go on in another
	for i, e := range es {
		if e.disabled || e.nowhere {
			continue
		}
		chain := cmp.Or(rest[e.chain], e.chain)
		newChain := func(name string) string {
			name = fmt.Sprintf("postern-%d-%s", i, name)
			chains = append(chains, kernelChain{i, name})
			return name
		}
		add := func(chain string, counts bool, args ...string) {
			rules = append(rules, kernelRule{i, chain, args, counts})
		}
		enter, miss := "-j", []string{"-j", "RETURN"}
		if e.returns && e.several() {
			rest[e.chain] = newChain("rest")
			enter, miss = "-g", []string{"-g", rest[e.chain]}
		}
		// heads are rules that have no target yet, and tails chains that miss at their end.
		type head struct {
			chain string
			args  []string
		}
		heads := []head{{chain, e.match}}
		var tails []string
		end := func(counts bool, targets ...[]string) {
			for _, h := range heads {
				for n, target := range targets {
					add(h.chain, counts && n == len(targets)-1, slices.Concat(h.args, target)...)
				}
			}
			for _, of := range tails {
				add(of, false, miss...)
			}
			heads, tails = nil, nil
		}
		for _, side := range e.sides() {
			if len(side.members) <= 1 {
				continue // it is among the matches
			}
			into := newChain(side.name)
			end(false, []string{enter, into})
			through := func(chain string, members []member) {
				for _, m := range members {
					if side.not {
						add(chain, false, slices.Concat(m.args, miss)...)
					} else {
						heads = append(heads, head{chain, m.args})
					}
				}
				if side.not {
					heads = append(heads, head{chain, nil})
				} else if e.returns {
					tails = append(tails, chain)
				}
			}
			if len(side.members) <= fewMembers || side.group == nil {
				through(into, side.members)
				continue
			}
			size := int(math.Ceil(math.Sqrt(float64(len(side.members)))))
			for part := range slices.Chunk(side.members, size) {
				of := newChain(fmt.Sprintf("%s-%d", side.name, part[0].number))
				add(into, false, append(side.group(part[0], part[len(part)-1]), "-g", of)...)
				through(of, part)
			}
			through(into, nil)
		}
		if len(e.counting) > 0 && !e.several() {
			heads[0].args = slices.Concat(heads[0].args, e.counting)
		} else if len(e.counting) > 0 {
			into := newChain("counting")
			end(false, []string{enter, into})
			if heads = []head{{into, e.counting}}; e.returns {
				tails = []string{into}
			}
		}
		if e.log != nil {
			end(true, e.log, e.target)
		} else {
			end(true, e.target)
		}
		if rest[e.chain] != chain && rest[e.chain] != "" {
			add(chain, false, miss...)
		}
	}
	return chains, rules
}

// fewMembers is how many ranges of a set are all in one chain.
const fewMembers = 16

// ruleSet is a Config as the kernel has it. An entry has its rule's index.
type ruleSet struct{ filter, nat []entry }

func newRuleSet(c Config) *ruleSet {
	c.AddressLists = disjoint(c.AddressLists)
	return &ruleSet{filter: entries(Filter, c.Filter, c), nat: entries(NAT, c.NAT, c)}
}

// entries are the rules of table t. The address lists of c are disjoint.
func entries(t Table, rules []Rule, c Config) []entry {
	chains := ownChains(t, rules)
	var es []entry
	for _, r := range rules {
		e := entry{
			chain: cmp.Or(t.builtin(r.Chain), chains[r.Chain]), target: r.target(t, chains), disabled: r.Disabled, sets: r.sets(c),
			jumps: r.Action == "jump",
		}
		e.returns = slices.Equal(e.target, []string{"-j", "RETURN"})
		e.match, e.counting, e.nowhere = r.matches(e.sets), r.extra(true), e.sets.none()
		if r.Log && r.Action != "log" {
			e.log = r.logTarget(t)
		}
		// A rule stays what it is when the members of its lists change.
		r.Comment, r.Log, r.LogPrefix = "", false, ""
		e.key = r.String()
		es = append(es, e)
	}
	return es
}

// ownChains are the kernel's names for the user's chains in a table.
func ownChains(t Table, rules []Rule) map[string]string {
	names := map[string]string{}
	for _, r := range rules {
		if t.builtin(r.Chain) == "" && names[r.Chain] == "" {
			names[r.Chain] = fmt.Sprintf("%s%d", ownPrefix, len(names))
		}
	}
	return names
}

func (s *ruleSet) table(t Table) []entry {
	if t == Filter {
		return s.filter
	}
	return s.nat
}

// inherit copies the counters of the rules that old has too. Of several equal rules, the
// first inherits from the first, and so on.
func (s *ruleSet) inherit(old *ruleSet) {
	for _, t := range []Table{Filter, NAT} {
		counts := map[string][]Counter{}
		for _, e := range old.table(t) {
			if !e.disabled {
				counts[e.key] = append(counts[e.key], e.count)
			}
		}
		for i := range s.table(t) {
			e := &s.table(t)[i]
			if left := counts[e.key]; !e.disabled && len(left) > 0 {
				e.count, counts[e.key] = left[0], left[1:]
			}
		}
	}
}

// script is input for iptables-restore, with what each of its lines is about.
type script struct {
	text  strings.Builder
	lines []place // lines[i] is about line i+1
}

// place is a rule of a table. With index -1 it is the table as a whole.
type place struct {
	table Table
	index int
}

func (s *script) line(at place, words ...string) {
	s.text.WriteString(strings.Join(words, " ") + "\n")
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
	words := []string{fmt.Sprintf("[%d:%d]", count.Packets, count.Bytes), "-A", chain}
	for _, a := range args {
		words = append(words, quote(a))
	}
	s.line(at, words...)
}

// entries appends the rules of one table to their chains.
func (s *script) entries(t Table, es []entry) {
	chains, rules := layout(es)
	for i, e := range es {
		if strings.HasPrefix(e.chain, ownPrefix) && !slices.ContainsFunc(es[:i], func(o entry) bool { return o.chain == e.chain }) {
			s.newChain(t, e.chain, "-")
		}
	}
	for _, c := range chains {
		s.line(place{t, c.entry}, ":"+c.name, "-", "[0:0]")
	}
	counted := -1 // the entry whose counters are written
	for _, r := range rules {
		count := Counter{}
		if r.counts && r.entry != counted {
			count, counted = es[r.entry].count, r.entry // the first of several has all
		}
		s.append(place{t, r.entry}, count, r.chain, r.args...)
	}
}

// filter writes the whole filter table. If set is nil, the table lets nothing in or
// through.
func (s *script) filter(set *ruleSet, openings []Opening) {
	whole := place{Filter, -1}
	s.begin(Filter)
	s.clear(Filter)
	// After -X, which resets the policies of iptables-nft.
	s.newChain(Filter, "INPUT", "DROP")
	s.newChain(Filter, "FORWARD", "DROP")
	s.newChain(Filter, "OUTPUT", "ACCEPT")
	s.newChain(Filter, openChain, "-")
	s.append(whole, Counter{}, "INPUT", "-i", "lo", "-j", "ACCEPT")
	s.append(whole, Counter{}, "INPUT", "-j", openChain)
	for _, o := range openings {
		s.add(whole, o)
	}
	if set != nil {
		s.entries(Filter, set.filter)
		s.append(whole, Counter{}, "INPUT", "-j", "ACCEPT")
		s.append(whole, Counter{}, "FORWARD", "-j", "ACCEPT")
	}
	s.commit(Filter)
}

// nat writes the whole nat table.
func (s *script) nat(set *ruleSet) {
	s.begin(NAT)
	s.clear(NAT)
	s.newChain(NAT, "PREROUTING", "ACCEPT")
	s.newChain(NAT, "POSTROUTING", "ACCEPT")
	s.entries(NAT, set.nat)
	s.commit(NAT)
}

// mangle writes the whole mangle table.
func (s *script) mangle(clamp []string) {
	whole := place{mangle, -1}
	s.begin(mangle)
	s.clear(mangle)
	s.newChain(mangle, "FORWARD", "ACCEPT")
	for _, name := range clamp {
		for _, side := range []string{"-i", "-o"} {
			s.append(whole, Counter{}, "FORWARD", side, name, "-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS", "--clamp-mss-to-pmtu")
		}
	}
	s.commit(mangle)
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
		if e.jumps {
			target = nil // the chain is not there yet
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
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,!"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}
