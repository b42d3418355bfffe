package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/router"
	"github.com/postern-router/postern/socks"
)

const root = ".."

func pages(t *testing.T) []Page {
	t.Helper()
	all, err := Pages(root)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	return all
}

func TestParse(t *testing.T) {
	page, err := Parse("a.md", "# A\n\nType `make quick` or `go test\n  ./...`.\n\n```sh\n# why\nmake lab  # what\ngo run \\\n    ./image\n```\n")
	require.NoError(t, err)
	assert.Equal(t, []Span{{"a.md", 3, "make quick"}, {"a.md", 3, "go test ./..."}}, page.Spans)
	require.Len(t, page.Blocks, 1)
	assert.Equal(t, []Command{{"a.md", 8, "make lab"}, {"a.md", 9, "go run ./image"}}, page.Blocks[0].Commands())

	page, err = Parse("a.md", "```console\n[admin@postern] > /ip socks\n[admin@postern] ip socks> set \\\n\\... port=1\n[admin@postern] ip socks> print\nport: 1\n```\n")
	require.NoError(t, err)
	assert.Equal(t, []Typed{
		{"a.md", 2, "", "/ip socks", ""},
		{"a.md", 3, "ip socks", "set  port=1", ""},
		{"a.md", 5, "ip socks", "print", "port: 1\n"},
	}, page.Blocks[0].Typed())

	for _, c := range []struct{ name, text, problem string }{
		{"a kind that is not known", "\n```python\n```\n", `a.md:2: a block of kind "python": want one of sh, console, rsc, uboot, text`},
		{"no kind", "```\n```\n", `a.md:1: a block of kind ""`},
		{"no end", "```sh\nmake\n", "a.md:2: the block does not end"},
		{"indented", "Type\n\n    make\n", "a.md:3: an indented block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("a.md", c.text)
			require.ErrorContains(t, err, c.problem)
		})
	}
}

// TestShell checks each command for a shell as far as it can be without root, a network,
// or hours: what is heavy is run by `make test`.
func TestShell(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range page.Blocks {
			if b.Kind != "sh" {
				assert.NotRegexp(t, `(?m)^ *(make|go run|go test|git) `, b.Text, "%s:%d: a block of kind %s has a command for a shell", b.File, b.Line, b.Kind)
				continue
			}
			for _, c := range b.Commands() {
				checkShell(t, c)
			}
		}
		for _, s := range page.Spans {
			if regexp.MustCompile(`^([A-Z_]+=\S+ )*(make|go run|go test|go tool|go doc) `).MatchString(s.Text) {
				checkShell(t, Command(s))
			}
		}
	}
}

// elsewhere are programs that the pages name and this test cannot run, with the reason.
var elsewhere = map[string]string{
	"apt-get":                        "installs packages, as root",
	"ansible":                        "manages a router: TestManagers runs it",
	"ssh":                            "asks a router: TestManagers runs it",
	"busybox":                        "serves a folder until it is ended",
	"dd":                             "TestWriteDisk runs it",
	"gcc":                            "needs the kernel's source: TestDeviceTrees of ./image",
	"dtc":                            "needs the kernel's source: TestDeviceTrees of ./image",
	"linux/scripts/dtc/dt_to_config": "needs the kernel's source",
}

func checkShell(t *testing.T, c Command) {
	t.Helper()
	at := fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Text)
	words := strings.Fields(c.Text)
	for strings.Contains(words[0], "=") { // the command's environment
		name, _, _ := strings.Cut(words[0], "=")
		assert.True(t, isRead(name), "%s:%d: nothing reads %s", c.File, c.Line, name)
		words = words[1:]
	}
	// bash -c "$(COMMAND)" runs what the command prints.
	if inner, ok := strings.CutPrefix(c.Text, `bash -c "$(`); ok {
		words = strings.Fields(strings.TrimSuffix(inner, `)"`))
	}
	switch {
	case words[0] == "make":
		checkMake(t, words[1:], at)
	case len(words) > 2 && words[0] == "go" && words[1] == "run":
		checkProgram(t, words[2], words[3:], at)
	case len(words) > 2 && words[0] == "go" && words[1] == "test":
		checkTest(t, words[2:], at)
	case len(words) > 2 && words[0] == "go" && (words[1] == "doc" || words[1] == "tool"):
		for _, pkg := range packagesOf(words[2:]) {
			out, err := run("go", "list", pkg)
			assert.NoError(t, err, "%s: %s", at, out)
		}
	default:
		assert.Contains(t, elsewhere, words[0], at)
		cmd := exec.Command("bash", "-n", "-c", c.Text)
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", at, out)
	}
}

