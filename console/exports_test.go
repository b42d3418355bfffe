package console

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
)

// portsLive is a system with these ports.
func portsLive(ports []string) Live {
	live := fullLive()
	live.Links = func() (links []netcfg.LinkState, err error) {
		for _, name := range ports {
			links = append(links, netcfg.LinkState{Name: name, Type: netcfg.Ether, Present: true})
		}
		return links, nil
	}
	return live
}

// The arguments skip-errors and dry-run of /import take a real export as far as it goes. testdata/refused.txt has what is
// said of each of testdata/exports, which are of our own making, in the manner of those that people publish.
func TestExports(t *testing.T) {
	files, err := filepath.Glob("testdata/exports/*.rsc")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 40)
	var got strings.Builder
	var taken, refused int
	of, left := map[string]int{}, map[string]int{} // lines of each menu, and those that are not taken
	ports := strings.Fields("ether1 ether2 ether3 ether4 ether5 sfp1")
	check := func(c Config) error { return Validate(c, ports) }
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		text, live := string(data), portsLive(ports)
		dry, err := new(Session).ImportBy(ImportArguments{DryRun: true}, Default(), live, text, check)
		require.NoError(t, err, file)
		assert.Equal(t, Result{Config: Default(), Output: dry.Output}, dry, file)
		said, isDry := strings.CutSuffix(dry.Output, "nothing was changed\n")
		assert.True(t, isDry, file)
		fmt.Fprintf(&got, "# %s\n%s", filepath.Base(file), said)
		// Lines of menus that Postern has not, and of scripts, are told to be that, and do not count.
		settings := settingLines(text)
		all, bad := len(settings), 0
		menu := menusOfLines(text, live)
		for _, number := range settings {
			of[menu[number]]++
		}
		for line := range strings.Lines(said) {
			why, isLeft := strings.CutPrefix(line, "left out: ")
			if !isLeft {
				continue
			}
			var number int
			if n, _ := fmt.Sscanf(why, "%d lines below these", &number); n == 1 {
				all -= number
				continue
			}
			_, err := fmt.Sscanf(why[strings.LastIndex(why, "(line ")+1:], "line %d", &number)
			require.NoError(t, err, why)
			if !strings.HasPrefix(why, "Postern has no /") && !strings.HasPrefix(why, noScripts) {
				bad++
				left[menu[number]]++
			} else if slices.Contains(settings, number) {
				all--
				of[menu[number]]--
			}
		}
		taken, refused = taken+all-bad, refused+bad

		result, err := new(Session).ImportBy(ImportArguments{SkipErrors: true, Replace: true}, Default(), live, text, check)
		require.NoError(t, err, file)
		assert.Equal(t, said, result.Output, file)
		assert.Equal(t, Export(result.Config) != "", result.Changed, file)
		again, err := new(Session).ImportBy(ImportArguments{}, Default(), live, Export(result.Config), check)
		require.NoError(t, err, file)
		assert.Equal(t, Export(result.Config), Export(again.Config), file)
		_, err = new(Session).Import(Default(), live, text, check)
		assert.Equal(t, strings.Contains(said, "left out: "), err != nil, file)
	}
	share := 100 * float64(taken) / float64(taken+refused)
	t.Logf("%d of %d lines are taken: %.1f %%", taken, taken+refused, share)
	assert.GreaterOrEqual(t, share, 95.0)
	checkShares(t, fmt.Sprintf("Of %d exports", len(files)), fmt.Sprintf("%d lines are in menus that Postern has, and %d of them are taken (%.0f %%)", taken+refused, taken, share), of, left)
	if os.Getenv("POSTERN_GOLDEN") == "write" {
		require.NoError(t, os.WriteFile("testdata/refused.txt", []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile("testdata/refused.txt")
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String(), "POSTERN_GOLDEN=write go test ./console -run TestExports writes the file anew")
}

// checkShares compares what docs/FIREWALL.md says of the exports, in two sentences and a table of the menus with 10 lines and more.
func checkShares(t *testing.T, files, lines string, of, left map[string]int) {
	t.Helper()
	page, err := os.ReadFile("../docs/FIREWALL.md")
	require.NoError(t, err)
	text := strings.Join(strings.Fields(string(page)), " ")
	assert.True(t, strings.Contains(text, files+" that were written"), "docs/FIREWALL.md does not say: "+files)
	assert.True(t, strings.Contains(text, lines), "docs/FIREWALL.md does not say: "+lines)
	var said, want []string
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`/.*`"+`)(?:, each)? \| (\d+) \| (\d+) \|$`).FindAllStringSubmatch(string(page), -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			said = append(said, strings.Trim(name, "`/")+" "+row[2]+" of "+row[3])
		}
	}
	for menu, n := range of {
		if menu != "" && n >= 10 {
			want = append(want, fmt.Sprintf("%s %d of %d", menu, n-left[menu], n))
		}
	}
	slices.Sort(want)
	slices.Sort(said)
	assert.Equal(t, want, said)
}

// menusOfLines returns the menu that each line of an export is for, by its number: "" if Postern has none.
func menusOfLines(text string, live Live) map[int]string {
	lines := importLines(text)
	_, _, _ = new(Session).runImport(Default(), live, lines, true) // says in each what menu it came to
	of := map[int]string{}
	for _, line := range lines {
		path, _, _ := strings.Cut(line.path(), "=")
		words := strings.FieldsFunc(path, func(r rune) bool { return r == ' ' || r == '/' })
		for n := range words {
			name := strings.Join(words[:n+1], " ")
			if slices.ContainsFunc(menus(), func(m *menu) bool {
				return m.path == name && slices.ContainsFunc(m.commands, func(c command) bool { return c.name == "add" || c.name == "set" })
			}) {
				of[line.first] = name
			}
		}
	}
	return of
}

// settingLines are the numbers of the lines of an export that say more than which menu the next are for.
func settingLines(text string) (numbers []int) {
	for _, line := range importLines(text) {
		statements, err := parse(line.text, line.first)
		path := err == nil && len(statements) == 1 && line.absolute()
		for _, w := range slices.Concat(statements...) {
			path = path && w.plain() && !slices.Contains([]string{"add", "set"}, w.text)
		}
		if line.start() != "" && !strings.HasPrefix(line.start(), "#") && !path {
			numbers = append(numbers, line.first)
		}
	}
	return numbers
}

// Whatever form an export has, what it shows is the same configuration again, and in the form of before.
func TestExportForms(t *testing.T) {
	files, err := filepath.Glob("testdata/exports/*.rsc")
	require.NoError(t, err)
	ports := strings.Fields("ether1 ether2 ether3 ether4 ether5 sfp1")
	live := portsLive(ports)
	live.Resource = func() (Resource, error) { return Resource{Version: "v1.2", Board: "malta"}, nil }
	header := "# 2030-01-31 22:59:58 by RouterOS 7.16\n# software = Postern v1.2\n#\n# model = malta\n"
	run := func(cfg Config, line string) string {
		result, err := new(Session).Execute(cfg, live, line)
		require.NoError(t, err)
		return result.Output
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		cfg, err := new(Session).ImportBy(ImportArguments{SkipErrors: true}, Default(), live, string(text), func(c Config) error { return Validate(c, ports) })
		require.NoError(t, err, file)
		plain := run(cfg.Config, "/export show-sensitive")
		assert.True(t, strings.HasSuffix(plain, " by RouterOS 7.16\n# software = Postern v1.2\n#\n# model = malta\n"+Export(cfg.Config)), plain)
		assert.Equal(t, plain, run(cfg.Config, "/export compact show-sensitive"), file)
		for _, words := range []string{"", "terse", "verbose", "verbose terse"} {
			shown := run(cfg.Config, "/export show-sensitive "+words)
			again, err := new(Session).Import(Default(), live, shown, nil)
			require.NoError(t, err, "%s %s", file, words)
			if cfg.Changed {
				again, err = new(Session).Replace(Default(), live, shown, nil)
				require.NoError(t, err, "%s %s", file, words)
			}
			assert.Equal(t, shown, run(again.Config, "/export show-sensitive "+words), "%s %s", file, words)
			assert.Equal(t, plain, run(again.Config, "/export show-sensitive"), "%s %s", file, words)
		}
	}
	live.KeepFile = func(string, string) error { return nil }
	live.MayKeepFile = func(name string, bytes int) error {
		if name != "backup.rsc" || bytes != len(header) {
			return fmt.Errorf("no room for %s of %d bytes", name, bytes)
		}
		return nil
	}
	_, err = new(Session).Execute(Default(), live, "/ip firewall export file=other")
	require.ErrorContains(t, err, "no room for other.rsc")
	for _, name := range []string{"backup", "/backup.rsc"} {
		result, err := new(Session).Execute(Default(), live, "/ip firewall export file="+name)
		require.NoError(t, err)
		assert.Empty(t, result.Output)
		assert.Equal(t, []KeptFile{{"backup.rsc", header}}, result.Action.Keep)
	}
	live.Denied = MayWrite
	_, err = new(Session).Execute(Default(), live, "/export file=backup")
	require.ErrorIs(t, err, ErrNotPermitted)
	live.Resource = func() (Resource, error) { return Resource{}, errors.New("broken") }
	assert.Empty(t, run(Default(), "/export"))
}

func TestSkipErrors(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	check := func(c Config) error { return Validate(c, ports) }
	for _, test := range []struct{ name, text, output, export, err string }{
		{"a line, a menu and a script", "/ip address\nadd address=10.0.0.1/24 interface=ether1\nadd address=10.0.1.1/24 interface=ether9\n" +
			"/interface wireless\nset 0 ssid=x\n# text\n\nset 1 ssid=y\n" +
			":if (1 = 1) do={\n/system identity set name=wrong\n:if (true) do={ :put \"}\" }\n/system reboot\n}\n/system identity\nset name=right\n",
			"left out: /ip address 1: input does not match any value of interface: ether9; expected ether1 | ether2 (line 3)\n" +
				"left out: Postern has no /interface wireless (line 4 column 12)\nleft out: 7 lines below these\n",
			"/system identity\nset name=right\n/ip address\nadd address=10.0.0.1/24 interface=ether1\n", ""},
		{"a script", "/system identity\nset name=a\n:if (true) do={\nset name=b\n}\nset name=c\n", "left out: Postern runs no scripts (line 3 column 1)\nleft out: 2 lines below these\n",
			"/system identity\nset name=c\n", ""},
		{"a rule", "/ip firewall filter\nadd chain=input action=drop protocol=tcp psd=21,3s,3,1\nadd chain=input action=accept\n",
			"left out: Postern has no psd (line 2 column 42)\nwarning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n",
			"/ip firewall filter\nadd chain=input\n", ""},
		{"a key", "/ip service\nset ssh disabled=no\n/user ssh-keys\nadd user=admin key=\"ssh-new AAAA me\"\n",
			"left out: invalid value for argument key; expected a line such as \"ssh-ed25519 AAAA... name\" or \"ssh-rsa AAAA... name\", not \"ssh-new AAAA me\": the type of a key must be ssh-ed25519 or ssh-rsa (line 4)\n" +
				"warning: lines of /ip service, of users or of keys are left out: whom they were to keep out may log in\n", "/ip service\nset ssh disabled=no\n", ""},
		{"the kernel's bridge", "/interface bridge port\nadd bridge=nobridge interface=ether2\n/system identity set name=a\n",
			"left out: /interface bridge port 0: input does not match any value of bridge: nobridge; expected one that there is, and there is none (line 2)\n",
			"/system identity\nset name=a\n", ""},
		{"jumps one after the other", "/ip firewall filter\nadd chain=input action=jump jump-target=a\nadd chain=a action=jump jump-target=b\nadd chain=b action=jump jump-target=c\n",
			"left out: /ip firewall: filter rule 0: jump-target=a: no rule has chain=a; expected a chain that has rules (line 2)\n" +
				"left out: /ip firewall: filter rule 1: jump-target=b: no rule has chain=b; expected a chain that has rules (line 3)\n" +
				"left out: /ip firewall: filter rule 2: jump-target=c: no rule has chain=c; expected a chain that has rules (line 4)\n" +
				"warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n", "", ""},
		{"too many", "/ip address\n" + strings.Repeat("add address=10.0.0.1/24 interface=ether1 comment=x disabled=no\n", 20), "", "",
			"more than 16 lines make the configuration invalid, and no more are looked for: address: address=10.0.0.1/24: expected each address once, ether1 has 10.0.0.1/24 already (line 19)"},
		{"an unknown command of a menu that Postern does without", "/ip firewall filter\nadd action=drop chain=input\n/ipv6 firewall filter\nremove [find]\nadd chain=forward action=accept\n" +
			"/ip firewall filter\nadd action=drop chain=forward\n",
			"Postern has no /ipv6 firewall filter, and needs none of its lines (line 3)\nleft out: Postern has no /ipv6 firewall filter (line 4 column 1)\nleft out: 1 lines below these\n",
			"/ip firewall filter\nadd action=drop chain=input\nadd action=drop chain=forward\n", ""},
		{"a command elsewhere between lines of a menu", "/ip firewall filter\n/ipv6 firewall filter add chain=input\nadd action=drop chain=input\n/ipv6 firewall filter\n" +
			"/system identity set name=a\nadd chain=forward action=accept\n/interface wireless\n/system identity set name=b\nadd chain=output action=accept\n",
			"Postern has no /ipv6 firewall filter, and needs none of its lines (line 2)\nleft out: Postern has no /interface wireless (line 7 column 12)\nleft out: 1 lines below these\n",
			"/system identity\nset name=b\n/ip firewall filter\nadd action=drop chain=input\n", ""},
		{"a path and a bad command in a line", "/ip firewall filter\n/ip firewall nat; add chain=src\nadd chain=srcnat action=masquerade\n/ip firewall filter\n" +
			"add comment=\"a;b\" psd=x\nadd action=drop chain=input\n/ip firewall nat; add comment=$x\nadd chain=input action=accept\n",
			"left out: invalid value for argument chain; expected srcnat | dstnat | name of a chain of your own, not \"src\": it could be srcnat (line 2)\nleft out: Postern has no psd (line 5 column 19)\n" +
				"left out: Postern runs no scripts (line 7 column 31); expected a value with such a character to stand in quotes (\"...\")\nleft out: 2 lines below these\n" +
				"warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n",
			"/ip firewall filter\nadd action=drop chain=input\n", ""},
		{"scripts that may protect", "/system identity\n:if (true) do={ /ip firewall filter add action=drop chain=input }\nset name=a\n",
			"left out: Postern runs no scripts (line 2 column 1)\nwarning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n",
			"/system identity\nset name=a\n", ""},
		{"lines of a script that may protect", "/system identity\n:if (true) do={\n# }\n/ip/socks\naccess add action=deny\n}\nset name=\"ip firewall\" foo=a\nset name=a\n",
			"left out: Postern runs no scripts (line 2 column 1)\nleft out: expected end of command (line 7 column 24)\nleft out: 3 lines below these\n" +
				"warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n",
			"/system identity\nset name=a\n", ""},
		{"a brace in a comment", "/system identity\n:if (true) do={\n:put a; # }\nset name=b\n}\n:put a # {\nset name=c\n",
			"left out: Postern runs no scripts (line 2 column 1)\nleft out: Postern runs no scripts (line 6 column 1)\nleft out: 4 lines below these\n", "", ""},
		{"a brace in a comment of a line", "/system identity\n:if (true) do={\n:put a; # }\nset name=b\n}\n:put a; # {\nset name=c\n",
			"left out: Postern runs no scripts (line 2 column 1)\nleft out: Postern runs no scripts (line 6 column 1)\nleft out: 3 lines below these\n",
			"/system identity\nset name=c\n", ""},
		{"what a line cannot do", "/system reboot\n/system identity set name=a\n", "left out: this command does not belong in an import (line 1)\n", "/system identity\nset name=a\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).ImportBy(ImportArguments{SkipErrors: true}, Default(), portsLive(ports), test.text, check)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.output, result.Output)
			assert.Equal(t, test.export, Export(result.Config))
		})
	}
	many := "/ip firewall filter\n" + strings.Repeat("add chain=input in-interface=wlan1\n", 20)
	result, err := new(Session).ImportBy(ImportArguments{DryRun: true}, Default(), portsLive(ports), many, check)
	require.NoError(t, err)
	assert.Equal(t, maxRefusals, strings.Count(result.Output, "left out: /ip firewall filter "), result.Output)
	assert.Contains(t, result.Output, "left out: more than 16 lines make the configuration invalid, and no more are looked for: /ip firewall filter ")
	for line, want := range map[string]int{`:if (a) do={`: 1, `}`: -1, `} else={`: 0, `:put "{"`: 0, `:put "\"{" {`: 1, `\{`: 0, `a \`: 0, `# {`: 0, `:put a; # {`: 0, `do={ # }`: 1,
		`:put a ;;; {`: 0, `:put a#{`: 1, "# {\n do={": 1} {
		assert.Equal(t, want, openBraces(line), line)
	}
}

// Whatever text is imported with skip-errors, what is in force then is a configuration that the router
// accepts, and that can be exported and read back.
func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/exports/*.rsc")
	require.NoError(f, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	ports := []string{"ether1", "ether2", "ether3"}
	check := func(c Config) error { return Validate(c, ports) }
	f.Fuzz(func(t *testing.T, text string) {
		live := portsLive(ports)
		result, err := new(Session).ImportBy(ImportArguments{SkipErrors: true}, Default(), live, text, check)
		if err != nil { // too much is refused
			require.Equal(t, Result{Config: Default()}, result)
			return
		}
		require.NoError(t, Validate(result.Config, ports))
		again, err := Load("export", strings.NewReader(Export(result.Config)))
		require.NoError(t, err)
		require.Equal(t, Export(result.Config), Export(again))
		undone, err := DeltaOf(result.Config, Default()).Apply(result.Config)
		require.NoError(t, err)
		require.True(t, Default().Equal(undone))
	})
}
