package daemon

import (
	"fmt"
	"strings"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/socks"
)

// parseRule reads an access rule as the manual writes it, key=value words with
// spaces between: src-address, dst-address, src-port, dst-port, action
// (allow, which is the default, or deny), disabled (yes or no).
func parseRule(s string) (socks.Rule, error) {
	if strings.TrimSpace(s) == "" {
		// It would allow everything. Nobody writes that: it is a variable of a shell that was not set.
		return socks.Rule{}, fmt.Errorf("access rule %q: expected key=value words, action=allow to allow everything", s)
	}
	r := socks.Rule{Action: socks.Allow}
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(s) {
		key, value, ok := strings.Cut(word, "=")
		if !ok || value == "" {
			return socks.Rule{}, fmt.Errorf("access rule %q: %q is not key=value", s, word)
		}
		if seen[key] {
			return socks.Rule{}, fmt.Errorf("access rule %q: %s is there twice", s, key)
		}
		seen[key] = true
		var err error
		switch key {
		case "src-address":
			r.SrcAddress, err = match.ParseAddresses(value)
		case "dst-address":
			r.DstAddress, err = match.ParseAddresses(value)
		case "src-port":
			r.SrcPort, err = match.ParsePorts(value)
		case "dst-port":
			r.DstPort, err = match.ParsePorts(value)
		case "action":
			r.Action = socks.Action(value)
			if r.Action != socks.Allow && r.Action != socks.Deny {
				err = fmt.Errorf("%q is not allow or deny", value)
			}
		case "disabled":
			r.Disabled = value == "yes"
			if value != "yes" && value != "no" {
				err = fmt.Errorf("%q is not yes or no", value)
			}
		default:
			return socks.Rule{}, fmt.Errorf("access rule %q: no property %q; expected src-address, dst-address, src-port, dst-port, action or disabled", s, key)
		}
		if err != nil {
			return socks.Rule{}, fmt.Errorf("access rule %q: %s: %w", s, key, err)
		}
	}
	return r, nil
}
