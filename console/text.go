package console

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// exportWidth is where the lines of an export are wrapped, as RouterOS wraps them.
const exportWidth = 80

// maxErrors is how many errors Load reports of one text.
const maxErrors = 20

// Export writes cfg as the commands that make it out of Default, each menu under
// its path, with what is sensitive. Load reads it back.
func Export(cfg Config) string { return exportMenus(menus, &cfg, "", sensitiveWord.Name) }

// exportMenus exports the menu at path and those below it, as words of exportWords say.
func exportMenus(menus []*menu, cfg *Config, path string, words ...string) string {
	var b strings.Builder
	sensitive, verbose := slices.Contains(words, sensitiveWord.Name), slices.Contains(words, verboseWord.Name)
	terse := slices.Contains(words, terseWord.Name)
	for _, m := range menus {
		if path != "" && m.path != path && !strings.HasPrefix(m.path, path+" ") {
			continue
		}
		var lines [][]string
		switch {
		case m.items == nil:
			if words := exported(m, cfg, 0, sensitive, verbose); len(words) > 0 {
				verb := []string{"set"}
				if m.only != "" {
					verb = append(verb, m.only)
				}
				lines = append(lines, append(verb, words...))
			}
		default:
			for i := range m.items.count(cfg) {
				verb := []string{"add"}
				if m.names {
					verb = []string{"set", cfg.Links[i].Name}
					if cfg.Links[i].Renamed != "" { // the other name may be that of another port
						verb[1] = "[find " + defaultName + "=" + cfg.Links[i].Name + "]"
					}
				}
				lines = append(lines, append(verb, exported(m, cfg, i, sensitive, verbose)...))
			}
		}
		if len(lines) == 0 {
			continue
		}
		if terse {
			for _, words := range lines {
				b.WriteString("/" + m.path + " " + strings.Join(words, " ") + "\n")
			}
			continue
		}
		b.WriteString("/" + m.path + "\n")
		for _, words := range lines {
			b.WriteString(wrap(words, exportWidth, "", ` \`, "    "))
		}
	}
	return b.String()
}

// exported are properties as words: those that are not at their default, or all.
func exported(m *menu, cfg *Config, item int, sensitive, verbose bool) []string {
	var words []string
	for _, p := range m.properties {
		if p.sensitive && !sensitive || p.hashed != nil {
			continue
		}
		switch v := p.get(cfg, item); {
		case verbose && v == "" && p.unset != "":
			words = append(words, "!"+p.name)
		case verbose || v != p.def:
			words = append(words, p.name+"="+quote(v))
		}
	}
	return words
}

// BadLine is the error of a line that Load has kept out, as "name:LINE: message".
type BadLine struct {
	Name string
	// Line is its number, from 1, and Text the line itself, with what continues it. Text is
	// empty if the line may have what must not be shown, as a password's hash, and for an
	// error that stands for more lines.
	Line int
	Text string
	// Without says what the rest must not do without the line.
	Without Without
	Err     error
}

// Without says what must not be done with a configuration that lacks a line. A greater
// one is stricter.
type Without int

const (
	// HoldRest: the rest of the configuration holds.
	HoldRest Without = iota
	// DisableSOCKS: the SOCKS server must not run: the line may have said whom it refuses.
	DisableSOCKS
	// CloseRouter: nothing may be forwarded, and the router answers its LAN alone: the line
	// may have forbidden what the rest allows.
	CloseRouter
)

// without is what a configuration must not do that lacks a line which begins with path: the
// words of its menu, as far as they are known and as they are written. They may be
// shortened, and each menu that they could stand for counts. Secret reports whether one of
// these menus has properties that must not be shown.
func without(path string) (w Without, secret bool) {
	words := strings.Fields(path)
	if len(words) == 0 {
		return CloseRouter, false // it may be for any menu
	}
	for _, m := range menus {
		names := strings.Fields(m.path)
		fits := len(words) >= len(names)
		for i := 0; fits && i < len(names); i++ {
			fits = strings.HasPrefix(names[i], words[i])
		}
		if fits {
			w = max(w, m.ifUnknown)
			secret = secret || slices.ContainsFunc(m.properties, func(p property) bool { return p.sensitive })
		}
	}
	return w, secret
}

func (b *BadLine) Error() string { return fmt.Sprintf("%s:%d: %v", b.Name, b.Line, b.Err) }

func (b *BadLine) Unwrap() error { return b.Err }

// Load reads a configuration: lines that change Default. It returns what the good
// lines make together with an error that joins those of the bad ones, each a
// *BadLine. Lines behind a bad path are bad too, up to the next path from
// the root: they would otherwise change the menu before it. The result is not checked as a whole:
// see Validate.
func Load(name string, r io.Reader) (Config, error) {
	cfg := Default()
	data, err := io.ReadAll(io.LimitReader(r, MaxText+1))
	if err != nil {
		return cfg, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > MaxText {
		return cfg, fmt.Errorf("%s: longer than %d bytes", name, MaxText)
	}
	var all []error
	// path begins with the menu that a line is for; what the line says follows. Behind a bad
	// path it is that path.
	var text, path string
	fail := func(line int, err error) {
		if len(all) < maxErrors {
			b := &BadLine{Name: name, Line: line, Text: text, Err: err}
			secret := false
			if b.Without, secret = without(path); secret {
				b.Text = ""
			}
			all = append(all, b)
		} else if len(all) == maxErrors {
			// Nobody knows what they are for.
			all = append(all, &BadLine{Name: name, Line: line, Without: CloseRouter, Err: errors.New("more errors, not shown")})
		}
	}
	session, lost := Session{file: true, older: true}, false
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		for i < len(lines)-1 && Continues(lines[i]) {
			i++
		}
		line := strings.Join(lines[first:i+1], "\n")
		start := strings.TrimLeft(line, " \t")
		text = line
		switch words, absolute := strings.CutPrefix(start, "/"); {
		case absolute:
			path = strings.ReplaceAll(words, "/", " ")
		case !lost:
			path = strings.TrimLeft(session.path+" "+start, " ")
		}
		if lost {
			if start == "" || start[0] == '#' {
				continue
			}
			if start[0] != '/' {
				fail(first+1, errors.New("not read: the path before it is bad"))
				continue
			}
			lost = false
		}
		result, err := session.execute(cfg, Live{}, line, first+1)
		if err == nil && (result.Request != None || result.Output != "") {
			err = errors.New("this command does not belong in a configuration")
		}
		if err != nil {
			at := first + 1
			var e *lineError
			if errors.As(err, &e) {
				at, lost = e.line, e.path
			}
			fail(at, err)
			continue
		}
		cfg = result.Config
	}
	cfg.ids = [lists][]ID{} // they are those of the places
	return cfg, errors.Join(all...)
}
