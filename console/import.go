package console

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxImport is the greatest length in bytes of an import: PID 1 holds the text and the change
// that it makes in memory.
const MaxImport = 256 << 10

var importCommand = command{name: "import", help: "run lines as export writes them: all of them or none", needs: Import,
	arguments: []argument{
		option(prop("replace", boolean(), "no", "whether the lines replace all that is set, but for the password of admin if they have none",
			func(o *options) *bool { return &o.imports.Replace })),
		option(prop("skip-errors", boolean(), "no", "whether lines that fail are left out, and each is named",
			func(o *options) *bool { return &o.imports.SkipErrors })),
		option(prop("dry-run", boolean(), "no", "whether all lines that fail are named, and nothing is changed",
			func(o *options) *bool { return &o.imports.DryRun })),
	},
	run: func(x *execution, _ *menu, a arguments) error {
		x.result.Import = a.imports
		return x.ask(Import)
	}}

// ImportArguments are the arguments of /import.
type ImportArguments struct {
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
// came from. Lines of idleMenus are left out, and the output names the menus. check, unless it is
// nil, reports what is wrong with the new configuration as a whole. If a line fails, or makes check
// fail, the error says which, and the Result has cfg. A line that makes a Request, repeats itself or
// has an Action is an error.
func (s *Session) Import(cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	return s.ImportBy(ImportArguments{}, cfg, live, text, check)
}

// ImportBy is Import or Replace, by the arguments of /import.
func (s *Session) ImportBy(a ImportArguments, cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	if a.Replace {
		return s.replaceBy(a, cfg, live, text, check)
	}
	return s.importOn(a, cfg, cfg, live, text, check)
}

// Replace is Import of lines that say all: they run on Default, and the result replaces cfg. The
// password of admin stays unless a line sets another, as an export has it only on request. Lines
// that set nothing are an error.
func (s *Session) Replace(cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	return s.ImportBy(ImportArguments{Replace: true}, cfg, live, text, check)
}

func (s *Session) replaceBy(a ImportArguments, cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	start := Default()
	start.AdminPassword = cfg.AdminPassword
	return s.importOn(a, start, cfg, live, text, func(c Config) error {
		if c.Equal(start) {
			return errors.New("failure: the lines set nothing that could replace what is set")
		}
		if check == nil || c.Equal(cfg) {
			return nil
		}
		return check(c)
	})
}

// maxRefusals is how many lines an import leaves out because the configuration as a whole is refused: to find
// each of them, the lines run several times.
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
		return s.runImport(start, live, lines, a.SkipErrors || a.DryRun)
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
				of := blame(run, lines, check, err)
				if of >= 0 {
					err = fmt.Errorf("%w (line %d)", err, lines[of].first)
				}
				if of < 0 || !a.SkipErrors && !a.DryRun || len(refused.errors) == maxRefusals {
					return Result{Config: cfg}, err
				}
				refused.errors = append(refused.errors, err.Error())
				if path, ok := strings.CutPrefix(err.Error(), "/"); ok {
					path, _, _ = strings.Cut(path, ":")
					strict, _ := without(path)
					refused.firewall = refused.firewall || strict > HoldRest
				}
				lines = slices.Delete(slices.Clone(lines), of, of+1)
				continue
			}
		}
		left.errors, left.firewall = append(left.errors, refused.errors...), left.firewall || refused.firewall
		whole.Output += left.String()
		if a.DryRun {
			whole.Config, whole.Changed = cfg, false
			whole.Output += "nothing was changed\n"
		}
		return whole, nil
	}
}

// leftOut is what an import has left out.
type leftOut struct {
	errors []string
	// below is how many lines are of menus whose path is left out, or of scripts.
	below int
	// firewall is set if a line may have been to drop packets, or to deny requests.
	firewall bool
}

// String says what is left out: at most 100 lines of it one by one.
func (l leftOut) String() string {
	const most = 100
	var b strings.Builder
	for i, e := range l.errors {
		if i == most {
			fmt.Fprintf(&b, "left out: %d more lines\n", len(l.errors)-most)
			break
		}
		b.WriteString("left out: " + e + "\n")
	}
	if l.below > 0 {
		fmt.Fprintf(&b, "left out: %d lines below these\n", l.below)
	}
	if l.firewall {
		b.WriteString("warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n")
	}
	return b.String()
}

