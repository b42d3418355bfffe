package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/postern-router/postern/internal/machine"
)

// Firewall is the kernel's IPv4 tables in the network namespace of the
// calling process. Its methods may be called from any goroutine; those that start a
// process wait for each other. There should be one Firewall at a time; a new one takes
// over whatever an earlier one left behind.
type Firewall struct {
	program, restoreProgram string
	processTime             time.Duration
	lockSeconds             int

	// turn is held over each operation with its processes, which may take long. Openings
	// does without.
	turn sync.Mutex
	// changes is how many operations that change rules wait for the turn. counting says that
	// who has it only counts, and gives way to them.
	changes  atomic.Int32
	counting bool
	tables   *iptables.IPTables // nil until first needed
	applied  *ruleSet           // nil while locked
	// written is what the kernel's tables hold, and seen how they looked then, as long as nobody else has changed them.
	// A table that is not in written is unknown.
	written map[Table]written
	seen    map[Table]tableInfo
	// legacy says whether the programs are those of iptables-legacy; nil until first needed.
	legacy *bool
	// touched are the tables that we may have written. Of the others nothing is asked, as that would make them.
	touched map[Table]bool
	// lists are the address lists that rules name, as the kernel has them. It changes while turn and mu are held.
	lists map[string]kernelList
	// kept is what rules have added to lists that add no more, until it ends: maxKept at most. It changes as lists does, and no map of
	// it in place.
	kept map[string][]element
	// lastSet is the number of the newest set of the kernel's; 0 until the first. stray says that there may be some that nobody needs.
	lastSet int
	stray   bool
	// room is how many addresses rules can add to one list.
	room int
	// unsure says that the last change of the openings failed, so that it may have been made or not.
	unsure bool

	// mu guards openings, which change only while turn is held too. It is never held
	// while a process runs.
	mu       sync.Mutex
	openings []Opening
}

// ErrUnsure is in the error of an Apply after which some tables may have the new rules and others the old ones.
var ErrUnsure = errors.New("it is not known which rules are in force")

// Counter counts what one rule has matched.
type Counter struct{ Packets, Bytes uint64 }

// New returns the Firewall that uses program, a path or a name that is looked for in PATH
// (usually "iptables"), and the program of the same name with "-restore" beside it. It
// fails if one is missing. It runs neither and changes nothing.
func New(program string) (*Firewall, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("firewall: no program %s (Debian: package iptables): %w", program, err)
	}
	restore, err := exec.LookPath(path + "-restore")
	if err != nil {
		return nil, fmt.Errorf("firewall: %s has no -restore program beside it: %w", path, err)
	}
	_, memory := machine.Memory()
	return &Firewall{program: path, restoreProgram: restore, processTime: processTime, lockSeconds: lockSeconds,
		stray: true, room: roomFor(memory)}, nil
}

// lockTurn locks turn for an operation that changes rules.
func (f *Firewall) lockTurn() {
	f.changes.Add(1)
	f.turn.Lock()
	f.changes.Add(-1)
}

// Lock drops what comes in or passes through, except on the loopback interface, and
// forgets all openings. What the router itself sends may leave, but the answers do not
// come in. The nat table stays as it is. Lock takes one process.
func (f *Firewall) Lock() error {
	f.lockTurn()
	defer f.turn.Unlock()
	var s script
	s.filter(nil, nil)
	f.written = nil
	if err := f.restore(&s); err != nil {
		return fmt.Errorf("firewall: lock: %w", err)
	}
	f.applied, f.unsure = nil, false
	f.setOpenings(nil)
	return nil
}

// Apply replaces all rules by those of c. If c is not valid or one rule is refused, the
// rules stay as they were, unless the error is ErrUnsure: the next Apply writes all of them. The error says which rule it was, by table, number as printed
// (from 0) and properties, and why.
//
// Apply takes one process. If rules were applied before, it takes one more for each table
// that has any, to read the counters, unless the rules that stay can stay where they are. A refusal takes up to five more.
func (f *Firewall) Apply(c Config) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("firewall: apply: %w", err)
	}
	f.lockTurn()
	defer f.turn.Unlock()
	if err := f.apply(c); err != nil {
		return fmt.Errorf("firewall: apply: %w", err)
	}
	return nil
}

