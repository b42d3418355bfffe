package console

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// MaxImport is the greatest length in bytes of an import: PID 1 holds the text and the change
// that it makes in memory.
const MaxImport = 256 << 10

var importCommand = command{name: "import", positional: []string{"file-name"}, policy: needed(Import), help: "run lines as export writes them: all of them or none", needs: Import,
	arguments: []argument{
		option(prop("file-name", optional(fileName(), "none"), "", "file of /file that has the lines; without it they are pasted",
			func(o *options) *string { return &o.imports.File })),
		option(prop("replace", boolean(), "no", "whether the lines replace all that is set, but for users, if they have none, and passwords",
			func(o *options) *bool { return &o.imports.Replace })),
		option(prop("skip-errors", boolean(), "no", "whether lines that fail are left out, and each is named",
			func(o *options) *bool { return &o.imports.SkipErrors })),
		option(prop("dry-run", boolean(), "no", "whether all lines that fail are named, and nothing is changed",
			func(o *options) *bool { return &o.imports.DryRun })),
	},
	run: func(x *execution, _ *menu, a arguments) error {
		x.result.Import = a.imports
		if x.live.Denied&(Result{Request: Import, Import: a.imports}).Needs() != 0 {
			return ErrNotPermitted
		}
		if a.imports.File != "" && x.live.Files == nil {
			return unavailable("files")
		}
		return x.ask(Import)
	}}

// ImportArguments are the arguments of /import.
type ImportArguments struct {
	// File is the name of the file that has the lines; "" if they are pasted.
	File string
	// Replace is set if the lines run on Default, by Session.Replace, and not on what is set.
	Replace bool
	// SkipErrors is set if lines that fail, or make the configuration as a whole one that is refused, are
	// left out. The output names them.
	SkipErrors bool
	// DryRun is set if nothing is changed: the output is that of SkipErrors.
	DryRun bool
}

// Import runs the lines of text, starting at the root, each on the configuration that the
// lines before it have made of cfg. The result is like that of Execute. An item that cfg has
// already, with the same properties, is not added again: an export can be imported where it
// came from. Lines of idleMenus and idleSettings are left out, and the output names the menus. check, unless it is
// nil, reports what is wrong with the new configuration as a whole. If a line fails, or makes check
// fail, the error says which, and the Result has cfg. A line that makes a Request, repeats itself or
// has an Action is an error.
func (s *Session) Import(cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	return s.ImportBy(ImportArguments{}, cfg, live, text, check)
}

// ImportBy is Import or Replace, by the arguments of /import.
func (s *Session) ImportBy(a ImportArguments, cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	if a.Replace {
		if live.Denied&MayPolicy != 0 { // any more, since the command
			return Result{Config: cfg}, ErrNotPermitted
		}
		return s.replaceBy(a, cfg, live, text, check)
	}
	return s.importOn(a, cfg, cfg, live, text, check)
}

// Replace is Import of lines that say all: they run on Default, and the result replaces cfg. The
// users stay if the lines say nothing of any, and else the passwords of those that lines name without one, as an export
// has passwords only on request. Lines that set nothing are an error.
func (s *Session) Replace(cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	return s.ImportBy(ImportArguments{Replace: true}, cfg, live, text, check)
}

func (s *Session) replaceBy(a ImportArguments, cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	start := Default()
	empty := start
	empty.keepUsers(cfg)
	return s.importOn(a, start, cfg, live, text, func(c Config) error {
		if c.Equal(empty) {
			return errors.New("failure: the lines set nothing that could replace what is set")
		}
		if check == nil || c.Equal(cfg) {
			return nil
		}
		return check(c)
	})
}

// keepUsers gives c the users and groups of old, if it has none but those of Default, else the passwords of those users of
// its own that have none.
func (c *Config) keepUsers(old Config) {
	if d := Default(); reflect.DeepEqual(c.Users, d.Users) && reflect.DeepEqual(c.Groups, d.Groups) {
		c.Groups, c.Users = old.Groups, old.Users
		c.ids[groupItems], c.ids[userItems] = old.ids[groupItems], old.ids[userItems]
		return
	}
	for _, u := range c.Users {
		if o, _ := old.User(u.Name); u.Password == "" && o.Password != "" {
			c.SetPassword(u.Name, o.Password)
		}
	}
}