func packagesOf(words []string) (packages []string) {
	for _, w := range words {
		if strings.HasPrefix(w, "./") && w != "./NAME" {
			packages = append(packages, w)
		}
	}
	return packages
}

func run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// checkMake has make say what it would do.
func checkMake(t *testing.T, args []string, at string) {
	for _, a := range args {
		if name, value, ok := strings.Cut(a, "="); ok && name == "BOARD" {
			_, err := board.ByName(value)
			assert.NoError(t, err, at)
		} else if ok {
			text, err := os.ReadFile(filepath.Join(root, "Makefile"))
			require.NoError(t, err)
			assert.Contains(t, string(text), "$("+name+")", at)
		}
	}
	out, err := run("make", append([]string{"--dry-run"}, args...)...)
	assert.NoError(t, err, "%s: %s", at, out)
}

var (
	helpOf      = map[string]string{}
	helpMu      sync.Mutex
	commandLine = regexp.MustCompile(`(?m)^  ([a-z-]+)  `)
)

// checkProgram runs a program of the project for its help, and looks there for the command
// and its flags.
func checkProgram(t *testing.T, pkg string, args []string, at string) {
	helpMu.Lock()
	help, ok := helpOf[pkg]
	if !ok {
		var err error
		help, err = run("go", "run", pkg, "--help")
		require.NoError(t, err, "%s: %s", at, help)
		helpOf[pkg] = help
	}
	helpMu.Unlock()
	commands := map[string]bool{}
	if _, list, ok := strings.Cut(help, "\nCommands:\n"); ok {
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range commandLine.FindAllStringSubmatch(list, -1) {
			commands[m[1]] = true
		}
	}
	seen := false
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		switch {
		case name == "--help":
		case strings.HasPrefix(name, "-"):
			assert.Regexp(t, `(?m)(^|\s)`+regexp.QuoteMeta(name)+`\b`, help, at)
		case len(commands) > 0 && !seen:
			seen = true
			assert.True(t, commands[a], at)
		case a == "all" || a == "rest" || strings.ToUpper(a) == a: // BOARD, FOLDER
		case len(commands) > 0:
			_, err := board.ByName(a)
			assert.NoError(t, err, at)
		}
	}
}

// checkTest looks for the tests that -run names.
func checkTest(t *testing.T, args []string, at string) {
	packages := packagesOf(args)
	require.NotEmpty(t, packages, at)
	for i, a := range args {
		if a != "-run" {
			continue
		}
		require.Less(t, i+1, len(args), at)
		for _, pkg := range packages {
			assert.True(t, slices.ContainsFunc(tests(t, pkg), func(name string) bool {
				return regexp.MustCompile(strings.Trim(args[i+1], `'"`)).MatchString(name)
			}), at)
		}
	}
}

// tests lists the tests of a package and, for ./..., of all.
func tests(t *testing.T, pkg string) (names []string) {
	folder := filepath.Join(root, strings.TrimSuffix(pkg, "/..."))
	err := filepath.WalkDir(folder, func(file string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != folder && !strings.HasSuffix(pkg, "/..."):
			return filepath.SkipDir
		case !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && regexp.MustCompile("^(Test|Fuzz|Example|Benchmark)").MatchString(f.Name.Name) {
				names = append(names, f.Name.Name)
			}
		}
		return nil
	})
	require.NoError(t, err)
	return names
}

// isRead reports whether a program or test of the project asks for the variable.
func isRead(name string) bool {
	_, err := run("grep", "-rqF", "--include=*.go", `"`+name+`"`, ".")
	return err == nil
}

// TestNames looks for the tests that the pages name: what was seen, and where.
func TestNames(t *testing.T) {
	all := tests(t, "./...")
	name := regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
	for _, page := range pages(t) {
		for _, s := range page.Spans {
			if name.MatchString(s.Text) {
				assert.True(t, slices.Contains(all, s.Text), "%s:%d: no test is called %s", s.File, s.Line, s.Text)
			}
		}
	}
}

