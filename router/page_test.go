package router

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/internal/browser"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
	"github.com/postern-router/postern/web"
)

// picturesVariable names a folder for pictures of the page, for people to look at.
const picturesVariable = "POSTERN_TEST_PICTURES"

// household is what a household's router shows of itself, apart from what is real in the test.
type household struct{ fakeService }

func (*household) Show(live *console.Live) {
	lease := func(last byte, name string, status server.Status, left time.Duration) console.LeaseState {
		return console.LeaseState{Binding: server.Binding{Address: netip.AddrFrom4([4]byte{192, 168, 0, last}), MAC: ether.MAC{2, 0x50, 0xf2, 0, 0, last},
			HostName: name, Server: "lan", Status: status, Left: left}}
	}
	live.Leases = func() ([]console.LeaseState, error) {
		return []console.LeaseState{lease(100, "laptop", server.Bound, 7*time.Minute), lease(101, "a-printer-with-a-name-that-is-long-enough-for-any-of-them", server.Bound, 9*time.Minute),
			lease(102, "<b>phone</b>", server.Bound, 3*time.Second)}, nil
	}
	live.Resource = func() (console.Resource, error) {
		return console.Resource{Uptime: 90 * time.Hour, FreeMemory: 9 << 20, TotalMemory: 27 << 20, CPULoad: 0.07, CPUCount: 1, Architecture: "mips", Board: "malta", Version: "v1.2"}, nil
	}
	counters := live.Counters
	live.Counters = func(table firewall.Table) ([]firewall.Counter, error) {
		all, err := counters(table)
		all[0] = firewall.Counter{Bytes: 12 << 10, Packets: 345}
		return all, err
	}
	live.Log = func() ([]string, error) {
		return []string{"08:00:00 system,info router started", "08:00:01 dhcp,info lan assigned 192.168.0.100 to 02:50:F2:00:00:64",
			"08:00:02 system,warning the clock is not set", "08:00:03 socks,error " + strings.Repeat("x", 200), "08:00:04 a line without topics"}, nil
	}
}

// pageRig is a router with the real processes of the page and of SOCKS, and a host of its LAN with a browser.
type pageRig struct {
	*rig
	*browser.Browser
	lan      *testnet.Host
	pictures string // a folder, or ""
}

// newPageRig returns a router with the page of a Spec. The browser has further flags, which are asked for when the router runs.
func newPageRig(t *testing.T, spec service.Spec, flags func(*rig) []string) *pageRig {
	browser.Needs(t)
	g := &pageRig{rig: newRig(t), pictures: os.Getenv(picturesVariable)}
	supervisor := realSupervisor(t, g.r.log, g.log)
	page := newWebService(supervisor, g.r.log.About("www"), spec)
	page.attach(g.r, way{viaWeb, spec.Name != web.Spec.Name})
	g.r.supervisor = supervisor
	g.r.services = []Service{newSocksService(supervisor, g.r.log.About("socks"), fakeOpenings{}), &household{fakeService{rig: g.rig, name: "household"}}, page}
	var turns atomic.Uint64
	g.network.state = func() ([]netcfg.LinkState, error) {
		n := turns.Add(1)
		return []netcfg.LinkState{
			{Name: "ether1", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500, MAC: ether.MAC{2, 0, 0, 0, 0, 1}, RxBytes: n * (3e6 + n%3*1e6), TxBytes: n * 4e5},
			{Name: "ether2", Type: netcfg.Ether, Present: true, Up: true, MTU: 1500, MAC: ether.MAC{2, 0, 0, 0, 0, 2}},
		}, nil
	}
	// What the router listens on is this test's network.
	g.lan = testnet.New(t, "lan")
	for _, line := range []string{"link add ether2 type veth peer name eth0 netns " + g.lan.Path(), "addr add 192.168.0.1/24 dev ether2", "link set ether2 up"} {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "ether2").Run() }) // the other end goes in its own time
	require.NoError(t, g.lan.IP("addr add 192.168.0.2/24 dev eth0", "link set eth0 addrgenmode none", "link set eth0 up"))
	g.file("default.rsc", lanLines+"/system identity set name=home\n/ip socks set enabled=yes\n/ip address set [find interface=ether2] comment=\"the LAN\"\n"+
		"/ip firewall filter add chain=input action=accept connection-state=established,related comment=\"what goes on\"\n/ip firewall filter add chain=input action=drop in-interface-list=!LAN\n"+
		"/ip firewall nat add chain=srcnat action=masquerade out-interface=ether1\n")
	t.Cleanup(func() { // another test wants their ports
		for _, s := range g.r.services {
			s.Stop()
		}
	})
	g.r.start()
	require.True(t, g.r.snapshot().forwarding, g.log())
	var more []string
	if flags != nil {
		more = flags(g.rig)
	}
	g.Browser = browser.Start(t, g.lan.Command, more...)
	return g
}

