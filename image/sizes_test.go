package main

import (
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

func TestPackageOf(t *testing.T) {
	for symbol, want := range map[string]string{
		"runtime.mallocgc":                           "runtime",
		"net/netip.(*Addr).String":                   "net/netip",
		"github.com/a/b.F":                           "github.com/a/b",
		"github.com/a/b.F[go.shape.*net/http.T].sub": "github.com/a/b",
		"gopkg.in/yaml%2ev3.Marshal":                 "gopkg.in/yaml.v3",
		"go:func.*":                                  "",
		"type:*net/http.Request":                     "",
		"memmove":                                    "",
	} {
		assert.Equal(t, want, packageOf(symbol), symbol)
	}
}

// TestPackageSizes checks the sums for a small program against what it is made of.
func TestPackageSizes(t *testing.T) {
	dir := t.TempDir()
	b, err := board.ByName("malta")
	require.NoError(t, err)
	for name, text := range map[string]string{
		"go.mod":  "module example.com/sum\n\ngo 1.26\n",
		"main.go": "package main\n\nimport \"os\"\n\nvar big = [1 << 20]byte{1}\n\nfunc main() { os.Stdout.Write(big[:]) }\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	program := filepath.Join(dir, "program")
	require.NoError(t, run(dir, append(b.GoEnv(), "GOFLAGS=-mod=mod"), "go", "build", "-o", program, "."))
	packages, err := packageSizes(program)
	require.NoError(t, err)
	assert.Equal(t, "main", packages[0].name)
	assert.GreaterOrEqual(t, packages[0].raw, int64(1<<20))
	var sum int64
	names := map[string]int64{}
	for _, p := range packages {
		sum += p.raw
		names[p.name] = p.raw
	}
	assert.Greater(t, names["runtime"], int64(100_000))
	assert.Greater(t, names["section .gopclntab"], int64(100_000))
	info, err := os.Stat(program)
	require.NoError(t, err)
	assert.Less(t, sum, info.Size())

	s := sizes{board: b, total: 100, parts: []part{{"kernel", 0, 60}, {"  Go program", 300, 40}}, packages: []part{{"runtime", 30, 4}}}
	s.board.ImageLimit = 90
	assert.Contains(t, s.String(), "runtime")
	assert.Regexp(t, `room +-10\n`, s.String())

	_, err = packageSizes("/bin/true")
	require.Error(t, err, "no symbols")
}

// TestPatchedSlices checks that package slices does with the overlay what it does without.
func TestPatchedSlices(t *testing.T) {
	e2e.Builds(t)
	b, err := board.ByName("malta")
	require.NoError(t, err)
	dir := t.TempDir()
	overlay, err := patchGo(b, dir)
	require.NoError(t, err)
	source := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte(`package main

import (
	"cmp"
	"fmt"
	"slices"
)

func main() {
	for n := range 100 {
		a := make([]int, n, n+n%3*5)
		for i := range a {
			a[i] = (i*7919 + n) % 31
		}
		b, c := slices.Clone(a), slices.Clone(a)
		slices.Sort(b)
		slices.SortFunc(c, func(x, y int) int { return cmp.Compare(y, x) })
		fmt.Println(b, c)
		for _, i := range []int{0, n / 2, n} {
			fmt.Println(slices.Insert(slices.Clone(a), i), slices.Insert(a[:n:n], i, 1, 2, 3), slices.Insert(slices.Clone(a), i, a[:n/3]...))
		}
		func() {
			defer func() { fmt.Println(recover() != nil) }()
			slices.Insert(a, n+1, 1)
		}()
	}
}
`), 0o644))
	plain, err := output("go", "run", source)
	require.NoError(t, err)
	patched, err := output("go", "run", "-overlay="+overlay, source)
	require.NoError(t, err)
	assert.Equal(t, plain, patched)
}