// TestCases checks that each case has its tests.
func TestCases(t *testing.T) {
	text, err := os.ReadFile("CASES.md")
	require.NoError(t, err)
	known := map[string][]string{}
	cases := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") || cells[0] == "| case" {
			continue
		}
		require.Len(t, cells, 3, line)
		cases++
		for part := range strings.SplitSeq(strings.TrimSuffix(cells[2], " |"), "; ") {
			pkg, names, ok := strings.Cut(strings.TrimPrefix(part, "`"), "` ")
			require.True(t, ok, line)
			if known[pkg] == nil {
				known[pkg] = tests(t, "./"+pkg)
			}
			for name := range strings.SplitSeq(names, ", ") {
				assert.Contains(t, known[pkg], name, line)
			}
		}
	}
	assert.Equal(t, 44, cases)
}

// TestFiles looks for the files and folders of the project that the pages name.
func TestFiles(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9]+(/[A-Za-z0-9_.-]+)+/?$|^\./[a-z/]+$`)
	first := map[string]bool{}
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		first[e.Name()] = true
	}
	for _, page := range pages(t) {
		for _, s := range page.Spans {
			top, _, _ := strings.Cut(strings.TrimPrefix(s.Text, "./"), "/")
			if name.MatchString(s.Text) && first[top] && top != "out" {
				assert.FileExists(t, exists(filepath.Join(root, s.Text)), "%s:%d: %s", s.File, s.Line, s.Text)
			}
		}
	}
}

// exists turns a folder into a file in it, for assert.FileExists.
func exists(name string) string {
	if entries, err := os.ReadDir(name); err == nil && len(entries) > 0 {
		for _, e := range entries {
			if !e.IsDir() {
				return filepath.Join(name, e.Name())
			}
		}
	}
	return name
}

// machine is a router for what the pages type: a board's default configuration, and a
// machine that can do all and knows nothing.
type machine struct {
	cfg  console.Config
	live console.Live
}

func newMachine(t *testing.T) *machine {
	b, err := board.ByName("malta")
	require.NoError(t, err)
	cfg, err := console.Load("default.rsc", strings.NewReader(b.DefaultConfiguration()))
	require.NoError(t, err)
	r := &machine{cfg: cfg}
	r.live = console.Live{
		Links: func() ([]netcfg.LinkState, error) {
			var links []netcfg.LinkState
			for _, name := range b.PortNames() {
				links = append(links, netcfg.LinkState{Name: name, Type: netcfg.Ether, Present: true})
			}
			return links, nil
		},
		Files: func() ([]console.FileState, error) { return nil, nil },
		ReadFile: func(string) (string, error) {
			return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2", nil
		},
		MayKeepFile:    func(string, int) error { return nil },
		KeepFile:       func(string, string) error { return nil },
		MayRemoveFiles: func([]uint32) error { return nil },
		RemoveFiles:    func([]uint32) error { return nil },
		Connections:    func() ([]socks.Connection, error) { return nil, nil },
		Hits:           func() ([]uint64, error) { return make([]uint64, len(r.cfg.Socks.Access)), nil },
		QueueCounters:  func() (map[uint16]netcfg.ClassCounters, error) { return nil, nil },
		Counters: func(t firewall.Table) ([]firewall.Counter, error) {
			return make([]firewall.Counter, len(r.cfg.Firewall.Rules(t))), nil
		},
		Openings:         func() []firewall.Opening { return nil },
		Invalid:          func(string) ([]int, error) { return nil, nil },
		Addresses:        func() ([]netcfg.Address, error) { return nil, nil },
		Routes:           func() ([]console.DynamicRoute, error) { return nil, nil },
		Neighbors:        func() ([]console.Neighbor, error) { return nil, nil },
		History:          func() []console.HistoryEntry { return nil },
		Undo:             func() (console.Config, error) { return r.cfg, nil },
		Redo:             func() (console.Config, error) { return r.cfg, nil },
		ActiveUsers:      func() ([]console.ActiveUser, error) { return nil, nil },
		Discovered:       func() ([]console.DiscoveredNeighbor, error) { return nil, nil },
		Tracked:          func() ([]firewall.Tracked, error) { return nil, nil },
		Logout:           func([]uint32) error { return nil },
		Forget:           func([]firewall.Tracked) error { return nil },
		CloseConnections: func([]uint64) error { return nil },
		Log:              func() ([]string, error) { return nil, nil },
		Resource:         func() (console.Resource, error) { return console.Resource{}, nil },
		Now:              time.Now,
		HashPassword:     func(secret, _ string) (string, error) { return password.New(secret) },
		Slots:            func() ([]console.SlotState, error) { return []console.SlotState{{Name: "a"}, {Name: "b"}}, nil },
		PPPoEClients:     func() ([]console.PPPoEClientState, error) { return nil, nil },
		PortModes:        func(string) (netcfg.PortModes, error) { return netcfg.PortModes{}, nil },
		DynamicDNS:       func() []netip.Addr { return nil },
		DynamicNTP:       func() []string { return nil },
		DNSCache:         func() ([]dns.CacheEntry, int, error) { return nil, 0, nil },
		FlushDNS:         func() error { return nil },
		CacheUsed:        func() (int, error) { return 0, nil },
		NTP:              func() (console.NTPState, error) { return console.NTPState{}, nil },
		Requests: []console.Request{console.Ping, console.Traceroute, console.SetClock, console.ChangePassword,
			console.Import, console.Edit, console.ResetConfiguration, console.Upgrade, console.CheckForUpdates},
		WAN:       b.WAN,
		RemoteLog: true,
	}
	offerCertificates(&r.live)
	return r
}

// TestCI compares what CI runs with what README says runs everything.
func TestCI(t *testing.T) {
	ci, err := os.ReadFile(filepath.Join(root, ".ci/run"))
	require.NoError(t, err)
	assert.Contains(t, string(ci), "\nif ! make test 2>&1 |")
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	assert.Regexp(t, `(?m)^make test +# everything`, string(readme))
}