// importLine is a line with its continuations, and the number of its first line.
type importLine struct {
	text  string
	first int
}

func importLines(text string) []importLine {
	var all []importLine
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		for i < len(lines)-1 && Continues(lines[i]) {
			i++
		}
		all = append(all, importLine{strings.Join(lines[first:i+1], "\n"), first + 1})
	}
	return all
}

// runImport runs lines. The Result has no Changed. With skip it leaves out lines that fail.
func (s *Session) runImport(cfg Config, live Live, lines []importLine, skip bool) (whole Result, left leftOut, err error) {
	whole.Config = cfg
	var out strings.Builder
	session := Session{Width: s.Width, older: true, there: map[ID]bool{}}
	for _, ids := range session.execution(cfg, live).cfg.ids {
		for _, id := range ids {
			session.there[id] = true
		}
	}
	idle := "" // the menu that the lines are for, if it is one of idleMenus
	named := map[string]bool{}
	lost, braces := false, 0 // below a path, or in a script, that is left out
	for _, line := range lines {
		start := strings.TrimSpace(line.text)
		if braces > 0 || lost && !strings.HasPrefix(start, "/") {
			if start != "" && start[0] != '#' {
				left.below++
			}
			braces = max(0, braces+openBraces(start))
			continue
		}
		lost = false
		if name := absentService(line, session.path); name != "" {
			if !named[name] {
				named[name] = true
				fmt.Fprintf(&out, "Postern has no service %s, and needs none of its lines (line %d)\n", name, line.first)
			}
			continue
		}
		// leave reports whether a line that has failed is left out.
		leave := func(err error) bool {
			if !skip {
				return false
			}
			var placed *lineError
			if errors.As(err, &placed) {
				lost = placed.path
				if placed.message == noScripts {
					lost, braces = false, max(0, openBraces(start))
				}
			}
			path := strings.TrimLeft(session.path+" "+start, " ")
			if words, absolute := strings.CutPrefix(start, "/"); absolute {
				path = strings.ReplaceAll(words, "/", " ")
			}
			strict, _ := without(path)
			left.firewall = left.firewall || strict > HoldRest
			left.errors = append(left.errors, err.Error())
			return true
		}
		if idle != "" || strings.HasPrefix(strings.TrimSpace(line.text), "/") {
			next, is, err := idleLine(line, idle)
			if err != nil {
				if idle = ""; leave(err) {
					continue
				}
				return whole, left, err
			}
			if is {
				if !named[next] {
					named[next] = true
					fmt.Fprintf(&out, "Postern has no /%s, and needs none of its lines (line %d)\n", next, line.first)
				}
				idle = next
				continue
			}
			idle = next
		}
		result, err := session.execute(whole.Config, live, line.text, line.first)
		if err == nil && (result.Request != None || result.Repeat > 0 || !result.Action.empty()) {
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
		out.WriteString(result.Output)
		whole.Config = result.Config
	}
	whole.Output = out.String()
	return whole, left, nil
}

// openBraces is how many braces of a script a line opens, less those that it closes. Those in
// quotes are text.
func openBraces(line string) (count int) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == '{':
			count++
		case !quoted && c == '}':
			count--
		}
	}
	return count
}

// idleLine reports whether a line of an import is left out, and which of idleMenus the lines from there on
// are for. current is the one that the lines before are for, or "".
func idleLine(line importLine, current string) (next string, skip bool, err error) {
	statements, err := parse(line.text, line.first)
	switch {
	case err != nil, len(statements) == 0: // execute tells
		return current, false, nil
	case len(statements) == 1:
		if next = idleMenu(statements[0], current); next != "" {
			return next, true, nil
		}
	}
	if current != "" && !absolute(statements[0]) {
		return "", false, &lineError{message: "Postern has no /" + current, place: statements[0][0].place}
	}
	return "", false, nil
}

// blame returns the place of the line that has brought about bad, the error of check about what lines
// make when they are run: with the lines before it alone, check says something else or nothing. It
// returns -1 if no line has.
func blame(run func([]importLine) (Result, leftOut, error), lines []importLine, check func(Config) error, bad error) int {
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
