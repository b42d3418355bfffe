package console

import (
	"errors"
	"strings"
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
					for line := range strings.Lines(s) {
						if line = strings.TrimRight(line, "\r\n"); Printable(line) != line {
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
	return text + "\n"
}