// TestGo compares the version of Go that README asks for with go.mod's.
func TestGo(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))
	require.NotNil(t, version)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	assert.Contains(t, string(readme), "with Go "+version[1]+" or later")
}

// TestProcesses compares the processes that SECURITY lists with those that the router has.
func TestProcesses(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	require.NoError(t, err)
	var listed, want []string
	for _, m := range regexp.MustCompile(`(?m)^\| `+"`([a-z-]+)`"+` \| (\d+) \|`).FindAllStringSubmatch(string(text), -1) {
		listed = append(listed, m[1]+" "+m[2])
	}
	for i, s := range router.Processes {
		want = append(want, fmt.Sprintf("%s %d", s.Name, 64000+i))
	}
	assert.Equal(t, want, listed)
}

// TestConsole runs each command that the pages type at the router's console.
func TestConsole(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range page.Blocks {
			r := newMachine(t)
			if b.Kind == "rsc" {
				_, err := console.Load(b.File, strings.NewReader(b.Text))
				assert.NoError(t, err, "%s:%d", b.File, b.Line)
				continue
			}
			typed := b.Typed()
			var s console.Session // of one reader
			if b.Kind == "console" {
				assert.NotEmpty(t, typed, "%s:%d: nothing is typed here", b.File, b.Line)
			}
			for _, c := range typed {
				at := fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Text)
				_, err := s.Execute(r.cfg, r.live, "/"+c.Menu)
				assert.NoError(t, err, at)
				assert.Equal(t, "[admin@postern] "+c.Menu+"> ", strings.Replace(s.Prompt("postern"), "] > ", "] > ", 1), at)
				result, err := s.Execute(r.cfg, r.live, c.Text)
				if assert.NoError(t, err, at) && assert.NoError(t, console.ValidateChange(r.cfg, result.Config, []string{"ether1", "ether2"}), at) {
					r.cfg = result.Config
				}
			}
		}
	}
}

// The example of rules by the clock stands before the rule that accepts established connections, whatever that one's number is and
// whether somebody has looked at the numbers before: they stay as they were then.
func TestRulesByTheClock(t *testing.T) {
	for _, lines := range [][]string{nil, {"/ip firewall filter move [find chain=forward] 0"}, {"/ip firewall filter move [find chain=forward] 0", "/ip firewall filter print"}} {
		r := newMachine(t)
		var s console.Session
		run := func(line string) {
			t.Helper()
			result, err := s.Execute(r.cfg, r.live, line)
			require.NoError(t, err, line)
			r.cfg = result.Config
		}
		for _, line := range lines {
			run(line)
		}
		typed := 0
		for _, page := range pages(t) {
			for _, b := range page.Blocks {
				for _, c := range b.Typed() {
					if strings.Contains(b.Text, " time=15h") {
						run(c.Text)
						typed++
					}
				}
			}
		}
		require.Equal(t, 3, typed)
		var got []string
		for _, rule := range r.cfg.Firewall.Filter {
			if rule.Chain == "forward" {
				got = append(got, rule.String())
			}
		}
		require.GreaterOrEqual(t, len(got), 4)
		assert.Contains(t, got[0], "mon,tue")
		assert.Contains(t, got[1], "sat,sun")
		assert.Contains(t, got[2], "action=drop")
		assert.Contains(t, got[3], "connection-state=established")
	}
}