func (f *Firewall) apply(c Config) error {
	want := c.kernelLists()
	lists, kept, changed, fresh, err := f.planLists(want)
	if err != nil {
		return err
	}
	known := f.applied != nil && f.known()
	if known && len(changed) == 1 && fresh == nil {
		// While the rules stay, a list changes alone.
		next := newRuleSet(c, lists)
		if f.plan(next).changed == nil {
			if err := f.changeList(f.lists[changed[0]], lists[changed[0]]); err != nil {
				return fmt.Errorf("address list %s: %w", changed[0], err)
			}
			f.applied = next
			f.setLists(lists, kept)
			return nil
		}
	}
	made, err := f.makeLists(lists, append(changed, fresh...))
	if err != nil {
		return err
	}
	if err := f.writeRules(c, newRuleSet(c, lists), known); err != nil {
		f.removeSets(made)
		return err
	}
	f.setLists(lists, kept)
	return nil
}

// writeRules brings the rules of c, which are next, into force. known says that the kernel has what was written last.
func (f *Firewall) writeRules(c Config, next *ruleSet, known bool) error {
	half := false // next may be in force in some tables
	if f.applied != nil {
		if known {
			done, err := f.changeRules(next)
			if done || err != nil {
				return err
			}
			half = f.written == nil
		}
		// If the counters cannot be read, because someone else changed the table, the
		// new rules go in all the same. The counters go on from what was read last.
		_ = f.readCounters()
		next.inherit(f.applied)
	}

	// The kernel takes each table whole or not at all, but one after the other. So the others
	// are rehearsed first, then filter is swapped, and last the others, which are known to be
	// good by then.
	tables := f.tablesOf(next)
	var s script
	for _, t := range tables[1:] {
		s.rehearse(t, next.table(t), false)
	}
	swapped := len(s.lines)
	for i, t := range tables {
		if s.whole(t, next, f.openings); i == 0 {
			swapped = len(s.lines)
		}
	}
	f.touch(tables)
	err := f.restore(&s)
	if err == nil {
		f.applied, f.unsure = next, false
		for _, t := range tables {
			f.wrote(t, newWritten(next.layout(t)))
		}
		return nil
	}

	f.written = nil
	var refused *refusal
	cause := err
	if errors.As(err, &refused) {
		cause = f.explain(c, next, &s, refused)
	} else if !half {
		return err // no process ran
	}
	if err := f.undo(half || refused.line == 0 || refused.line > swapped); err != nil {
		return fmt.Errorf("%w; and putting the old rules back: %w: %w", cause, ErrUnsure, err)
	}
	return cause
}

// plan is how a ruleSet comes into force where the kernel's tables are known.
type plan struct {
	tables  []Table // that it has to do with
	sums    map[Table]written
	changes map[Table]change // of tables that were written before
	changed []Table
	// read says that counters of rules which stay have to be read before, as their rules are written anew.
	read bool
}

// plan compares next, which inherits what the rules in force have counted, with these.
func (f *Firewall) plan(next *ruleSet) plan {
	p := plan{tables: f.tablesOf(next), sums: map[Table]written{}, changes: map[Table]change{}}
	stays := next.inherit(f.applied)
	for _, t := range p.tables {
		chains := next.layout(t)
		p.sums[t] = newWritten(chains)
		if !f.touched[t] {
			p.changed = append(p.changed, t)
			continue
		}
		c := f.written[t].changes(chains, p.sums[t])
		if p.changes[t] = c; !c.empty() {
			p.changed = append(p.changed, t)
		}
		p.read = p.read || c.deletes() && c.loses(f.applied.layout(t), stays[t])
	}
	return p
}

