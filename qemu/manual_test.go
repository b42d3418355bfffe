package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// manualPages are the pages of MikroTik's manual about SOCKS, as ../shared/seeds has
// them. What testdata holds of them is their screens, and the paths that they name,
// without the words around.
var manualPages = []struct {
	screens, seed string
	count         int // of the screens
	// blanks: the page has lost what aligns its screens. Of each line only the words
	// are there to be compared.
	blanks bool
}{
	// https://help.mikrotik.com/docs/spaces/ROS/pages/73826308/SOCKS
	{screens: "current.txt", seed: "000_df394dc812fcdf5e.txt", count: 8},
	// The manual of 2008, as a reader's copy has it.
	{screens: "2008.txt", seed: "001_5074fbbf444fa54f.txt", count: 10, blanks: true},
}

// TestManual types every command of both pages on the serial line of a booted router
// that is named as theirs, and compares the screen with the page, word for word and
// number for number. Nothing in a screen is left out or matched by a pattern: before
// the connections are printed, the client opens those that the page shows, from the
// same ports to the same addresses, and as many bytes pass.
func TestManual(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testManual(t, b)
		})
	}
}

func testManual(t *testing.T, b board.Board) {
	r := layNetwork(t, b.Name)
	// What the pages say that there is already: the addresses, the masqueraded network,
	// and that public FTP servers are denied. The servers are the gateway's.
	r.boot(t, machineOptions{image: filepath.Join(imageDir, b.Name), capture: true, configuration: `/system identity set name=MikroTik
/ip address add address=192.168.0.1/24 interface=ether2
/ip address add address=10.1.0.104/24 interface=ether1
/ip route add gateway=10.1.0.1
/ip firewall nat add chain=srcnat action=masquerade src-address=192.168.0.0/24
/ip firewall filter add chain=forward action=drop src-address=192.168.0.0/24 dst-port=21 protocol=tcp
`})
	r.expect(t, "\n[admin@MikroTik] > ")
	for _, page := range manualPages {
		t.Run(strings.TrimSuffix(page.screens, ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", "manual", page.screens))
			require.NoError(t, err)
			screens := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n\n")
			assert.Len(t, screens, page.count)
			for _, screen := range screens {
				r.screen(t, screen, page.blanks)
			}
			r.typed(t, "/ip socks access remove [find]; /ip socks reset; /", "\n[admin@MikroTik] > ")
		})
	}
}

// TestManualScreens checks that testdata has the screens of the pages, all of them,
// where the pages are there to be read.
func TestManualScreens(t *testing.T) {
	for _, page := range manualPages {
		text, err := os.ReadFile(filepath.Join("..", "..", "shared", "seeds", page.seed))
		if os.IsNotExist(err) {
			t.Logf("%v: what is in testdata is believed", err)
			continue
		}
		require.NoError(t, err)
		want, err := os.ReadFile(filepath.Join("testdata", "manual", page.screens))
		require.NoError(t, err)
		assert.Equal(t, string(want), strings.Join(manualScreens(string(text)), "\n\n")+"\n", page.seed)
	}
}

// manualScreens finds the screens of a page, each from a prompt with a command to one
// without, and the paths of menus that stand in a line of their own.
func manualScreens(page string) []string {
	prompt := regexp.MustCompile(`^\[admin@MikroTik\] [a-z ]*>( .*)?$`)
	path := regexp.MustCompile(`^(?:Submenu level: )?(/[a-z ]+)$`)
	var screens, screen []string
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\r\n")
		line = strings.TrimSuffix(line, "```") // stands behind a last line
		at := prompt.FindStringSubmatch(line)
		switch named := path.FindStringSubmatch(line); {
		case at != nil && at[1] == "" && screen != nil:
			screens = append(screens, strings.Join(append(screen, line), "\n"))
			screen = nil
		case at != nil || screen != nil:
			screen = append(screen, line)
		case named != nil:
			screens = append(screens, named[1])
		}
	}
	return screens
}

// screen types the commands of a screen and compares what is there then.
func (r *router) screen(t *testing.T, want string, blanks bool) {
	t.Helper()
	if path, ok := strings.CutPrefix(want, "/"); ok {
		r.typed(t, want, "\n[admin@MikroTik] "+path+"> ")
		return
	}
	lines := strings.Split(want, "\n")
	prompt := lines[len(lines)-1] + " "
	path := strings.TrimSuffix(strings.TrimPrefix(prompt, "[admin@MikroTik] "), "> ")
	// The service is not to be open to the outside, or its screen warns of that; but
	// the rule for it is on none of the pages.
	r.typed(t, "/ip firewall filter remove [find chain=input]", "> ")
	if path == "ip socks" {
		r.typed(t, "/ip firewall filter add chain=input action=drop in-interface=ether1", "> ")
	}
	shown := r.openConnections(t, lines)
	r.typed(t, "/"+path, "\n"+prompt)
	var got strings.Builder
	got.WriteString(prompt)
	for i, line := range lines {
		keys, ok := strings.CutPrefix(line, prompt)
		if more, continued := strings.CutPrefix(line, `\... `); continued {
			keys, ok = more, true
		}
		if !ok {
			continue
		}
		next := "\n" + prompt
		if strings.HasPrefix(lines[i+1], `\... `) {
			next = "\n\\... "
		}
		if shown > 0 {
			// The answers are here before the router has counted the last of them.
			r.awaitScreen(t, keys, lines[i+1:len(lines)-1], prompt)
		}
		got.WriteString(r.typed(t, keys, next))
	}
	if screen := got.String(); blanks {
		assert.Equal(t, words(want), words(screen))
	} else {
		assert.Equal(t, want+" ", screen)
	}
	t.Logf("%s:\n%s", r.b.Name, got.String())
}

