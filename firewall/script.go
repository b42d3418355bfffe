package firewall

import (
	"fmt"
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
)

// inputPreamble is how many rules there are in INPUT ahead of the user's.
const inputPreamble = 2

// entry is one rule of a Config as the kernel has it.
type entry struct {
	chain         string // the kernel's
	match, target []string
	// in and out are the interfaces that it matches.
	in, out Interfaces
	// disabled is a rule that the kernel does not have, and nowhere one that it does not have
	// because no interface would match: that keeps its counters.
	disabled, nowhere bool
	key               string // the same for rules that match and do the same
	count             Counter
}

// kernelRule is one of the kernel's rules. counts says that what it counts is what the entry has
// matched.
type kernelRule struct {
	chain  string
	args   []string
	counts bool
}

// rules returns the kernel's rules for the entry with that index, and the chains that they need.
//
// A rule of the kernel can name one incoming and one outgoing interface. For a set of several
// the entry gets a chain, which returns for each interface that does not match or goes on for
// each that does. A packet has one incoming and one outgoing interface, so at most one of the
// rules that count matches it.
func (e entry) rules(index int) (chains []string, rules []kernelRule) {
	if e.disabled || e.nowhere {
		return nil, nil
	}
	// heads are rules that have no target yet.
	heads := []kernelRule{{chain: e.chain, args: e.match}}
	end := func(target ...string) {
		for _, h := range heads {
			rules = append(rules, kernelRule{h.chain, slices.Concat(h.args, target), false})
		}
		heads = nil
	}
	for _, side := range []struct {
		name, option string
		set          Interfaces
	}{{"in", "-i", e.in}, {"out", "-o", e.out}} {
		if len(side.set.Names) <= 1 {
			continue // it is among the matches
		}
		chain := fmt.Sprintf("postern-%d-%s", index, side.name)
		chains = append(chains, chain)
		end("-j", chain)
		for _, name := range side.set.Names {
			one := kernelRule{chain: chain, args: []string{side.option, name}}
			heads = append(heads, one)
		}
		if side.set.Not {
			end("-j", "RETURN")
			heads = []kernelRule{{chain: chain}}
		}
	}
	first := len(rules)
	end(e.target...)
	for i := range rules[first:] {
		rules[first+i].counts = true
	}
	return chains, rules
}

// ruleSet is a Config as the kernel has it. An entry has its rule's index.
type ruleSet struct{ filter, nat []entry }

func newRuleSet(c Config) *ruleSet {
	return &ruleSet{filter: entries(Filter, c.Filter, c.Lists), nat: entries(NAT, c.NAT, c.Lists)}
}

func entries(t Table, rules []Rule, lists map[string]Interfaces) []entry {
	var es []entry
	for _, r := range rules {
		e := entry{chain: t.builtin(r.Chain), target: r.target(), disabled: r.Disabled}
		e.in, e.out = r.interfaces(lists)
		e.match, e.nowhere = r.matches(e.in, e.out), e.in.none() || e.out.none()
		// A rule stays what it is when the members of its lists change.
		r.Comment = ""
		anywhere := Interfaces{Not: true}
		words := slices.Concat(r.matches(anywhere, anywhere), e.target)
		e.key = strings.Join(append(words, e.chain, r.InInterface, r.OutInterface, r.InInterfaceList, r.OutInterfaceList, r.IPsecPolicy), " ")
		es = append(es, e)
	}
	return es
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
	for i, e := range es {
		chains, rules := e.rules(i)
		for _, name := range chains {
			s.line(place{t, i}, ":"+name, "-", "[0:0]")
		}
		count := e.count
		for _, r := range rules {
			if !r.counts {
				s.append(place{t, i}, Counter{}, r.chain, r.args...)
				continue
			}
			s.append(place{t, i}, count, r.chain, r.args...)
			count = Counter{} // the first of several has all
		}
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
		s.append(whole, Counter{}, openChain, o.args()...)
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
		s.append(place{t, i}, Counter{}, rehearsalChain, slices.Concat(e.match, e.target)...)
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