// changeRules writes only those rules that next has otherwise than the kernel, whose tables are known. That is a
// small part of the work, and the others keep their counters without being asked for them. It returns false and no
// error if it was refused: then writing all the rules tells which one is at fault, or heals what somebody else
// has done to the tables.
func (f *Firewall) changeRules(next *ruleSet) (done bool, err error) {
	p := f.plan(next)
	changes, changed := p.changes, p.changed
	// If the second table is refused after the first was swapped, the old first one is written with what has been read now.
	if p.read || len(changed) > 1 {
		if f.readCounters() != nil {
			return false, nil
		}
		next.inherit(f.applied)
	}
	var s script
	for _, t := range changed[min(1, len(changed)):] {
		s.rehearse(t, next.table(t), false)
	}
	for i, t := range changed {
		if f.touched[t] {
			s.change(t, next.table(t), changes[t], i > 0)
		} else {
			s.whole(t, next, f.openings)
		}
	}
	f.touch(changed)
	if len(s.lines) > 0 {
		err = f.restore(&s)
	}
	if err == nil {
		f.applied = next
		for _, t := range p.tables {
			f.wrote(t, p.sums[t])
		}
		return true, nil
	}
	f.written = nil
	var exit *exec.ExitError
	switch {
	case !errors.As(err, &exit):
		return false, err // no process ran
	case exit.Exited():
		return false, nil
	}
	if undo := f.undo(true); undo != nil { // it was killed, and how far it had come is not known
		return false, fmt.Errorf("%w; and putting the old rules back: %w: %w", err, ErrUnsure, undo)
	}
	return false, err
}

// tablesOf are the tables that have to be written for a set: filter and nat first. Of the others those that have never had
// anything are left alone, for kernels that lack them, and as each table takes memory and some of each packet's time.
func (f *Firewall) tablesOf(s *ruleSet) []Table {
	return slices.DeleteFunc(slices.Clone(Tables[:]), func(t Table) bool { return t != Filter && t != NAT && !f.touched[t] && s.empty(t) })
}

// touch notes that tables are written.
func (f *Firewall) touch(tables []Table) {
	if f.touched == nil {
		f.touched = map[Table]bool{}
	}
	for _, t := range tables {
		f.touched[t] = true
	}
}

// known reports whether the tables are as they were written last. Of iptables-nft's tables the kernel cannot tell that.
func (f *Firewall) known() bool {
	if f.unsure || f.written == nil {
		return false
	}
	for t := range f.touched {
		if seen := info(t); f.written[t] == nil || seen == (tableInfo{}) || seen != f.seen[t] {
			return false
		}
	}
	if f.legacy == nil {
		var out bytes.Buffer
		cmd := exec.Command(f.program, "--version")
		cmd.Stdout = &out
		if f.bounded(cmd.Run) != nil {
			return false
		}
		is := strings.Contains(out.String(), "(legacy)")
		f.legacy = &is
	}
	return *f.legacy
}

// wrote notes what has been written to t.
func (f *Firewall) wrote(t Table, w written) {
	if f.written == nil {
		f.written, f.seen = map[Table]written{}, map[Table]tableInfo{}
	}
	f.written[t], f.seen[t] = w, info(t)
}

// explain returns refused with the rule that it is about.
func (f *Firewall) explain(c Config, next *ruleSet, s *script, refused *refusal) error {
	if refused.line < 1 || refused.line > len(s.lines) {
		return refused
	}
	at := s.lines[refused.line-1]
	if at.index < 0 {
		// The kernel refused the transaction and does not say because of which rule.
		var each script
		each.rehearse(at.table, next.table(at.table), true)
		var again *refusal
		if !errors.As(f.restore(&each), &again) || again.line < 1 || again.line > len(each.lines) ||
			each.lines[again.line-1].index < 0 {
			return fmt.Errorf("table %s as a whole: %w", at.table, refused)
		}
		at, refused = each.lines[again.line-1], again
	}
	return fmt.Errorf("%s rule %d (%s): %w", at.table, at.index, c.Rules(at.table)[at.index], refused)
}

// undo takes away what a refused script has left: rehearsals, and the new filter table if
// it has been swapped.
func (f *Firewall) undo(swapped bool) error {
	var s script
	for _, t := range Tables {
		switch {
		case !f.touched[t]:
		case swapped && f.applied != nil:
			s.whole(t, f.applied, f.openings)
		case swapped && t == Filter:
			s.filter(nil, f.openings)
		default:
			s.sweep(t)
		}
	}
	return f.restore(&s)
}