// pageScript defines what look and walk ask in the page.
//
// Contrast is computed as the Web Content Accessibility Guidelines have it (2.2, "contrast ratio"), of what a text has behind it, with the
// opacity of all around it.
const pageScript = `window.seen = {
  color(text) { const c = text.match(/[\d.]+/g).map(Number); return [c[0], c[1], c[2], c[3] ?? 1] },
  over(a, b) { return [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])) },
  luminance(c) { const [r, g, b] = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b },
  ratio(a, b) { const [x, y] = [this.luminance(a), this.luminance(b)].sort((x, y) => y - x); return (x + .05) / (y + .05) },
  // behind is the color below an element, or of it too.
  behind(e) {
    if (!e) return matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255]
    const s = getComputedStyle(e), c = this.color(s.backgroundColor)
    c[3] *= this.opacity(e)
    return this.over(c, this.behind(e.parentElement))
  },
  opacity(e) { let o = 1; for (; e; e = e.parentElement) o *= getComputedStyle(e).opacity; return o },
  shown(e) { return e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) },
  texts() {
    const bad = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    let count = 0
    while (walker.nextNode()) {
      const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim()
      if (!text || !this.shown(e) || e.closest('script,style,:disabled')) continue
      const s = getComputedStyle(e), c = this.color(s.color), below = this.behind(e)
      c[3] *= this.opacity(e)
      const size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && s.fontWeight >= 700
      const ratio = this.ratio(this.over(c, below), below)
      count++
      if (ratio < (large ? 3 : 4.5)) bad.push(text.slice(0, 40) + ': ' + ratio.toFixed(2))
    }
    return {count, bad}
  },
  // edges are fields whose border is hard to see, and what has the focus if its outline is.
  edges() {
    const bad = []
    for (const e of document.querySelectorAll('input')) if (this.shown(e)) {
      const r = this.ratio(this.color(getComputedStyle(e).borderTopColor), this.behind(e.parentElement))
      if (r < 3) bad.push(e.name + ': ' + r.toFixed(2))
    }
    return bad
  },
  // wide are elements that reach beyond the screen, but for what can be scrolled.
  wide() {
    const bad = []
    if (document.documentElement.scrollWidth > innerWidth) bad.push('the page: ' + document.documentElement.scrollWidth)
    for (const e of document.body.querySelectorAll('*')) {
      const r = e.getBoundingClientRect()
      if (this.shown(e) && getComputedStyle(e).clipPath == 'none' && !e.closest('thead') && r.width && (r.right > innerWidth + .5 || r.left < -.5)) bad.push(e.tagName + ' ' + e.className + ' ' + r.left + '..' + r.right)
    }
    return bad
  },
  small() {
    const bad = []
    for (const e of document.querySelectorAll('button,input')) if (this.shown(e)) {
      const r = e.getBoundingClientRect()
      if (r.width < 24 || r.height < 24) bad.push((e.innerText || e.name) + ': ' + r.width + 'x' + r.height)
    }
    return bad
  },
  focus() {
    const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect()
    return {
      name: e.getAttribute('aria-label') || e.name || e.id || e.innerText,
      ring: e.matches(':focus-visible') && s.outlineStyle != 'none' && parseFloat(s.outlineWidth) >= 2 &&
        this.ratio(this.color(s.outlineColor), this.behind(e.parentElement)) >= 3,
      inside: r.bottom > 0 && r.top < innerHeight,
    }
  },
}`

// look looks at the page as it is in four forms: on a screen and on a phone, light and dark.
func (g *pageRig) look(name string) {
	g.Helper()
	g.Eval(pageScript, nil)
	for _, form := range []struct {
		name          string
		width, height int
		phone         bool
	}{{"screen", 1280, 800, false}, {"phone", 360, 640, true}} {
		for _, scheme := range []string{"light", "dark"} {
			g.View(form.width, form.height, form.phone, scheme)
			at := fmt.Sprintf("%s, %s, %s", name, form.name, scheme)
			var seen struct {
				Texts struct {
					Count int
					Bad   []string
				}
				Wide, Edges, Small []string
			}
			g.Eval("({texts: seen.texts(), wide: seen.wide(), edges: seen.edges(), small: seen.small()})", &seen)
			assert.Greater(g, seen.Texts.Count, 3, at)
			assert.Empty(g, seen.Texts.Bad, "%s: texts with little contrast", at)
			assert.Empty(g, seen.Edges, "%s: fields whose edges have little contrast", at)
			assert.Empty(g, seen.Wide, "%s: wider than the screen", at)
			assert.Empty(g, seen.Small, "%s: too small for a finger", at)
			if g.pictures != "" {
				require.NoError(g, os.WriteFile(filepath.Join(g.pictures, strings.ReplaceAll(at, ", ", "-")+".png"), g.Picture("png", true), 0o644))
			}
		}
	}
	g.View(1280, 800, false, "light")
}