// TestPatchedSSH runs the tests of the SSH server with the overlay: against the copy of the protocol that
// boards have, with clients of the library and of OpenSSH. Its key exchange has an own writing of numbers.
func TestPatchedSSH(t *testing.T) {
	e2e.Builds(t)
	var b board.Board
	for _, b = range board.All() {
		if b.CPU.GOARCH == runtime.GOARCH {
			break
		}
	}
	dir := t.TempDir()
	list, err := patchGo(b, dir)
	require.NoError(t, err)
	var overlay struct{ Replace map[string]string }
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &overlay))
	project, err := projectFolder()
	require.NoError(t, err)
	source := filepath.Join(dir, "mpint_test.go")
	require.NoError(t, os.WriteFile(source, []byte(`package ssh

import (
	"bytes"
	"fmt"
	"testing"
)

// The numbers of RFC 4251, section 5, that are not negative.
func TestMPInt(t *testing.T) {
	for bytesOf, want := range map[string]string{
		"":                                 "\x00\x00\x00\x00",
		"\x00\x00":                         "\x00\x00\x00\x00",
		"\x00\x09\xa3\x78\xf9\xb2\xe3\x32\xa7": "\x00\x00\x00\x08\x09\xa3\x78\xf9\xb2\xe3\x32\xa7",
		"\x00\x00\x80":                     "\x00\x00\x00\x02\x00\x80",
		"\x80\x00":                         "\x00\x00\x00\x03\x00\x80\x00",
	} {
		if got := mpint([]byte(bytesOf)); !bytes.Equal(got, []byte(want)) {
			t.Error(fmt.Sprintf("%x: %x, not %x", bytesOf, got, want))
		}
	}
}
`), 0o644))
	overlay.Replace[filepath.Join(project, protocol, "mpint_test.go")] = source
	text, err = json.Marshal(overlay)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(list, text, 0o644))
	const sshd = "github.com/postern-router/postern/ssh/sshd"
	out, err := exec.Command("go", "test", "-v", "-vet=off", "-overlay="+list, sshd).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "--- PASS: TestOpenSSH ")
	// The folder of the copy is none in which a test could run.
	numbers := filepath.Join(dir, "numbers.test")
	out, err = exec.Command("go", "test", "-c", "-vet=off", "-o", numbers, "-overlay="+list, sshd+"/internal/protocol").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(numbers, "-test.v").CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "--- PASS: TestMPInt ")
}

// TestLeftOut checks that the shipped program does not contain large code that it can do
// without. The figures are malta's.
func TestLeftOut(t *testing.T) {
	e2e.Builds(t)
	b, err := board.ByName("malta")
	require.NoError(t, err)
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	require.NoError(t, compileProgram(b, dir, program, "-buildid="))
	f, err := elf.Open(program)
	require.NoError(t, err)
	defer f.Close()
	symbols, err := f.Symbols()
	require.NoError(t, err)
	for _, c := range []struct{ symbol, why string }{
		{"fmt.(*ss).", "8 KB of flash and 40 KB of memory: strconv reads numbers, too"},
		{"net.(*Resolver).", "21 KB of flash: package resolve looks names up"},
		{"encoding/json.", "50 KB of flash and 270 KB of memory: package service has a small encoding"},
		{"github.com/postern-router/postern/board.routers", "11 KB of flash and 65 KB of memory: the image has the one board's file"},
		{"golang.org/x/crypto/ssh.", "0.27 MB of flash and 1.1 MB of memory: the boards have a copy without RSA, NIST's curves and more"},
		{"crypto/internal/fips140/nistec.", "0.2 MB of memory: SSH has Curve25519 and Ed25519 alone"},
		{"crypto/rsa.", "SSH has Curve25519 and Ed25519 alone"},
		{"crypto/x509.", "SSH has Curve25519 and Ed25519 alone"},
		{"math/big.(", "11 KB of flash and 75 KB of memory: SSH has no numbers but those of Curve25519 and Ed25519"},
		{"net/http.", "630 KB of flash"},
		{"crypto/tls.", "0.4 MB of flash: boards with 4 MB have the program without"},
		{"slices.partition", "10 KB of memory for each type that is sorted: the boards' Go has heap sort"},
		{"slices.rotateLeft", "50 KB of memory: the boards' Go makes a new array for slices.Insert"},
		{"text/template.", "it calls methods by name, so that the linker keeps all of them"},
		{"unicode.map.init.", "70 KB of memory: the boards' package regexp knows no classes of Unicode"},
	} {
		t.Run(c.symbol, func(t *testing.T) {
			for _, s := range symbols {
				require.False(t, strings.HasPrefix(s.Name, c.symbol), "%s is linked: %s", s.Name, c.why)
			}
		})
	}
}