// Counters returns what the rules of a table of the applied Config have matched, each at its rule's
// index; those of disabled rules are zero. The list is empty while nothing is applied.
// Counters takes one process if the table has rules. A change of the rules waits a
// moment for it and then ends the process, and the count begins anew.
func (f *Firewall) Counters(t Table) (counters []Counter, err error) {
	for range countTries {
		if counters, err = f.count(t); !errors.Is(err, errGaveWay) {
			break
		}
	}
	return counters, err
}

// ResetCounters sets the counters of rules to zero: those of the applied rules of t with these indices, of all or,
// on an error, of none. The kernel checks the table anew, so that the bursts of all its limits (limit=) begin anew too. It
// takes one process, and one more for each table that has rules unless the tables are as they were written.
func (f *Firewall) ResetCounters(t Table, indices []int) error {
	f.lockTurn()
	defer f.turn.Unlock()
	if err := f.resetCounters(t, indices); err != nil {
		return fmt.Errorf("firewall: reset counters: %w", err)
	}
	return nil
}

func (f *Firewall) resetCounters(t Table, indices []int) error {
	if f.applied == nil {
		return errors.New("no rules are in force")
	}
	known := f.known()
	if !known {
		if err := f.readCounters(); err != nil {
			return err
		}
	}
	es := f.applied.table(t)
	for _, i := range indices {
		if i < 0 || i >= len(es) {
			return fmt.Errorf("no %s rule %d", t, i)
		}
	}
	before := slices.Clone(es)
	for _, i := range indices {
		es[i].count = Counter{}
	}
	var s script
	switch {
	case known:
		s.begin(t)
		for _, c := range f.applied.layout(t) {
			for i, r := range c.rules {
				if r.counts && slices.Contains(indices, r.entry) {
					s.line(place{t, r.entry}, "-Z", c.name, strconv.Itoa(i+1))
				}
			}
		}
		s.commit(t)
	default: // Zero is written as all counters are, by writing the table anew.
		s.whole(t, f.applied, f.openings)
	}
	if err := f.restore(&s); err != nil {
		copy(es, before)
		return err
	}
	return nil
}

// count is one try of Counters.
func (f *Firewall) count(t Table) (counters []Counter, err error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	if f.applied == nil {
		return nil, nil
	}
	f.counting = true
	err = f.readTable(t)
	f.counting = false
	if err != nil {
		return nil, fmt.Errorf("firewall: counters: list %s: %w", t, err)
	}
	for _, e := range f.applied.table(t) {
		counters = append(counters, e.count)
	}
	return counters, nil
}

// readCounters brings the counters of the applied rules up to date.
func (f *Firewall) readCounters() error {
	for _, t := range Tables {
		if err := f.readTable(t); err != nil {
			return fmt.Errorf("list %s: %w", t, err)
		}
	}
	return nil
}

func (f *Firewall) readTable(t Table) error {
	es := f.applied.table(t)
	if !slices.ContainsFunc(es, func(e entry) bool { return !e.disabled && !e.nowhere }) {
		return nil
	}
	lists, err := f.list(t)
	if err != nil {
		return err
	}
	counts := make([]Counter, len(es))
	for _, c := range f.applied.layout(t) {
		lines := lists[c.name]
		if len(lines) != len(c.rules) {
			return fmt.Errorf("chain %s: expected %d rules, got %d: was the table changed by someone else?", c.name, len(c.rules), len(lines))
		}
		for i, r := range c.rules {
			if !r.counts {
				continue
			}
			count, ok := parseCounter(lines[i])
			if !ok {
				return fmt.Errorf("chain %s: no counters in %q", c.name, lines[i])
			}
			counts[r.entry] = count
		}
	}
	for i := range counts {
		if e := &es[i]; !e.disabled && !e.nowhere {
			e.count = counts[i]
		}
	}
	return nil
}

// everyChain in the place of a chain's name has iptables list all chains: -S takes a name if one
// follows, and an option is none. go-iptables has no word for that. This one it adds anyway.
const everyChain = "--wait"

