package console

import (
	"errors"
	"fmt"
	"strings"
)

// MaxImport is the length in bytes of what /import takes: PID 1 holds it, and a change
// of that size, in memory.
const MaxImport = 256 << 10

// importEnd is the line that ends what is imported. No command begins so.
const importEnd = "."

var importCommand = command{name: "import", help: "take lines as export shows them, all of them or none", needs: Import,
	run: func(x *execution, _ *menu, _ arguments) error { return x.ask(Import) }}

// Import runs the lines of text, from the root on, each on what those before it have
// made of cfg. The result is as Execute's; if any line fails, the error says which and
// the Result holds cfg. What a line asks beyond a change of the configuration is an
// error.
func (s *Session) Import(cfg Config, live Live, text string) (Result, error) {
	whole := Result{Config: cfg}
	var out strings.Builder
	session := Session{Width: s.Width, older: true}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		for i < len(lines)-1 && continues(lines[i]) {
			i++
		}
		result, err := session.execute(whole.Config, live, strings.Join(lines[first:i+1], "\n"), first+1)
		if err == nil && (result.Request != None || result.Repeat > 0) {
			err = errors.New("this command does not belong in an import")
		}
		if err != nil {
			var placed *lineError
			if !errors.As(err, &placed) {
				err = fmt.Errorf("%w (line %d)", err, first+1)
			}
			return Result{Config: cfg}, err
		}
		out.WriteString(result.Output)
		whole.Config = result.Config
	}
	whole.Changed, whole.Output = !sameSettings(cfg, whole.Config), out.String()
	return whole, nil
}

// takeImport asks for the lines, up to the one that ends them, and has them run. What
// is too long is read to its end all the same: the rest is no command.
func (s *server) takeImport() error {
	if err := s.send(frameOutput, "Paste the lines; one with a dot alone ends them, Ctrl-C gives them up.\n"); err != nil {
		return err
	}
	var text strings.Builder
	var bad error
	for {
		line, ok, err := s.ask(frameAsk, "")
		if err != nil {
			return err
		}
		if !ok {
			return s.send(frameOutput, "action cancelled\n")
		}
		if strings.TrimSpace(line) == importEnd {
			break
		}
		switch {
		case bad != nil:
		case len(line) >= MaxLine: // perhaps not all of it
			bad = fmt.Errorf("failure: line longer than %d bytes", MaxLine-1)
		case text.Len()+len(line) >= MaxImport:
			bad = fmt.Errorf("failure: longer than %d bytes", MaxImport)
		default:
			text.WriteString(line + "\n")
		}
	}
	result, err := Result{}, bad
	if err == nil {
		result, err = s.handler.Import(&s.session, text.String())
	}
	output := result.Output + "Script loaded and executed successfully\n"
	if err != nil {
		output = err.Error() + "; nothing was changed\n"
	}
	return s.show(output)
}