// tab presses Tab until the focus is where it was, and returns what had it.
func (g *pageRig) tab(n int) (names []string) {
	g.Helper()
	for range n {
		g.Press("Tab")
		var focus struct {
			Name         string
			Ring, Inside bool
		}
		g.Eval("seen.focus()", &focus)
		assert.True(g, focus.Ring, "%s: the focus is hard to see", focus.Name)
		assert.True(g, focus.Inside, "%s: the focus is not on the screen", focus.Name)
		names = append(names, focus.Name)
	}
	return names
}

// updates is a server with a newer version of the software, whose image comes very slowly from its middle on until release is called.
func (g *pageRig) updates() (url string, release func()) {
	g.Helper()
	image := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	file, key := signedImage(g, image)
	g.file("etc/upgrade.pub", key)
	g.slots("a", map[string]string{"tried": "1", "confirmed": "1"}, nil)
	for _, slot := range []string{"vda1", "vda2"} {
		require.NoError(g, os.Truncate(filepath.Join(g.r.root, "dev", slot), 2<<20))
	}
	g.r.upgrades.running = upgrade.Running{Board: "rig", Version: "v1", Date: time.Unix(1_000_000_000, 0).UTC()}
	rest := make(chan struct{})
	release = sync.OnceFunc(func() { close(rest) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/release/rig/sysupgrade.img" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(file)))
		at := len(file) * 2 / 3
		_, _ = w.Write(file[:at])
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		for ; at < len(file); at++ {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-rest:
				_, _ = w.Write(file[at:])
				return
			case <-ticks.C:
				_, _ = w.Write(file[at : at+1])
			case <-r.Context().Done(): // who asks for the header wants no more
				return
			}
		}
	}))
	g.Cleanup(func() {
		release()
		server.Close()
	})
	return server.URL + "/release", release
}

