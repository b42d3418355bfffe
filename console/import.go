package console

import (
	"errors"
	"fmt"
	"strings"
)

// MaxImport is the greatest length in bytes of an import: PID 1 holds the text and the change
// that it makes in memory.
const MaxImport = 256 << 10

var importCommand = command{name: "import", help: "run lines as export writes them: all of them or none", needs: Import,
	arguments: []argument{option(prop("replace", boolean(), "no", "whether the lines replace all that is set, but for the password of admin if they have none",
		func(o *options) *bool { return &o.imports.Replace }))},
	run: func(x *execution, _ *menu, a arguments) error {
		x.result.Import = a.imports
		return x.ask(Import)
	}}

// ImportArguments are the arguments of /import.
type ImportArguments struct {
	// Replace is set if the lines run on Default, by Session.Replace, and not on what is set.
	Replace bool
}

// Import runs the lines of text, starting at the root, each on the configuration that the
// lines before it have made of cfg. The result is like that of Execute. An item that cfg has
// already, with the same properties, is not added again: an export can be imported where it
// came from. Lines of idleMenus are left out, and the output names the menus. check, unless it is
// nil, reports what is wrong with the new configuration as a whole. If a line fails, or makes check
// fail, the error says which, and the Result has cfg. A line that makes a Request, repeats itself or
// has an Action is an error.
func (s *Session) Import(cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	return s.importOn(cfg, cfg, live, text, check)
}

// Replace is Import of lines that say all: they run on Default, and the result replaces cfg. The
// password of admin stays unless a line sets another, as an export has it only on request. Lines
// that set nothing are an error.
func (s *Session) Replace(cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	start := Default()
	start.AdminPassword = cfg.AdminPassword
	return s.importOn(start, cfg, live, text, func(c Config) error {
		if c.Equal(start) {
			return errors.New("failure: the lines set nothing that could replace what is set")
		}
		if check == nil || c.Equal(cfg) {
			return nil
		}
		return check(c)
	})
}

// importOn runs the lines of text on start, for the owner of cfg.
func (s *Session) importOn(start, cfg Config, live Live, text string, check func(Config) error) (Result, error) {
	lines := importLines(text)
	run := func(lines []importLine) (Result, error) { return s.runImport(start, live, lines) }
	if live.HashPassword != nil {
		hashes := Hashes{Make: live.HashPassword}
		run = func(lines []importLine) (Result, error) {
			live := live
			live.HashPassword = hashes.Run()
			return s.runImport(start, live, lines)
		}
	}
	whole, err := run(lines)
	if err != nil {
		return Result{Config: cfg}, err
	}
	whole.Changed = !cfg.Equal(whole.Config)
	if check == nil || start.Equal(cfg) && !whole.Changed {
		return whole, nil
	}
	if err := check(whole.Config); err != nil {
		return Result{Config: cfg}, placeCheck(run, lines, check, err)
	}
	return whole, nil
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

// runImport runs lines. The Result has no Changed.
func (s *Session) runImport(cfg Config, live Live, lines []importLine) (Result, error) {
	whole := Result{Config: cfg}
	var out strings.Builder
	session := Session{Width: s.Width, older: true, there: map[ID]bool{}}
	for _, ids := range session.execution(cfg, live).cfg.ids {
		for _, id := range ids {
			session.there[id] = true
		}
	}
	idle := "" // the menu that the lines are for, if it is one of idleMenus
	named := map[string]bool{}
	for _, line := range lines {
		if name := absentService(line, session.path); name != "" {
			if !named[name] {
				named[name] = true
				fmt.Fprintf(&out, "Postern has no service %s, and needs none of its lines (line %d)\n", name, line.first)
			}
			continue
		}
		if idle != "" || strings.HasPrefix(strings.TrimSpace(line.text), "/") {
			next, skip, err := idleLine(line, idle)
			if err != nil {
				return whole, err
			}
			if skip {
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
			return whole, err
		}
		out.WriteString(result.Output)
		whole.Config = result.Config
	}
	whole.Output = out.String()
	return whole, nil
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

// placeCheck adds to bad, the error of check about what lines make when they are run, the line
// that brought it about: with the lines before it alone, check says something else or nothing.
func placeCheck(run func([]importLine) (Result, error), lines []importLine, check func(Config) error, bad error) error {
	same := func(count int) bool {
		result, err := run(lines[:count])
		if err == nil {
			err = check(result.Config)
		}
		return err != nil && err.Error() == bad.Error()
	}
	if same(0) {
		return bad // it is not of the import
	}
	good, failing := 0, len(lines)
	for failing-good > 1 {
		if middle := (good + failing) / 2; same(middle) {
			failing = middle
		} else {
			good = middle
		}
	}
	return fmt.Errorf("%w (line %d)", bad, lines[failing-1].first)
}
