package console

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// exportWidth is the column at which the lines of an export are wrapped, as in RouterOS.
const exportWidth = 80

// withoutUsers leaves out the hashes of users' passwords, which are for those who may change them anyway.
const withoutUsers = "without-users"

// maxErrors is how many errors Load reports of one text.
const maxErrors = 20

// Export writes cfg as the commands that make it out of Default, each menu under its path,
// with what is sensitive. Load reads it.
func Export(cfg Config) string { return exportMenus(menus(), &cfg, "", sensitiveWord.Name) }

// exportHeader is the comment before what the command export shows: when, and by what. Programs that compare exports know
// by RouterOS's words what to leave out.
func (x *execution) exportHeader() string {
	if x.live.Now == nil || x.live.Resource == nil {
		return ""
	}
	r, err := x.live.Resource()
	if err != nil || r.Board == "" { // the rest is worth more
		return ""
	}
	at := x.live.Now().UTC().Add(x.cfg.TimeZone).Format(time.DateTime)
	return fmt.Sprintf("# %s by RouterOS %s\n# software = Postern %s\n#\n# model = %s\n", at, RouterOSVersion, r.Version, r.Board)
}

// exportMenus exports the menu at path and those below it, according to words, which are
// some of exportWords, and perhaps withoutUsers.
func exportMenus(menus []*menu, cfg *Config, path string, words ...string) string {
	var b strings.Builder
	sensitive, verbose := slices.Contains(words, sensitiveWord.Name), slices.Contains(words, verboseWord.Name)
	terse := slices.Contains(words, terseWord.Name)
	for _, m := range menus {
		if path != "" && m.path != path && !strings.HasPrefix(m.path, path+" ") || m.isAlias {
			continue
		}
		sensitive := sensitive && (m.path != userMenuPath || !slices.Contains(words, withoutUsers))
		var lines [][]string
		switch {
		case m.fixed != nil:
			for i, name := range m.fixed {
				if words := exported(m, cfg, i, sensitive, verbose); len(words) > 0 {
					lines = append(lines, append([]string{"set", name}, words...))
				}
			}
		case m.items == nil:
			if words := exported(m, cfg, 0, sensitive, verbose); len(words) > 0 {
				lines = append(lines, append([]string{"set"}, words...))
			}
		default:
			initial := m.initialItems(cfg)
			if initial < len(m.initial) {
				for _, name := range m.initial {
					lines = append(lines, []string{"remove", "[find name=" + name + "]"})
				}
				initial = 0
			}
			for i := range m.items.count(cfg) {
				if m.temporary != nil && m.temporary(cfg, i) {
					continue
				}
				verb := []string{"add"}
				if i < initial {
					if words := exported(m, cfg, i, sensitive, verbose); len(words) > 0 {
						lines = append(lines, append([]string{"set", m.initial[i]}, words...))
					}
					continue
				}
				if m.isPorts {
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

// initialItems is how many items of m are still those of Default, by their names.
func (m *menu) initialItems(cfg *Config) int {
	for i, name := range m.initial {
		if i == m.items.count(cfg) || m.properties[0].get(cfg, i) != name {
			return i
		}
	}
	return len(m.initial)
}

// exported are the properties as words, by their names as in RouterOS: those that differ from the default, or all.
func exported(m *menu, cfg *Config, item int, sensitive, verbose bool) []string {
	var words []string
	defaultOf := property.defaultOf
	if item < len(m.initial) && m.initialItems(cfg) == len(m.initial) {
		defaults := Default()
		defaultOf = func(p property, item int) string { return p.get(&defaults, item) }
	}
	for _, p := range m.properties {
		if p.sensitive && !sensitive || p.hashed != nil {
			continue
		}
		switch v := p.get(cfg, item); {
		case p.implied != nil && p.implied(v):
		case verbose && v == "" && p.unset != "":
			words = append(words, "!"+p.name)
		case p.flag && v == "yes":
			words = append(words, p.name)
		case verbose || v != defaultOf(p, item):
			words = append(words, p.name+"="+quote(v))
		}
	}
	sortExported(words)
	return words
}

// sortExported sorts words of an export by the names of their properties. Sorting whole strings costs less of the flash than another
// instance of slices.SortFunc.
func sortExported(words []string) {
	for i, w := range words {
		name, _, _ := strings.Cut(strings.TrimPrefix(w, "!"), "=")
		words[i] = name + "\x00" + w
	}
	slices.Sort(words)
	for i, w := range words {
		_, words[i], _ = strings.Cut(w, "\x00")
	}
}

// BadLine is the error of a line that Load has left out, as "name:LINE: message".
type BadLine struct {
	Name string
	// Line is its number, from 1, and Text the line itself with its continuations. Text is
	// empty if the line may contain what must not be shown, as the hash of a password, and
	// for an error that stands for several lines.
	Line int
	Text string
	// Without says what the configuration must not be used for without the line.
	Without Without
	// User is a user of group full whom the line is about, if that much of it was understood: he and his password are in the
	// configuration all the same, so that somebody can log in at a serial line. "" is that nothing of the line is.
	User string
	Err  error
}

// Without says what a configuration must not be used for if a line of it was not understood: a
// set of these bits.
type Without int

const (
	// DisableSOCKS: the SOCKS server must not run, because the line may have denied a request
	// that the rest allows.
	DisableSOCKS Without = 1 << iota
	// DisableLogins: nobody may log in over the network, because the line may have kept somebody out whom
	// the rest lets in: by an address, or by a key, beside which no password is taken.
	DisableLogins
	// LockUsers: nobody may log in without a password, at a serial line neither, because the line may have set one.
	LockUsers
	// CloseRouter: nothing may be forwarded, and the router answers its LAN only, because the
	// line may have dropped packets that the rest lets through.
	CloseRouter

	// HoldRest: the rest of the configuration is used.
	HoldRest Without = 0
	// anyLine is what a line means that could be for any menu.
	anyLine = DisableSOCKS | DisableLogins | CloseRouter
)

// Has reports whether w has all bits of what.
func (w Without) Has(what Without) bool { return w&what == what }

// without is the consequence of a line that was not understood. path is the words of its menu, and then the
// line. They may be shortened, and a line can have other paths further on, as in a script: every menu that is named
// anywhere, but in quotes, counts, also with a typing error, and after ".." it could be for any. secret reports whether one of these
// menus has properties that must not be shown.
func without(path string) (w Without, secret bool) {
	words := menuWords(path)
	if len(words) == 0 {
		return anyLine, false
	}
	if slices.Contains(words, "..") {
		return anyLine | LockUsers, true
	}
	fits := func(m *menu, from int) bool {
		names := strings.Fields(m.path)
		if len(words)-from < len(names) {
			return false
		}
		for i, name := range names {
			if word := words[from+i]; !strings.HasPrefix(name, word) && !mistyped(word, name) {
				return false
			}
		}
		return true
	}
	all := menus()
	for _, m := range all {
		for from := range words {
			if !fits(m, from) {
				continue
			}
			w |= m.ifUnknown
			if m.path == userMenuPath && from == 0 && !slices.ContainsFunc(all, func(below *menu) bool { return below.isUsers() && below != m && fits(below, from) }) {
				w |= LockUsers
			}
			secret = secret || slices.ContainsFunc(m.properties, func(p property) bool { return p.sensitive })
			break
		}
	}
	return w, secret
}

// menuWords are the words of a line, or of several, that may be those of menus.
func menuWords(line string) []string {
	return strings.FieldsFunc(unquoted(line), func(r rune) bool { return strings.ContainsRune(" \t\r\n/;\\{}[]()", r) })
}

// mistyped reports whether word is name with one typing error: a letter that is wrong, missing or too much, or two that are
// swapped. In shorter words than four letters it could be meant as it is.
func mistyped(word, name string) bool {
	if len(word) < 4 || word == name {
		return false
	}
	i := 0
	for i < min(len(word), len(name)) && word[i] == name[i] {
		i++
	}
	rest, of := word[i:], name[i:]
	switch len(rest) - len(of) {
	case -1:
		return rest == of[1:]
	case 1:
		return rest[1:] == of
	case 0:
		return rest[1:] == of[1:] || len(rest) > 1 && rest[0] == of[1] && rest[1] == of[0] && rest[2:] == of[2:]
	}
	return false
}

// unquoted returns a line without what stands in quotes or in comments there: those begin where a statement could.
func unquoted(line string) string {
	var b strings.Builder
	quoted, begins := false, true
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
			begins = false
		case c == '"':
			quoted, begins = !quoted, false
		case quoted:
		case c == '#' && begins, strings.HasPrefix(line[i:], ";;;"):
			end := strings.IndexByte(line[i:], '\n')
			if end < 0 {
				return b.String()
			}
			i += end - 1
		default:
			b.WriteByte(c)
			begins = strings.IndexByte(";{}\n", c) >= 0 || begins && strings.IndexByte(" \t", c) >= 0
		}
	}
	return b.String()
}

func (b *BadLine) Error() string { return fmt.Sprintf("%s:%d: %v", b.Name, b.Line, b.Err) }

func (b *BadLine) Unwrap() error { return b.Err }

// Load reads a configuration: lines that change Default. It returns what the good lines make,
// and an error that joins a *BadLine for each bad one. Lines after a bad path are bad too, up
// to the next path from the root, because they would change the wrong menu. The configuration
// is not checked as a whole: see Validate.
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
	// path is the menu of the line and then the line itself, lost the one that was a bad path.
	var text, path, lost string
	var more *BadLine // stands for all that are too many
	// user is of whom something of the line is used, and known says that it is understood whose line it is.
	fail := func(line int, user string, known bool, err error) {
		w, secret := without(path)
		if known {
			w &^= LockUsers
		}
		switch {
		case len(all) < maxErrors:
			b := &BadLine{Name: name, Line: line, Text: text, Without: w, User: user, Err: err}
			if secret {
				b.Text = ""
			}
			all = append(all, b)
		case more == nil:
			more = &BadLine{Name: name, Line: line, Without: anyLine, Err: errors.New("more errors, not shown")}
			all = append(all, more)
		}
		if more != nil {
			more.Without |= w & LockUsers
		}
	}
	session := Session{file: true, older: true}
	for _, line := range importLines(string(data)) {
		line.menu = session.path
		text, path = line.text, line.path()
		if session.path == nowhere && !line.absolute() {
			if path = lost; line.start() != "" && line.start()[0] != '#' {
				fail(line.first, "", false, errors.New("not read: the path before it is bad"))
			}
			continue
		}
		result, err := session.execute(cfg, Live{}, line.text, line.first)
		if err == nil && (result.Request != None || result.Output != "") {
			err = errors.New("this command does not belong in a configuration")
		}
		if err != nil {
			at := line.first
			var e *lineError
			if errors.As(err, &e) {
				at = e.line
			}
			next, user, ok := session.salvageUser(cfg, line)
			cfg = session.salvageGroup(next, line)
			fail(at, user, ok, err)
			if line.isScript() || line.mayEnter(err) {
				session.path, lost = nowhere, path
			}
			continue
		}
		cfg = result.Config
	}
	cfg.ids = [lists][]ID{} // items of a file have the IDs of their places
	return cfg, errors.Join(all...)
}