// connectSocks opens a connection by the SOCKS server to a server that says nothing.
func (g *pageRig) connectSocks(to *net.TCPListener) net.Conn {
	g.Helper()
	conn, err := g.lan.Dial(nil, "192.168.0.1:1080")
	require.NoError(g, err)
	g.Cleanup(func() { conn.Close() })
	_, err = conn.Write(connectRequest(to.Addr().(*net.TCPAddr).AddrPort()))
	require.NoError(g, err)
	require.NoError(g, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	var reply [8]byte
	_, err = io.ReadFull(conn, reply[:])
	require.NoError(g, err)
	require.Equal(g, byte(90), reply[1], "granted")
	return conn
}

// A person manages a new router with the page, in a real browser: in light and dark, on a screen and a phone, by keys alone.
func TestPageInBrowser(t *testing.T) {
	g := newPageRig(t, web.Spec, nil)
	url, release := g.updates()
	const (
		focus = "document.activeElement"
		say   = `document.querySelector("#login .say").innerText`
	)
	secret := "correct horse"
	g.Open("http://192.168.0.1")
	g.Await(focus + `.name == "password"`)
	g.look("login")

	// The first login.
	g.Press("Enter")
	g.Await(focus + `.name == "new" && !document.querySelector("button.main").disabled`)
	g.look("first")
	assert.Equal(t, []string{"again", "Set password"}, g.tab(2))
	g.Press("Shift+Tab")
	g.Press("Shift+Tab")
	g.Type(secret)
	g.Press("Tab")
	g.Type("correct house")
	g.Press("Enter")
	g.Await(say + ` == "The two passwords differ."`)
	g.look("differ")
	assert.False(t, g.r.snapshot().config.HasSecret())
	g.Type(secret) // what was typed is selected
	g.Press("Enter")
	g.Await(`document.title == "home" && ` + focus + `.id == "name"`)
	assert.True(t, g.r.snapshot().config.HasSecret())
	assert.Contains(t, g.log(), "user admin logged in from 192.168.0.2 via web")

	// The status.
	to, err := g.lan.Listen("192.168.0.2:7000")
	require.NoError(t, err)
	defer to.Close()
	first, second := g.connectSocks(to), g.connectSocks(to)
	rows := `document.querySelectorAll("#socks tbody tr").length`
	g.Eval(`document.dispatchEvent(new Event("visibilitychange"))`, nil) // as who comes back to the page: it looks at once
	g.Await(rows + " == 2")
	g.Await(`document.querySelector("article svg path").getAttribute("d") != ""`)
	shown := g.Text(`document.querySelector("#status").innerText`)
	for _, text := range []string{"192.168.0.1/24", "Mbit/s", "no link", "<b>phone</b>", "7m", "2 of 200", "confirmed, running, starts next", "malta", "total: ", "9.0 MiB of 27.0 MiB free", "the clock is not set"} {
		assert.Contains(t, shown, text)
	}
	g.look("status")
	g.Eval(`document.querySelector("#name").focus()`, nil)
	end := func(c net.Conn) string {
		return fmt.Sprintf("End the connection of %s to 192.168.0.2:7000", c.LocalAddr())
	}
	assert.Equal(t, []string{"logout", end(first), end(second), "Filter", "NAT", "Mangle", "url", "check", "End the login of admin by web from 192.168.0.2",
		"old", "new", "again", "Change my password", "log"}, g.tab(14))
	for range 12 {
		g.Press("Shift+Tab")
	}
	g.Press("Enter")
	g.Await(rows + " == 1")
	_, err = first.Read(make([]byte, 1))
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection has ended")
	assert.Contains(t, g.log(), `reason="removed"`)
	// Who holds the key ends no other: the focus is on the heading.
	assert.Equal(t, "h-so", g.Text(focus+".id"))
	assert.Equal(t, []string{end(second)}, g.tab(1))
	g.Press("Enter")
	g.Await(rows + " == 0")
	assert.Equal(t, "h-so", g.Text(focus+".id"))

	// The rules of the firewall, with what they have matched.
	assert.Equal(t, []string{"Filter"}, g.tab(1))
	g.Press("Enter")
	g.Await(`document.querySelectorAll("#filter tbody tr").length == 2`)
	g.Eval(`document.querySelector("details[data-menu=nat] summary").focus()`, nil)
	g.Press("Space")
	g.Await(`document.querySelectorAll("#nat tbody tr").length == 1`)
	shown = g.Text(`document.querySelector("#filter").innerText`)
	for _, text := range []string{"input", "connection-state=established,related", "in-interface-list=!LAN", "what goes on", "12.0 KiB", "345"} {
		assert.Contains(t, shown, text)
	}
	g.look("rules")

	// One's own password.
	const changed = `document.querySelector("#changed").innerText`
	change := func(old, new, again string) {
		t.Helper()
		g.Eval(`document.querySelector("#secret").old.focus()`, nil)
		for _, text := range []string{old, new, again} {
			g.Type(text)
			g.Press("Tab")
		}
		g.Press("Shift+Tab")
		g.Press("Enter")
	}
	change(secret, "other", "another")
	g.Await(changed + ` == "The two passwords differ."`)
	g.Eval(`document.querySelector("#secret").reset()`, nil)
	change("wrong", "battery staple", "battery staple")
	g.Await(changed + ` == "failure: old password is wrong"`)
	g.Eval(`document.querySelector("#secret").reset()`, nil)
	change(secret, "battery staple", "battery staple")
	g.Await(changed + ` == "The password is changed."`)
	assert.Contains(t, g.log(), "password of user admin changed by web:admin@192.168.0.2")
	secret = "battery staple"
	g.Eval(`document.querySelector("#secret").old.value = "half typed"; document.querySelector("#name").focus()`, nil)

	// A router that does not answer.
	g.Offline(true)
	g.Await(`!document.querySelector("#lost").hidden`)
	g.look("lost")
	g.Offline(false)
	g.Await(`document.querySelector("#lost").hidden`)
	var offline []string
	for _, p := range g.Problems() {
		if !strings.Contains(p, "net::ERR_INTERNET_DISCONNECTED") {
			offline = append(offline, p)
		}
	}

	g.Click("#logout")
	g.Await(focus + `.name == "password"`)
	g.Await(say + ` == ""`)
	assert.Empty(t, g.Text(`document.querySelector("#secret").old.value`), "what was typed is not for who comes next")
	assert.Contains(t, g.log(), "user admin logged out from 192.168.0.2 via web")
	g.Type("wrong")
	g.Press("Enter")
	g.Await(say + ` == "Wrong user or password."`)
	g.look("wrong")
	g.Type(secret)
	g.Press("Enter")
	g.Await(`!document.querySelector("#status").hidden`)

	// A page that is opened again goes on, until somebody ends the login.
	g.Open("http://192.168.0.1")
	g.Await(`!document.querySelector("#status").hidden`)
	g.must("/user active request-logout [find]")
	g.Await(say + ` == "The session has ended."`)
	g.Await(focus + `.name == "password"`)

	// Who may only look is offered no more than that.
	logIn := func(user, secret string) {
		t.Helper()
		g.Eval(fmt.Sprintf(`document.querySelector("#login").user.value = %q`, user), nil)
		g.Type(secret)
		g.Press("Enter")
		g.Await(`!document.querySelector("#status").hidden`)
	}
	g.must("/user group add name=looking policy=read,web")
	g.must("/user add name=looker group=looking password=\"correct horse\" comment=\"who looks\"")
	g.must("/system package update set url=" + url)
	third := g.connectSocks(to)
	logIn("looker", "correct horse")
	g.Await(rows + " == 1")
	visible := `[...document.querySelectorAll("#status button, #status input, #bar")].filter(e => e.checkVisibility()).map(e => e.name || e.id || e.innerText).join()`
	assert.Equal(t, "logout,url", g.Text(visible))
	var readOnly bool
	g.Eval(`document.querySelector("#update").url.readOnly`, &readOnly)
	assert.True(t, readOnly)
	assert.Contains(t, g.Text(`document.querySelector("#users").innerText`), "who looks")
	g.look("looker")
	for _, path := range []string{"system/package/update/install", "system/package/update/check-for-updates", "password"} {
		assert.Equal(t, "not enough permissions (9)", g.Text(`post("`+path+`").catch(e => e.message)`), path)
	}
	third.Close()
	g.Click("#logout")
	g.Await(focus + `.name == "password"`)

	// Another version of the software, by keys alone.
	const how = `document.querySelector("#how").innerText`
	logIn("admin", secret)
	g.Await(`document.querySelector("#update").url.value == "` + url + `"`)
	g.Eval(`document.querySelector("#update").url.select()`, nil)
	g.Type(url + "x")
	g.Press("Enter")
	g.Await(how + `.startsWith("ERROR: ") && ` + how + `.includes("404 Not Found")`)
	g.Eval(`document.querySelector("#update").url.select()`, nil)
	g.Type(url)
	g.Press("Enter")
	g.Await(how + ` == "New version is available"`)
	assert.Equal(t, url, g.r.snapshot().config.UpdateURL)
	g.look("newer")
	assert.Equal(t, []string{"check", "install"}, g.tab(2))
	g.Press("Enter")
	g.Await(focus + `.innerText == "Not now"`)
	g.look("sure")
	assert.Contains(t, g.Text(`document.querySelector("dialog").innerText`), "Install v2?")
	g.Press("Enter")
	g.Await(focus + `.name == "install"`)
	g.Press("Enter")
	g.Await(focus + `.innerText == "Not now"`)
	g.Press("Escape")
	g.Await(focus + `.name == "install"`)
	assert.NotContains(t, g.log(), "upgrade by")
	g.Press("Enter")
	g.Await(focus + `.innerText == "Not now"`)
	assert.Equal(t, []string{"Install and restart"}, g.tab(1))
	g.Press("Enter")
	g.Await(`document.querySelector("#bar").checkVisibility() && document.querySelector("#bar").value >= 50`)
	g.Await(focus + `.name == "install"`)
	assert.Equal(t, "failure: an upgrade is under way", g.Text(`post("system/package/update/install").catch(e => e.message)`))
	assert.Contains(t, g.log(), "upgrade by web:admin@192.168.0.2")
	g.look("upgrade")
	release()
	assert.Equal(t, console.Reboot, <-g.requests)
	g.Await(how + ` == "system will reboot shortly"`)
	g.Await(`[...document.querySelectorAll("#slots tr")].some(e => /b\s+v2\s.*\suntried/.test(e.innerText))`)
	g.Eval("window.former = true", nil)
	g.must("/user active request-logout [find]") // as a restart does
	g.Await(`!window.former && ` + focus + `.name == "password"`)

	for _, r := range g.Requests() {
		assert.Regexp(t, `^(GET|POST|DELETE) (http://192\.168\.0\.1/|data:image/svg)`, r, "nobody else is asked")
	}
	// The browser's console notes each answer that is no.
	for _, p := range append(offline, g.Problems()...) {
		assert.Regexp(t, `^Failed to load resource: the server responded with a status of (401 .*/(session|login|rest/.*)|428 .*/login|400 .*/rest/(password|partitions|system/package/update/install)|500 .*/rest/(password|system/package/update/(install|check-for-updates)))$`, p)
	}
}
