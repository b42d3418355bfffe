package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestTrace runs a program with and without the tables that the boards' program lacks. The
// first one's stack traces, with the places that annotate finds, are the second one's.
func TestTrace(t *testing.T) {
	e2e.Builds(t)
	dir := t.TempDir()
	linker, err := boardLinker(board.Board{}, dir)
	require.NoError(t, err)
	require.NotEmpty(t, linker.toolexec, "the release of Go that is in use has the text of every patch")
	runtime, left, err := overlay(map[string]string{}, linker.runtime, dir)
	require.NoError(t, err)
	require.Empty(t, left)
	build := func(name string, flags ...string) string {
		program := filepath.Join(dir, name)
		args := append([]string{"build", "-trimpath", "-gcflags=all=-l", "-o", program}, flags...)
		require.NoError(t, run("", []string{"CGO_ENABLED=0"}, "go", append(args, "./testdata/trace")...))
		return program
	}
	traces := func(program string) string {
		var out bytes.Buffer
		cmd := exec.Command(program)
		cmd.Stdout, cmd.Stderr = &out, &out
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Run(), &exit)
		require.Equal(t, 2, exit.ExitCode(), "it ends with a panic: %s", &out)
		return out.String()
	}
	// The code of full is that of short, its tables are Go's own. So it cannot run.
	usual, short, full := build("usual"), build("short", "-toolexec="+linker.toolexec, "-overlay="+runtime), build("full", "-overlay="+runtime)
	want, bare := traces(usual), traces(short)
	assert.NotContains(t, bare, ".go:")
	assert.NotContains(t, bare, "visit", "functions have no names")
	assert.Contains(t, bare, "main.(", "but packages have")
	assert.Greater(t, strings.Count(bare, "\t?:"), 20)

	var got bytes.Buffer
	require.NoError(t, annotate(full, strings.NewReader(bare), &got))
	// Arguments, addresses and what the scheduler does differ from one run to the next.
	plain := func(s string) []string {
		s = regexp.MustCompile(`(?m)\((\{?0x|\{?0,|\?|\.\.\.|\{\{)[^\n]*\)$`).ReplaceAllString(s, "()")
		s = regexp.MustCompile(`0x[0-9a-f]{5,}|goroutine \d+( gp=\S+ m=\S+( mp=\S+)?)?|, \d+ minutes`).ReplaceAllString(s, "N")
		return strings.Split(strings.TrimSpace(s), "\n")
	}
	assert.Equal(t, plain(want), plain(got.String()))
	assert.Contains(t, got.String(), "main.(*tree[...]).visit")
	assert.Regexp(t, `trace/main.go:\d+ \+0x`, got.String())

	// A panic of which the log tells in one line.
	start := regexp.MustCompile(`main\.\([^\n]*\n\t\?:(\d+) `).FindStringSubmatch(bare)[1]
	got.Reset()
	require.NoError(t, annotate(full, strings.NewReader("system,error panic: oh in main. (?:"+start+" +0x1)\n"), &got))
	assert.Regexp(t, `^system,error panic: oh in main\.\S+ \(\S+/trace/main\.go:\d+ \+0x1\)\n$`, got.String())

	err = annotate(full, strings.NewReader("main.()\n\t?:1 +0x10\n"), &got)
	assert.ErrorContains(t, err, "no function of main. at 1")
	got.Reset()
	other := "panic: no trace\nmain.()\nmain.()\n\tanother line\n\t?:16 +0x10\nlast()"
	require.NoError(t, annotate(full, strings.NewReader(other), &got))
	assert.Equal(t, other+"\n", got.String(), "what is no trace stays")
	assert.ErrorContains(t, annotate("/bin/true", strings.NewReader(""), &got), "not a Go program")
}

// TestTraceName: the names that the shipped program has.
func TestTraceName(t *testing.T) {
	for name, want := range map[string]string{
		"runtime.gopanic":       "runtime.gopanic",
		"runtime.Gosched":       "runtime.Gosched",
		"runtime.(*Func).Entry": "runtime.(*Func).Entry",
		"runtime.main":          "runtime.",
		"runtime.(*g).func1":    "runtime.",
		"github.com/postern-router/postern/console.(*Session).Execute":             "console.",
		"slices.SortFunc[go.shape.[]github.com/postern-router/postern/dns.name,x]": "slices.",
		"main.f[go.shape.int].func1":                                               "main.",
		"github.com/vishvananda/netlink.AddrAdd":                                   "github.com/vishvananda/netlink.",
		"reflect.methodValueCall":                                                  "reflect.methodValueCall",
		"gosave_systemstack_switch":                                                "gosave_systemstack_switch",
	} {
		assert.Equal(t, want, traceName(name))
	}
}

// TestLinkedTests runs tests of the project as programs of the boards' linker and runtime: what the linker leaves
// out is read by nobody, the garbage collector included.
func TestLinkedTests(t *testing.T) {
	e2e.Builds(t)
	dir := t.TempDir()
	linker, err := boardLinker(board.Board{}, dir)
	require.NoError(t, err)
	require.NotEmpty(t, linker.toolexec)
	list, err := patchGo(board.Board{}, dir, linker.runtime...)
	require.NoError(t, err)
	// Not one from the cache, where the programs of Go's own linker are.
	args := []string{"test", "-count=1", "-toolexec=" + linker.toolexec, "-overlay=" + list, "-gcflags=all=-l"}
	require.NoError(t, run("..", append([]string{"CGO_ENABLED=0"}, linker.env...), "go", append(args, "./web", "./dns", "./login", "./match", "./console")...))
}