// typed types a line and returns what the screen shows until next.
func (r *router) typed(t *testing.T, line, next string) string {
	t.Helper()
	r.m.screen.forget()
	require.NoError(t, r.m.send(line+"\r"))
	out := r.expect(t, strings.ReplaceAll(next, "\n", "\r\n"))
	return strings.ReplaceAll(out, "\r\n", "\n")
}

// awaitScreen types a line again and again until the words of its answer are those.
func (r *router) awaitScreen(t *testing.T, keys string, want []string, prompt string) {
	t.Helper()
	last := words(strings.Join(want, "\n"))
	_ = retry(func() error { // if not, the comparison that follows tells
		if out := r.typed(t, keys, "\n"+prompt); !strings.Contains(words(out), last) {
			return fmt.Errorf("not yet: %s", out)
		}
		return nil
	})
}

// words are the lines of a text with one blank for many.
func words(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// openConnections opens those that a screen of /ip socks connections shows, and returns
// how many. They are closed with the page.
func (r *router) openConnections(t *testing.T, screen []string) int {
	t.Helper()
	row := regexp.MustCompile(`^ *\d+ (\S+:\d+) +(\S+:\d+) +(\d+) +(\d+)$`)
	n := 0
	for _, line := range screen {
		f := row.FindStringSubmatch(line)
		if f == nil {
			continue
		}
		if n++; n == 1 {
			r.typed(t, "/ip socks set enabled=yes", "> ")
			r.closeConnections(t)
		}
		tx, err := strconv.Atoi(f[3])
		require.NoError(t, err)
		rx, err := strconv.Atoi(f[4])
		require.NoError(t, err)
		r.transfer(t, netip.MustParseAddrPort(f[1]), netip.MustParseAddrPort(f[2]), tx, rx)
	}
	return n
}

// transfer connects the client through the router to a server, from a port of its own
// choice, and passes so many bytes in each direction. The connection stays open.
func (r *router) transfer(t *testing.T, from, to netip.AddrPort, tx, rx int) {
	t.Helper()
	var listener net.Listener
	if r.listening[to] == nil {
		_ = r.n.run(gateway, "ip", "address", "add", to.Addr().String()+"/32", "dev", "lo") // it may be there
		require.NoError(t, r.n.on(gateway, func() (err error) {
			listener, err = net.Listen("tcp4", to.String())
			return err
		}))
		t.Cleanup(func() { listener.Close() })
		if r.listening == nil {
			r.listening = map[netip.AddrPort]net.Listener{}
		}
		r.listening[to] = listener
		t.Cleanup(func() { delete(r.listening, to) })
	}
	listener = r.listening[to]
	var conn net.Conn
	require.NoError(t, r.n.on(client, func() (err error) {
		d := net.Dialer{
			LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: patience,
			Control: func(_, _ string, c syscall.RawConn) error { // the other page had this port too
				return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			},
		}
		conn, err = d.Dial("tcp4", socksAddress)
		return err
	}))
	// A reset when it is closed: the port is free at once.
	require.NoError(t, conn.(*net.TCPConn).SetLinger(0))
	r.open = append(r.open, conn)
	t.Cleanup(func() { conn.Close() })
	reply, err := requestSOCKS(conn, commandConnect, to)
	require.NoError(t, err)
	require.EqualValues(t, granted, reply.code, "%s to %s", from, to)
	require.NoError(t, listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	server, err := listener.Accept()
	require.NoError(t, err)
	r.open = append(r.open, server)
	t.Cleanup(func() { server.Close() })
	pass := func(from, to net.Conn, n int) {
		t.Helper()
		sent := make(chan error, 1)
		go func() {
			_, err := from.Write(make([]byte, n))
			sent <- err
		}()
		require.NoError(t, to.SetReadDeadline(time.Now().Add(patience)))
		_, err := io.CopyN(io.Discard, to, int64(n))
		require.NoError(t, err)
		require.NoError(t, <-sent)
	}
	pass(conn, server, tx)
	pass(server, conn, rx)
}

// closeConnections ends those that transfer has left open.
func (r *router) closeConnections(t *testing.T) {
	t.Helper()
	for _, conn := range r.open {
		conn.Close()
	}
	r.open = nil
	require.NoError(t, retry(func() error {
		if out := r.typed(t, "/ip socks connections print count-only", "> "); !strings.Contains(out, "\n0\n") {
			return fmt.Errorf("there are still connections: %s", out)
		}
		return nil
	}))
}