// list returns the rules of each chain of a table with their counters, as iptables prints them.
func (f *Firewall) list(t Table) (map[string][]string, error) {
	tables, err := f.handle()
	if err != nil {
		return nil, err
	}
	// Not Stats, which panics on a rule without a target (go-iptables v0.8.0). The counters of
	// this list are exact too.
	var lines []string
	err = f.bounded(func() (err error) {
		lines, err = tables.ListWithCounters(string(t), everyChain)
		return err
	})
	if err != nil {
		return nil, err
	}
	chains := map[string][]string{}
	for _, line := range lines {
		if rule, ok := strings.CutPrefix(line, "-A "); ok { // not a policy or a chain's name
			name, _, _ := strings.Cut(rule, " ")
			chains[name] = append(chains[name], line)
		}
	}
	return chains, nil
}

// handle returns go-iptables' handle. It is made when first needed: making it takes a
// process (iptables --version), and the way from power-on to service, which is Lock and
// one Apply, does not need it.
func (f *Firewall) handle() (*iptables.IPTables, error) {
	if f.tables != nil {
		return f.tables, nil
	}
	err := f.bounded(func() (err error) {
		f.tables, err = iptables.New(iptables.Path(f.program), iptables.Timeout(f.lockSeconds))
		return err
	})
	if err != nil {
		f.tables = nil
		return nil, fmt.Errorf("open %s: %w", f.program, err)
	}
	return f.tables, nil
}

// parseCounter finds "-c packets bytes" in a rule as iptables -v -S prints it. A comment
// or log prefix with that text is in quotes, since it has blanks.
func parseCounter(line string) (Counter, bool) {
	var plain strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted:
			plain.WriteByte(c)
		}
	}
	words := strings.Fields(plain.String())
	for i := 0; i+2 < len(words); i++ {
		packets, err1 := strconv.ParseUint(words[i+1], 10, 64)
		bytes, err2 := strconv.ParseUint(words[i+2], 10, 64)
		if words[i] == "-c" && err1 == nil && err2 == nil {
			return Counter{packets, bytes}, true
		}
	}
	return Counter{}, false
}

// refusal is iptables-restore's report of a script that it has not carried out.
type refusal struct {
	line    int // of the script, from 1; 0 if it is not known
	message string
	err     error // how the process ended
}

func (r *refusal) Error() string { return "iptables-restore: " + r.message }
func (r *refusal) Unwrap() error { return r.err }

// restore carries s out by one process. If the process ran and failed, the error is a
// *refusal, and the tables up to the last COMMIT before the refused line have changed.
func (f *Firewall) restore(s *script) error {
	// go-iptables does not know iptables-restore.
	cmd := exec.Command(f.restoreProgram, "--noflush", "--counters", "--wait", strconv.Itoa(f.lockSeconds))
	cmd.Stdin = bytes.NewReader(s.text)
	var stderr bytes.Buffer // package exec copies into anything else by a buffer of 32 KiB
	cmd.Stderr = &stderr
	err := f.bounded(cmd.Run)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return newRefusal(stderr.String(), err)
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", f.restoreProgram, err)
	}
	return nil
}

// newRefusal finds the line number and the reason in what iptables-restore writes, which
// is one of
//
//	iptables-restore v1.8.9 (legacy): Couldn't load match `x'... Error occurred at line: 4 ...
//	iptables-restore: line 6 failed
//	iptables-nft-restore v1.8.9 (nf_tables): line 4: RULE_APPEND failed (Invalid argument): ...
func newRefusal(stderr string, err error) *refusal {
	r := &refusal{err: err}
	var reasons []string
	program := regexp.MustCompile(`^\S+-restore( v\S+ \(\w+\))?: ?`)
	number := regexp.MustCompile(`^(?:Error occurred at line: |line )(\d+)`)
	for text := range strings.Lines(stderr) {
		text = strings.TrimSpace(program.ReplaceAllString(text, ""))
		if m := number.FindStringSubmatch(text); m != nil {
			r.line, _ = strconv.Atoi(m[1]) // digits; 0 if out of range
			text = strings.Trim(strings.TrimPrefix(text, m[0]), ": ")
			if text == "failed" {
				text = "the kernel refused it"
			}
		}
		if text != "" && !strings.HasPrefix(text, "Try `") {
			reasons = append(reasons, text)
		}
	}
	var exit *exec.ExitError
	if len(reasons) == 0 || errors.As(err, &exit) && !exit.Exited() { // but was killed
		reasons = append(reasons, err.Error())
	}
	r.message = strings.Join(reasons, "; ")
	return r
}
