// Package browser drives Chromium in tests, without a screen, by Playwright (https://playwright.dev): it opens a page, presses
// keys, and asks scripts in the page what a person would look for. Playwright is a library of Node.js, so the package has two
// ends: this one, and driver.js.
//
//	b := browser.Start(t, client.Command)
//	b.Open("http://192.168.0.1")
//	b.Await(`document.querySelector("h1").innerText == "Router"`)
//	b.Type("correct horse")
//	b.Press("Enter")
//
// Nothing waits for a fixed time: Await asks until a condition holds, with a limit that only a test that fails reaches.
// Whatever goes wrong ends the test. The methods are called by one goroutine.
package browser

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/npm"
)

// program is the browser, of Debian's package chromium.
const program = "chromium"

// patience is how long a test waits for what is to happen: far longer than it takes on a busy machine.
const patience = 3 * time.Minute

//go:embed driver.js
var driver string

// Browser is a Chromium with one page.
type Browser struct {
	t       testing.TB
	home    string // a folder
	cmd     *exec.Cmd
	in, out *os.File
	answers *bufio.Reader // of out
	said    bytes.Buffer  // what it wrote to standard error; to be read after its end
}

// Needs marks a test that starts a browser, as e2e.Needs does, and returns the variable of the environment that it needs.
func Needs(t testing.TB) string {
	t.Helper()
	e2e.Needs(t, program)
	return npm.Needs(t)
}

// Start starts the browser by command, which is exec.Command or that of a host of package testnet, with further flags. It ends with the
// test.
func Start(t testing.TB, command func(program string, args ...string) *exec.Cmd, more ...string) *Browser {
	t.Helper()
	modules := Needs(t)
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "browser-") // not of the test, which would fail if a file came while it is removed
	if err != nil {
		t.Fatal(err)
	}
	b := &Browser{t: t, home: home}
	b.cmd = command("node", append([]string{"-e", driver, "--", path, fmt.Sprint(patience.Milliseconds())}, more...)...)
	b.cmd.Env = append(os.Environ(), modules, "HOME="+home, "TMPDIR="+home, "DBUS_SESSION_BUS_ADDRESS=/dev/null")
	b.cmd.Stderr = &b.said
	b.cmd.WaitDelay = patience // if a process of its own has that still
	theirIn, in, err := os.Pipe()
	b.check("pipe", err)
	out, theirOut, err := os.Pipe()
	b.check("pipe", err)
	b.in, b.out, b.answers = in, out, bufio.NewReader(out)
	b.cmd.Stdin, b.cmd.Stdout = theirIn, theirOut
	err = b.cmd.Start()
	theirIn.Close()
	theirOut.Close()
	b.check("start node", err)
	t.Cleanup(b.end)
	return b
}

// end ends the browser.
func (b *Browser) end() {
	b.in.Close()
	late := time.AfterFunc(patience, func() { _ = b.cmd.Process.Kill() }) // Chromium ends without it
	_ = b.cmd.Wait()
	late.Stop()
	b.out.Close()
	// Its processes end in their own time; until then they may write into its folder.
	for deadline := time.Now().Add(patience); os.RemoveAll(b.home) != nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if b.t.Failed() {
		b.t.Logf("the browser said:\n%s", b.said.String())
	}
}

func (b *Browser) check(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("browser: %s: %v", what, err)
	}
}

// ask has driver.js carry out a command, and puts what it returns into result, as encoding/json does, if that is not nil.
func (b *Browser) ask(result any, command string, args ...any) error {
	line, err := json.Marshal(append([]any{command}, args...))
	if err != nil {
		return err
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := b.out.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	line, err = b.answers.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the browser's answer: %w", err)
	}
	var answer struct {
		Result json.RawMessage
		Error  string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

func (b *Browser) do(result any, command string, args ...any) {
	b.t.Helper()
	b.check(command, b.ask(result, command, args...))
}

// Requests returns what the page has asked for since the last time: methods and URLs.
func (b *Browser) Requests() (requests []string) {
	b.t.Helper()
	b.do(&requests, "requests")
	return requests
}

// Problems returns errors and warnings of the page and of the browser about it since the last time, as its console shows them.
func (b *Browser) Problems() (problems []string) {
	b.t.Helper()
	b.do(&problems, "problems")
	return problems
}

// Open opens a page.
func (b *Browser) Open(url string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		late := time.Now().After(deadline)
		err := b.Refused(url)
		if err == "" {
			return
		}
		// The browser gives up what it does when the host gets or loses an address, as while the host's links come up.
		if late || err != "net::ERR_NETWORK_CHANGED" {
			b.t.Fatalf("browser: open %s: %s", url, err)
		}
	}
}

// Refused opens a page, and returns why the browser does not show it: "" if it does.
func (b *Browser) Refused(url string) (why string) {
	b.t.Helper()
	b.do(&why, "open", url)
	return why
}

// Eval evaluates a script's expression in the page, waits for it if it is a promise, and puts its value into result, as
// encoding/json does, if that is not nil.
func (b *Browser) Eval(expression string, result any) {
	b.t.Helper()
	b.check(expression, b.ask(result, "eval", expression))
}

// Text is the text of an expression in the page.
func (b *Browser) Text(expression string) (text string) {
	b.t.Helper()
	b.Eval(expression, &text)
	return text
}

// Await waits until a condition holds in the page. A script that fails, as while another page is being opened, is a condition
// that does not hold.
func (b *Browser) Await(condition string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		// Looked at before the page is asked: if this process stood still meanwhile, it is asked again.
		late := time.Now().After(deadline)
		holds := false
		err := b.ask(&holds, "eval", "!!("+condition+")")
		if holds {
			return
		}
		if late {
			text := ""
			_ = b.ask(&text, "eval", "document.body.innerText")
			b.t.Fatalf("browser: not in %v: %s (%v); the page:\n%s", patience, condition, err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Press presses a key, such as Enter, and lets it go. "Shift+Tab" is Tab with the other held.
func (b *Browser) Press(key string) {
	b.t.Helper()
	b.do(nil, "press", key)
}

// Type types text, key by key.
func (b *Browser) Type(text string) {
	b.t.Helper()
	b.do(nil, "type", text)
}

// Click clicks into the middle of an element, as soon as a person could.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	b.do(nil, "click", selector)
}

// View sets the size of the window, in CSS pixels, whether it is a phone's, and the person's color scheme, light or dark.
func (b *Browser) View(width, height int, phone bool, scheme string) {
	b.t.Helper()
	b.do(nil, "view", width, height, phone, scheme)
	b.Await(fmt.Sprintf(`innerWidth == %d && matchMedia("(prefers-color-scheme: %s)").matches`, width, scheme))
}

// Offline cuts the page off from the network, or connects it again.
func (b *Browser) Offline(is bool) {
	b.t.Helper()
	b.do(nil, "offline", is)
}

// Picture is a picture of the page, of a format such as png or webp: what the window shows, or the whole of it.
func (b *Browser) Picture(format string, whole bool) []byte {
	b.t.Helper()
	var picture string
	b.do(&picture, "picture", format, whole)
	data, err := base64.StdEncoding.DecodeString(picture)
	b.check("picture", err)
	return data
}
