package console

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
)

// exportLines counts the lines of an export: those that are taken, those of menus that Postern has
// and that are not taken, and those of menus that it lacks. refused has the former of both.
type exportLines struct {
	taken, refused, absent int
	errors                 []string
}

// runExport runs the lines of an export one by one, as Load does, and leaves out what is not taken.
func runExport(name, text string) (Config, exportLines) {
	cfg := Default()
	session := Session{older: true}
	live := fullLive()
	live.Links = func() (links []netcfg.LinkState, err error) {
		for _, name := range strings.Fields("ether1 ether2 ether3 ether4 ether5 sfp1") {
			links = append(links, netcfg.LinkState{Name: name, Type: netcfg.Ether, Present: true})
		}
		return links, nil
	}
	var count exportLines
	var lost string // the error of the path of these lines
	for _, line := range importLines(text) {
		start := strings.TrimLeft(line.text, " \t")
		if start == "" || strings.HasPrefix(start, "#") {
			continue
		}
		if absolute := strings.HasPrefix(start, "/"); lost != "" && !absolute {
			count.absent++
			continue
		}
		lost = ""
		before := session.path
		result, err := session.execute(cfg, live, line.text, line.first)
		if err == nil {
			if cfg = result.Config; session.path == before || len(strings.Fields(start)) > 1 && !isPath(&session, start) {
				count.taken++
			}
			continue
		}
		var e *lineError
		switch {
		case errors.As(err, &e) && e.path && strings.HasPrefix(e.message, "Postern has no /"):
			lost = e.message
		case errors.As(err, &e) && strings.HasPrefix(e.message, "Postern has no /"):
			count.absent++
		default:
			count.refused++
		}
		count.errors = append(count.errors, fmt.Sprintf("%s:%d: %s", name, line.first, cmp.Or(err.Error(), "")))
	}
	return cfg, count
}

// isPath reports whether a line only led to the menu that the session is in.
func isPath(s *Session, line string) bool {
	return strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(line, "/"), "/", " ")) == s.path
}

// testdata/refused.txt has every line of testdata/exports that is not taken, with its error. These are of
// our own making, in the manner of those that people publish.
func TestExports(t *testing.T) {
	files, err := filepath.Glob("testdata/exports/*.rsc")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 40)
	var all exportLines
	var got strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		cfg, count := runExport(filepath.Base(file), string(text))
		all.taken, all.refused, all.absent = all.taken+count.taken, all.refused+count.refused, all.absent+count.absent
		for _, e := range count.errors {
			got.WriteString(e + "\n")
		}
		// What was taken can be exported and comes back.
		again, err := Load(file, strings.NewReader(Export(cfg)))
		require.NoError(t, err, file)
		assert.Equal(t, Export(cfg), Export(again), file)
	}
	t.Logf("%d lines: %d taken, %d refused, %d of menus that Postern lacks; of the lines of its own menus %.1f %% are taken",
		all.taken+all.refused+all.absent, all.taken, all.refused, all.absent, 100*float64(all.taken)/float64(all.taken+all.refused))
	if os.Getenv("POSTERN_GOLDEN") == "write" {
		require.NoError(t, os.WriteFile("testdata/refused.txt", []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile("testdata/refused.txt")
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String(), "POSTERN_GOLDEN=write go test ./console -run TestExports writes the file anew")
}
