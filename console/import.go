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
	run: func(x *execution, _ *menu, _ arguments) error { return x.ask(Import) }}

// Import runs the lines of text, starting at the root, each on the configuration that the
// lines before it have made of cfg. The result is like that of Execute. If a line fails, the
// error says which, and the Result has cfg. A line that makes a Request or repeats itself is
// an error.
func (s *Session) Import(cfg Config, live Live, text string) (Result, error) {
	whole := Result{Config: cfg}
	var out strings.Builder
	session := Session{Width: s.Width, older: true}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		for i < len(lines)-1 && Continues(lines[i]) {
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
	whole.Changed, whole.Output = !cfg.Equal(whole.Config), out.String()
	return whole, nil
}
