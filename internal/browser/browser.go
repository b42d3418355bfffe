// Package browser drives Chromium in tests, without a screen, by the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/) over a pipe: it opens a page, presses keys, and asks scripts in the
// page what a person would look for.
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
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is the browser, of Debian's package chromium.
const Program = "chromium"

// patience is how long a test waits for what is to happen: far longer than it takes on a busy machine.
const patience = 3 * time.Minute

// flags run Chromium as root, without a screen, and without asking anybody on the Internet for anything.
var flags = []string{
	"--headless=new", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run",
	"--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-sync",
	"--disable-breakpad", "--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--mute-audio", "--password-store=basic",
}

// Browser is a Chromium with one page.
type Browser struct {
	t       testing.TB
	home    string // a folder
	cmd     *exec.Cmd
	in, out *os.File
	said    bytes.Buffer // what it wrote to standard error; to be read after its end
	session string       // of the page
	ended   chan struct{}

	mu       sync.Mutex
	sent     int
	answers  map[int]chan message
	requests []string
	problems []string
}

// message is one of the protocol: a command, its answer, or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts the browser by command, which is exec.Command or that of a host of package testnet, with further flags. It ends with the
// test.
func Start(t testing.TB, command func(program string, args ...string) *exec.Cmd, more ...string) *Browser {
	t.Helper()
	home, err := os.MkdirTemp("", "browser-") // not of the test, which would fail if a file came while it is removed
	if err != nil {
		t.Fatal(err)
	}
	b := &Browser{t: t, home: home, ended: make(chan struct{}), answers: map[int]chan message{}}
	b.cmd = command(Program, slices.Concat(flags, more, []string{"--user-data-dir=" + filepath.Join(home, "profile"), "about:blank"})...)
	b.cmd.Env = append(os.Environ(), "HOME="+home, "DBUS_SESSION_BUS_ADDRESS=/dev/null")
	b.cmd.Stderr = &b.said
	b.cmd.WaitDelay = patience // if a process of its own has that still
	if b.cmd.SysProcAttr == nil {
		b.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	b.cmd.SysProcAttr.Setpgid = true
	theirIn, in, err := os.Pipe()
	b.check("pipe", err)
	out, theirOut, err := os.Pipe()
	b.check("pipe", err)
	b.in, b.out = in, out
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut} // descriptors 3 and 4
	err = b.cmd.Start()
	theirIn.Close()
	theirOut.Close()
	b.check("start "+Program, err)
	go b.read()
	t.Cleanup(b.end)

	var target struct{ TargetID string }
	b.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.do(domain+".enable", nil, nil)
	}
	return b
}

// end ends the browser and its processes.
func (b *Browser) end() {
	b.session = ""
	_ = b.ask("Browser.close", nil, nil)
	select {
	case <-b.ended:
	case <-time.After(patience):
	}
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	_ = b.cmd.Wait()
	b.in.Close()
	<-b.ended
	b.out.Close()
	// Those of its processes that were killed end in their own time; until then they may write into its folder.
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

// read takes what the browser sends, until its end.
func (b *Browser) read() {
	defer close(b.ended)
	in := bufio.NewReader(b.out)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			message
			Params json.RawMessage
		}
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if answer := b.answers[m.ID]; answer != nil {
			delete(b.answers, m.ID)
			answer <- m.message
		} else {
			b.note(m.Method, m.Params)
		}
		b.mu.Unlock()
	}
}

