package console

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxNote is how many bytes a note can have.
const maxNote = 1024

// noteMenu is /system note (https://help.mikrotik.com/docs/spaces/ROS/pages/40992866/Note).
func noteMenu() *menu {
	return &menu{
		path: "system note", help: "text that is shown to who logs in",
		commands: unsetCommands, indent: 2,
		properties: bind(func(c *Config, _ int) *Config { return c },
			prop("note", kind[string]{
				accepts: "printable string: 0..1024 bytes, \"\\n\" between lines", unset: "none",
				parse: func(s string) (string, error) {
					for _, r := range s { // utf8.RuneError for a byte of a code page, which is shown as its number
						if !strings.ContainsRune("\t\r\n", r) && !strconv.IsPrint(r) {
							return "", errors.New("not printable")
						}
					}
					if len(s) > maxNote {
						return "", errors.New("too long")
					}
					return s, nil
				},
				format: func(s string) string { return s },
			}, "", "text for who logs in to a session", func(c *Config) *string { return &c.Note }),
			prop("show-at-login", inverse(boolean()), "yes", "whether it is shown", func(c *Config) *bool { return &c.HideNote }),
		),
	}
}

// LoginNote is what who begins a session is shown, in whole lines; "" is nothing.
func (cfg Config) LoginNote() string {
	text := strings.TrimRight(strings.ReplaceAll(cfg.Note, "\r", ""), "\n")
	if cfg.HideNote || text == "" {
		return ""
	}
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString(Printable(withoutTabs(line)))
		b.WriteByte('\n')
	}
	return b.String()
}

// withoutTabs has spaces up to the next column of eight in place of each tab: a session counts columns.
func withoutTabs(line string) string {
	for {
		before, after, found := strings.Cut(line, "\t")
		if !found {
			return line
		}
		line = before + strings.Repeat(" ", 8-utf8.RuneCountInString(before)%8) + after
	}
}