// maxRefusals is how many lines an import leaves out because the configuration as a whole is refused: to find
// each of them, the lines run several times. With more, nothing is changed.
const maxRefusals = 16

// importOn runs the lines of text on start, for the owner of cfg.
func (s *Session) importOn(a ImportArguments, start, cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	lines := importLines(text)
	hashes := Hashes{Make: live.HashPassword}
	run := func(lines []importLine) (Result, leftOut, error) {
		live := live
		if live.HashPassword != nil {
			live.HashPassword = hashes.Run()
		}
		result, left, err := s.runImport(start, live, lines, a.SkipErrors || a.DryRun)
		if a.Replace && err == nil {
			result.Config.keepUsers(cfg)
			result.Config.keepCertificates(cfg)
		}
		if err == nil {
			err = result.Config.completeCertificates(live)
		}
		return result, left, err
	}
	var refused leftOut
	for {
		whole, left, err := run(lines)
		if err != nil {
			return Result{Config: cfg}, err
		}
		whole.Changed = !cfg.Equal(whole.Config)
		if check != nil && (!start.Equal(cfg) || whole.Changed) {
			if err := check(whole.Config); err != nil {
				of := blamedLine(run, lines, check, err)
				if of >= 0 {
					err = fmt.Errorf("%w (line %d)", err, lines[of].first)
				}
				if of < 0 || !a.SkipErrors && !a.DryRun {
					return Result{Config: cfg}, err
				}
				refused.lose(lines[of])
				if len(refused.notes) < maxRefusals {
					refused.leave(lines[of].first, err)
					lines = slices.Delete(slices.Clone(lines), of, of+1)
					continue
				}
				err = fmt.Errorf("more than %d lines make the configuration invalid, and no more are looked for: %w", maxRefusals, err)
				if !a.DryRun {
					return Result{Config: cfg}, err
				}
				refused.leave(math.MaxInt, err)
			}
		}
		left.strict |= refused.strict
		left.helpers = left.helpers || refused.helpers
		for _, n := range refused.notes { // which the lines before them have brought about, perhaps
			at := slices.IndexFunc(left.notes, func(o importNote) bool { return o.line > n.line })
			if at < 0 {
				at = len(left.notes)
			}
			left.notes = slices.Insert(left.notes, at, n)
		}
		whole.Output = left.String()
		if a.DryRun {
			whole.Config, whole.Changed = cfg, false
			whole.Output += "nothing was changed\n"
		}
		return whole, nil
	}
}

// importNote is what an import says of a line: that it is left out, and why, or else the text of its output.
type importNote struct {
	line int
	text string
	left bool
}

// leftOut is what an import has left out.
type leftOut struct {
	// notes are in the order of the lines.
	notes []importNote
	// below is how many lines are of menus whose path is left out, or of scripts.
	below int
	// strict is what the configuration should not be used for without the lines.
	strict Without
	// helpers says that there are lines of connection tracking's helpers: without them less passes, not more.
	helpers bool
}

// lose adds what it means that a line is left out.
func (l *leftOut) lose(line importLine) {
	if line.isHelper() {
		l.helpers = true
		return
	}
	strict, _ := without(line.path())
	l.strict |= strict
}

// say adds the output of a line, leave why a line is left out.
func (l *leftOut) say(line int, text string) {
	if text != "" {
		l.notes = append(l.notes, importNote{line: line, text: text})
	}
}

func (l *leftOut) leave(line int, err error) {
	l.notes = append(l.notes, importNote{line, "left out: " + ErrorText(err), true})
}