// note keeps what Requests and Problems tell. The caller holds mu.
func (b *Browser) note(method string, params json.RawMessage) {
	var p struct {
		Request          struct{ Method, URL string }
		Entry            struct{ Level, Text, URL string }
		Type             string
		Args             []struct{ Description, Value any }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if json.Unmarshal(params, &p) != nil {
		return
	}
	switch method {
	case "Network.requestWillBeSent":
		b.requests = append(b.requests, p.Request.Method+" "+p.Request.URL)
	case "Log.entryAdded":
		if p.Entry.Level == "error" || p.Entry.Level == "warning" {
			b.problems = append(b.problems, strings.TrimSpace(p.Entry.Text+" "+p.Entry.URL))
		}
	case "Runtime.consoleAPICalled":
		if p.Type == "error" || p.Type == "warning" || p.Type == "assert" {
			b.problems = append(b.problems, fmt.Sprint(p.Args))
		}
	case "Runtime.exceptionThrown":
		b.problems = append(b.problems, p.ExceptionDetails.Text+" "+p.ExceptionDetails.Exception.Description)
	}
}

// Requests returns what the page has asked for since the last time: methods and URLs.
func (b *Browser) Requests() []string { return b.take(&b.requests) }

// Problems returns errors and warnings of the page and of the browser about it since the last time, as its console shows them.
func (b *Browser) Problems() []string { return b.take(&b.problems) }

func (b *Browser) take(list *[]string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := *list
	*list = nil
	return taken
}

// ask carries out a command of the protocol.
func (b *Browser) ask(method string, params any, result any) error {
	answer := make(chan message, 1)
	b.mu.Lock()
	b.sent++
	m := message{ID: b.sent, Session: b.session, Method: method, Params: params}
	b.answers[m.ID] = answer
	b.mu.Unlock()
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		return err
	}
	select {
	case m = <-answer:
	case <-b.ended:
		return errors.New("the browser has ended")
	case <-time.After(patience):
		return fmt.Errorf("no answer in %v", patience)
	}
	if m.Error != nil {
		return errors.New(m.Error.Message)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(m.Result, result)
}

func (b *Browser) do(method string, params any, result any) {
	b.t.Helper()
	b.check(method, b.ask(method, params, result))
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
func (b *Browser) Refused(url string) string {
	b.t.Helper()
	var answer struct{ ErrorText string }
	b.do("Page.navigate", map[string]any{"url": url}, &answer)
	return answer.ErrorText
}

// Eval evaluates a script's expression in the page, waits for it if it is a promise, and puts its value into result, as
// encoding/json does.
func (b *Browser) Eval(expression string, result any) {
	b.t.Helper()
	b.check(expression, b.eval(expression, result))
}

func (b *Browser) eval(expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	err := b.ask("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &answer)
	switch {
	case err != nil:
		return err
	case answer.ExceptionDetails != nil:
		return errors.New(answer.ExceptionDetails.Exception.Description)
	case result == nil:
		return nil
	}
	return json.Unmarshal(answer.Result.Value, result)
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
		err := b.eval("!!("+condition+")", &holds)
		if holds {
			return
		}
		if late {
			text := ""
			_ = b.eval("document.body.innerText", &text)
			b.t.Fatalf("browser: not in %v: %s (%v); the page:\n%s", patience, condition, err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// keys are those that Press knows, with what Windows calls them and what they type.
var keys = map[string]struct {
	number int
	text   string
}{"Tab": {9, ""}, "Enter": {13, "\r"}, "Space": {32, " "}, "Escape": {27, ""}}

// Press presses a key and lets it go. "Shift+Tab" is Tab with the other held.
func (b *Browser) Press(key string) {
	b.t.Helper()
	name, shifted := strings.CutPrefix(key, "Shift+")
	k, ok := keys[name]
	if !ok {
		b.t.Fatalf("browser: key %q is not known", key)
	}
	event := map[string]any{"type": "rawKeyDown", "key": name, "code": name, "windowsVirtualKeyCode": k.number}
	if k.text != "" {
		event["type"], event["text"] = "keyDown", k.text
	}
	if name == "Space" {
		event["key"] = " "
	}
	if shifted {
		event["modifiers"] = 8
	}
	b.do("Input.dispatchKeyEvent", event, nil)
	event["type"] = "keyUp"
	delete(event, "text")
	b.do("Input.dispatchKeyEvent", event, nil)
}

// Type types text into what has the focus.
func (b *Browser) Type(text string) {
	b.t.Helper()
	b.do("Input.insertText", map[string]any{"text": text}, nil)
}

// Click clicks into the middle of an element.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	var at [2]float64
	quoted, _ := json.Marshal(selector)
	b.Eval(fmt.Sprintf(`(() => { const e = document.querySelector(%s); e.scrollIntoView({block: "center"});
const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`, quoted), &at)
	for _, kind := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		b.do("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
	}
}

// View sets the size of the window, in CSS pixels, whether it is a phone's, and the person's color scheme, light or dark.
func (b *Browser) View(width, height int, phone bool, scheme string) {
	b.t.Helper()
	b.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}, nil)
	b.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.Await(fmt.Sprintf(`innerWidth == %d && matchMedia("(prefers-color-scheme: %s)").matches`, width, scheme))
}

// Offline cuts the page off from the network, or connects it again.
func (b *Browser) Offline(is bool) {
	b.t.Helper()
	b.do("Network.emulateNetworkConditions", map[string]any{"offline": is, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}, nil)
}

// Picture is a picture of the page, of a format such as png or webp: what the window shows, or the whole of it.
func (b *Browser) Picture(format string, whole bool) []byte {
	b.t.Helper()
	var picture struct{ Data string }
	b.do("Page.captureScreenshot", map[string]any{"format": format, "captureBeyondViewport": whole}, &picture)
	data, err := base64.StdEncoding.DecodeString(picture.Data)
	b.check("picture", err)
	return data
}
