package session

import (
	"fmt"
	"strings"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// importEnd is the line that ends an import. No command begins with it.
const importEnd = "."

// takeImport has the lines of a file run or, if none is named, those that the user pastes. If they are to replace all that is
// set, it asks whether they shall.
func (s *server) takeImport(a console.ImportArguments) error {
	text, what := "", "Script file"
	var bad error
	if a.File == "" {
		what = "Script"
		pasted, ok, refused, err := s.pasted()
		if !ok || err != nil {
			return err
		}
		text, bad = pasted, refused
	}
	if a.Replace && !a.DryRun && bad == nil {
		// Not before the lines: whoever pastes them together with the command would answer with the
		// first, and the others would be commands.
		if ok, err := s.agree("Replace the whole configuration? [y/N]: "); !ok || err != nil {
			return err
		}
	}
	result, err := console.Result{}, bad
	if err == nil {
		result, err = s.handler.Import(&s.session, text, a)
	}
	output := result.Output
	if !a.DryRun {
		output += what + " loaded and executed successfully\n"
	}
	if err != nil {
		output = strings.TrimSuffix(console.ErrorText(err), "\n") + "; nothing was changed\n"
	}
	return s.show(output)
}

// pasted asks for lines up to the one that ends them. ok is false if the user gives them up; bad is what is wrong with them. Lines that
// are too long are read to the end as well: the rest of them must not be taken for commands.
func (s *server) pasted() (text string, ok bool, bad, err error) {
	if err := s.send(wire.Output, "Paste the lines; one with a dot alone ends them, Ctrl-C gives them up.\n"); err != nil {
		return "", false, nil, err
	}
	var b strings.Builder
	for {
		line, ok, err := s.ask(wire.Ask, "")
		if err != nil {
			return "", false, nil, err
		}
		if !ok {
			return "", false, nil, s.send(wire.Output, "action cancelled\n")
		}
		if strings.TrimSpace(line) == importEnd {
			return b.String(), true, bad, nil
		}
		switch {
		case bad != nil:
		case len(line) >= console.MaxLine: // perhaps not all of it
			bad = fmt.Errorf("failure: line longer than %d bytes", console.MaxLine-1)
		case b.Len()+len(line) >= console.MaxImport:
			bad = fmt.Errorf("failure: longer than %d bytes", console.MaxImport)
		default:
			b.WriteString(line + "\n")
		}
	}
}