// String is what the lines say, and what is left out: at most 100 of these one by one.
func (l leftOut) String() string {
	const most = 100
	var b strings.Builder
	left := 0
	for _, n := range l.notes {
		if n.left {
			left++
		}
		if !n.left || left <= most {
			b.WriteString(n.text)
		}
	}
	if left > most {
		fmt.Fprintf(&b, "left out: %d more lines\n", left-most)
	}
	if l.below > 0 {
		fmt.Fprintf(&b, "left out: %d lines below these\n", l.below)
	}
	if l.strict&(CloseRouter|DisableSOCKS) != 0 {
		b.WriteString("warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n")
	}
	if l.helpers {
		b.WriteString("warning: lines of /" + helperMenuPath + " are left out: helpers stay as they are, and what others were to let in does not pass\n")
	}
	if l.strict.Has(DisableLogins) {
		b.WriteString("warning: lines of /ip service, of users or of keys are left out: whom they were to keep out may log in\n")
	}
	return b.String()
}

// importLine is a line with its continuations, and the number of its first line.
type importLine struct {
	text  string
	first int
	// menu is the path of the menu that the session was in when the line ran last.
	menu string
}

// start is the text without the blanks around it.
func (l importLine) start() string { return strings.TrimSpace(l.text) }

func (l importLine) absolute() bool { return strings.HasPrefix(l.start(), "/") }

// isScript reports whether the line is one of a script, or a comment.
func (l importLine) isScript() bool {
	start := l.start()
	return start != "" && strings.IndexByte(":{}$#", start[0]) >= 0
}

// isHelper reports whether the line is for the menu of connection tracking's helpers, and for no other.
func (l importLine) isHelper() bool {
	statements, err := parse(l.text, l.first)
	if err != nil || len(statements) != 1 || l.isScript() {
		return false
	}
	words := menuWords(l.path())
	of := strings.Fields(helperMenuPath)
	return len(words) >= len(of) && slices.Equal(words[:len(of)], of) && !strings.Contains(strings.Join(words, " "), "..")
}

// path is the words of the menu that the line is for, and then those of the line itself.
func (l importLine) path() string {
	if l.absolute() {
		return l.start()
	}
	return strings.TrimLeft(l.menu+" "+l.start(), " ")
}

// mayEnter reports whether the line, which has failed with err, may have been meant to change the menu. Then it
// is not known which menu the lines behind it are for.
func (l importLine) mayEnter(err error) bool {
	if l.isScript() { // which leads back to where it began
		return false
	}
	var placed *lineError
	if errors.As(err, &placed) && placed.path {
		return true
	}
	statements, err := parse(l.text, l.first)
	if err != nil {
		return strings.Contains(unquoted(l.text), ";")
	}
	return len(statements) > 1 && slices.ContainsFunc(statements, bare)
}

// nowhere is the path of a session while it is not known which menu lines are for. No menu has it.
const nowhere = "?"

func importLines(text string) []importLine {
	var all []importLine
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		for i < len(lines)-1 && Continues(lines[i]) {
			i++
		}
		all = append(all, importLine{text: strings.Join(lines[first:i+1], "\n"), first: first + 1})
	}
	return all
}