// TestConsoleSpans runs the commands that stand in sentences: `/ip socks print`. What takes
// a place that the sentence leaves open (`remote=ADDRESS`) must complete up to there.
func TestConsoleSpans(t *testing.T) {
	place := regexp.MustCompile(`[A-Z]{2,}|^/(dev|etc|proc|sys|run|tmp|usr|boot|config|signature|user/active)(/|$)`)
	for _, page := range pages(t) {
		for _, span := range page.Spans {
			if !strings.HasPrefix(span.Text, "/") || place.MatchString(span.Text) {
				continue
			}
			r := newMachine(t)
			var s console.Session
			at := fmt.Sprintf("%s:%d: %s", span.File, span.Line, span.Text)
			if strings.HasSuffix(span.Text, "=") {
				_, choices := s.Complete(r.cfg, r.live, span.Text)
				help := s.Help(r.cfg, r.live, span.Text)
				assert.True(t, len(choices) > 0 || strings.Contains(help, "type:"), "%s: %s", at, help)
				continue
			}
			// A sentence may leave the arguments out.
			if _, err := s.Execute(r.cfg, r.live, span.Text); err != nil {
				assert.ErrorContains(t, err, "missing value(s) of argument(s)", at)
			}
		}
	}
}

// TestBootLoader looks for the commands that are typed at a boot loader's prompt.
func TestBootLoader(t *testing.T) {
	var variables []string
	for _, b := range board.All() {
		for _, v := range b.Image.BootLoader.Environment {
			name, _, _ := strings.Cut(v, "=")
			variables = append(variables, name)
		}
	}
	runs := regexp.MustCompile(`\brun ([a-z]+)\b`)
	for _, page := range pages(t) {
		var commands []Command
		for _, b := range page.Blocks {
			if b.Kind == "uboot" {
				commands = append(commands, b.Commands()...)
			}
		}
		for _, s := range page.Spans {
			if strings.HasPrefix(s.Text, "run ") {
				commands = append(commands, Command(s))
			}
		}
		for _, c := range commands {
			for _, m := range runs.FindAllStringSubmatch(c.Text, -1) {
				assert.Contains(t, variables, m[1], "%s:%d: %s", c.File, c.Line, c.Text)
			}
		}
	}
}

// TestWriteDisk writes an image to a disk as README says, with files in their places.
func TestWriteDisk(t *testing.T) {
	line := ""
	for _, page := range pages(t) {
		for _, b := range page.Blocks {
			for _, c := range b.Commands() {
				if path.Base(page.File) == "README.md" && strings.HasPrefix(c.Text, "dd ") {
					line = c.Text
				}
			}
		}
	}
	require.Contains(t, line, "if=out/x86-64/factory.img of=/dev/sdX", "README says how to write a disk")
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	require.NoError(t, os.WriteFile(image, []byte("image"), 0o644))
	line = strings.NewReplacer("out/x86-64/factory.img", image, "/dev/sdX", disk).Replace(line)
	out, err := exec.Command("bash", "-c", line).CombinedOutput()
	require.NoError(t, err, "%s: %s", line, out)
	written, err := os.ReadFile(disk)
	require.NoError(t, err)
	assert.Equal(t, "image", string(written))
}

var (
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the names that GitHub gives to the headings of a page.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(m[1])
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}

// TestLinks follows the links from one page of the project to another file.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(page.Text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page.File
			if file != "" {
				target = filepath.Join(filepath.Dir(page.File), file)
			}
			info, err := os.Stat(target)
			if !assert.NoError(t, err, "%s: %s", page.File, m[1]) || anchor == "" || info.IsDir() {
				continue
			}
			text, err := os.ReadFile(target)
			require.NoError(t, err)
			assert.True(t, anchors(string(text))[anchor], "%s: no heading is called %s", page.File, m[1])
		}
	}
}