// runImport runs lines. The Result has no Changed. With skip it leaves out lines that fail.
func (s *Session) runImport(cfg Config, live Live, lines []importLine, skip bool) (whole Result, left leftOut, err error) {
	whole.Config = cfg
	session := Session{Width: s.Width, older: true, there: map[ID]bool{}}
	for _, ids := range session.execution(cfg, live).cfg.ids {
		for _, id := range ids {
			session.there[id] = true
		}
	}
	named := map[string]bool{}
	braces := 0 // that are open, in a script that is left out
	for i := range lines {
		lines[i].menu = session.path
		line := lines[i]
		start := line.start()
		if braces > 0 || session.path == nowhere && !line.absolute() {
			if start != "" && start[0] != '#' {
				left.below++
				left.lose(line)
				braces = max(0, braces+openBraces(start))
			}
			continue
		}
		if name := absentService(line, session.path); name != "" {
			if !named[name] {
				named[name] = true
				left.say(line.first, fmt.Sprintf("Postern has no service %s, and needs none of its lines (line %d)\n", name, line.first))
			}
			continue
		}
		// leave reports whether a line that has failed is left out.
		leave := func(err error) bool {
			if !skip {
				return false
			}
			if line.mayEnter(err) {
				session.path = nowhere
			}
			var placed *lineError
			if errors.As(err, &placed) && placed.message == noScripts {
				braces = max(0, openBraces(start))
			}
			left.lose(line)
			left.leave(line.first, err)
			return true
		}
		if idle(session.path) != "" || line.absolute() {
			menu, enters, err := idleLine(line, session.path)
			if err != nil {
				if leave(err) {
					continue
				}
				return whole, left, err
			}
			if menu != "" {
				says := "needs none of its lines"
				if idleSettings()[menu] != "" {
					says = "is as its lines say"
				}
				if !named[menu] && (!enters || idleSettings()[menu] == "") {
					named[menu] = true
					left.say(line.first, fmt.Sprintf("Postern has no /%s, and %s (line %d)\n", menu, says, line.first))
				}
				if enters {
					session.path = menu
				}
				continue
			}
		}
		result, err := session.execute(whole.Config, live, line.text, line.first)
		if err == nil && (result.Request != None || result.Repeat > 0 || result.History != 0 || !result.Action.empty()) {
			err = errors.New("this command does not belong in an import")
		}
		if err != nil {
			var placed *lineError
			if !errors.As(err, &placed) {
				err = fmt.Errorf("%w (line %d)", err, line.first)
			}
			if leave(err) {
				continue
			}
			return whole, left, err
		}
		left.say(line.first, result.Output)
		whole.Config = result.Config
	}
	return whole, left, nil
}

// LineOf returns the number of the line of an import that an error is about which came when all were to be put into force: the
// one that has the most of its values ("add address 10.0.0.1/24 to ether2: ..."). It returns 0 if there is none, or several.
func LineOf(text string, refused error) int {
	values := strings.FieldsFunc(refused.Error(), func(r rune) bool { return strings.ContainsRune(" ,;()\"", r) })
	best, number := 0, 0
	for _, line := range importLines(text) {
		statements, err := parse(line.text, line.first)
		if err != nil {
			continue
		}
		var has []string
		for _, w := range slices.Concat(statements...) {
			if w.assigned {
				has = append(has, w.text, w.key+"="+w.text)
			}
		}
		count := 0
		for _, v := range values {
			if v = strings.TrimSuffix(v, ":"); strings.ContainsAny(v, "0123456789=") && slices.Contains(has, v) {
				count++
			}
		}
		switch {
		case count > best:
			best, number = count, line.first
		case count == best:
			number = 0
		}
	}
	return number
}

// openBraces is how many braces of a script a line opens, less those that it closes.
func openBraces(line string) int {
	line = unquoted(line)
	return strings.Count(line, "{") - strings.Count(line, "}")
}

// idleLine returns the one of idleMenus that a line of an import is for, which is left out, or "", and whether
// the lines behind it are for that menu too. current is the menu that the session is in.
func idleLine(line importLine, current string) (menu string, enters bool, err error) {
	statements, err := parse(line.text, line.first)
	switch {
	case err != nil, len(statements) == 0: // execute tells
		return "", false, nil
	case len(statements) == 1:
		if menu, enters, err = idleMenu(statements[0], current); menu != "" || err != nil {
			return menu, enters, err
		}
	}
	if first := statements[0]; idle(current) != "" && !absolute(first) {
		return "", false, &lineError{message: "Postern has no /" + current, place: first[0].place, path: bare(first)}
	}
	return "", false, nil
}

// blamedLine returns the place of the line that has brought about bad, the error of check about what lines
// make when they are run: with the lines before it alone, check says something else or nothing. It
// returns -1 if no line has.
func blamedLine(run func([]importLine) (Result, leftOut, error), lines []importLine, check func(Config) error, bad error) int {
	same := func(count int) bool {
		result, _, err := run(lines[:count])
		if err == nil {
			err = check(result.Config)
		}
		return err != nil && err.Error() == bad.Error()
	}
	if same(0) {
		return -1
	}
	good, failing := 0, len(lines)
	for failing-good > 1 {
		if middle := (good + failing) / 2; same(middle) {
			failing = middle
		} else {
			good = middle
		}
	}
	return failing - 1
}
