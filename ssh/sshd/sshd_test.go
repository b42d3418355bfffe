package sshd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	protocol "golang.org/x/crypto/ssh"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/files"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// patience is how long a test waits for what must happen.
const patience = time.Minute

const secret = "correct horse"

// rig is the process, and a PID 1 that lets admin in by a password or a key.
type rig struct {
	*testing.T
	port    uint16
	process *Process
	ended   <-chan error
	key     ed25519.PrivateKey
	user    ed25519.PrivateKey

	mu     sync.Mutex
	rsa    string // ssh.PublicKey.Key of another key of the user's, "" for none
	config console.Config
	live   console.Live
	logins []login.Login
	wrong  []login.Login
	out    int // how many have logged out
	// checking, unless nil, is called for each password.
	checking func()
}

func newRig(t *testing.T, change func(*login.Config)) *rig {
	g := &rig{T: t, config: console.Default(), live: console.Live{Requests: []console.Request{console.Reboot}}}
	var err error
	_, g.key, err = ed25519.GenerateKey(nil)
	require.NoError(t, err)
	_, g.user, err = ed25519.GenerateKey(nil)
	require.NoError(t, err)
	g.port, err = testnet.FreePort()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var link *service.Link
	link, g.ended, err = service.Simulate(ctx, Spec, func(l *service.Link) service.Handler {
		g.process = NewProcess(l, Authority{
			Authority: login.Authority{
				CheckPassword: func(l login.Login, text string) string {
					g.mu.Lock()
					checking := g.checking
					g.mu.Unlock()
					if checking != nil {
						checking()
					}
					if text != secret || l.User != console.Admin {
						g.note(false, l)
						return ""
					}
					return "proof"
				},
				LoggedIn: func(l login.Login) { g.note(true, l) },
				LoggedOut: func(login.Login) {
					g.mu.Lock()
					defer g.mu.Unlock()
					g.out++
				},
				Serve: g.serve,
			},
			ServeFiles: func(conn net.Conn, _ login.Login) {
				_ = files.Serve(conn, files.Handler{
					List: func() ([]files.File, error) { return []files.File{{Name: "export.rsc", Size: 1}}, nil },
					Read: func(string) (string, error) { return "x", nil },
				})
			},
			HostKey: [ssh.KeySize]byte(g.key.Public().(ed25519.PublicKey)),
			Sign:    func(data []byte) []byte { return ed25519.Sign(g.key, data) },
			Known: func(l login.Login, key string) string {
				g.mu.Lock()
				defer g.mu.Unlock()
				if l.User != console.Admin || key != string(g.user.Public().(ed25519.PublicKey)) && (key != g.rsa || key == "") {
					return ""
				}
				return "proof"
			},
		})
		return g.process.Handle
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		cancel()
		link.Close()
		select {
		case <-g.ended:
		case <-time.After(patience):
			t.Error("the process does not end")
		}
		g.process.Ended()
	})
	c := login.Config{Port: g.port, MaxSessions: 4}
	if change != nil {
		change(&c)
	}
	l, err := service.Listen(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Port))
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	require.NoError(t, g.process.Configure(t.Context(), c, l))
	return g
}

func (g *rig) note(ok bool, l login.Login) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ok {
		g.logins = append(g.logins, l)
	} else {
		g.wrong = append(g.wrong, l)
	}
}

// serve holds a session of the console.
func (g *rig) serve(conn net.Conn, l login.Login) {
	_ = session.Serve(conn, session.Origin{Via: "ssh", Address: l.From}, session.Handler{
		User: l.User,
		Execute: func(s *session.Session, line string) (console.Result, error) {
			switch line {
			case "/long":
				return console.Result{Output: strings.Repeat("0123456789\n", 10000)}, nil
			case "/follow":
				return console.Result{Output: "it begins\n", Repeat: time.Hour, Follow: true}, nil
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			result, err := s.Execute(g.config, g.live, line)
			if err == nil {
				g.config = result.Config
			}
			return result, err
		},
		Prompt: func(s *session.Session) string {
			g.mu.Lock()
			defer g.mu.Unlock()
			return s.Prompt(g.config.Identity)
		},
		Note: func(*session.Session) string {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.config.LoginNote()
		},
		Complete:  func(*session.Session, string) (string, []console.Choice) { return "", nil },
		Help:      func(*session.Session, string) string { return "" },
		Confirmed: func(console.Request) error { return nil },
	})
}

// client is OpenSSH's, which believes the router's key and nothing else.
func (g *rig) client(askpass string, args ...string) *exec.Cmd {
	g.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		g.Skip("this needs the program ssh (Debian: openssh-client)")
	}
	folder := g.TempDir()
	public := ssh.PublicKey{Key: string(g.key.Public().(ed25519.PublicKey))}
	hosts := fmt.Sprintf("[127.0.0.1]:%d %s\n", g.port, public)
	require.NoError(g, os.WriteFile(filepath.Join(folder, "hosts"), []byte(hosts), 0o600))
	require.NoError(g, os.WriteFile(filepath.Join(folder, "answer"), []byte("#!/bin/sh\necho '"+askpass+"'\n"), 0o700))
	block, err := protocol.MarshalPrivateKey(g.user, "me")
	require.NoError(g, err)
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString(block.Bytes) + "\n-----END OPENSSH PRIVATE KEY-----\n"
	require.NoError(g, os.WriteFile(filepath.Join(folder, "key"), []byte(key), 0o600))
	identity := []string{"-o", "PubkeyAuthentication=no"}
	if askpass == "" {
		identity = []string{"-i", filepath.Join(folder, "key"), "-o", "BatchMode=yes"}
	}
	c := exec.CommandContext(g.Context(), "ssh", append(append([]string{"-F", "none", "-p", fmt.Sprint(g.port), "-o", "UserKnownHostsFile=" + filepath.Join(folder, "hosts"),
		"-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "NumberOfPasswordPrompts=1", "-o", "IdentitiesOnly=yes"}, identity...), args...)...)
	c.Env = append(os.Environ(), "SSH_ASKPASS="+filepath.Join(folder, "answer"), "SSH_ASKPASS_REQUIRE=force", "SSH_AUTH_SOCK=")
	return c
}

// run runs a client and returns what it says, and its exit status.
func (g *rig) run(c *exec.Cmd) (output string, status int) {
	g.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(g, err)
	}
	g.Log(errs.String())
	return out.String(), c.ProcessState.ExitCode()
}

func TestOpenSSH(t *testing.T) {
	for _, c := range []struct {
		name, password string
		args           []string
		in             string
		want           string
		status         int
	}{
		{"a command by a password", secret, []string{"admin@127.0.0.1", "/system identity print"}, "", "  name: postern\r\n", 0},
		{"a command by a key", "", []string{"admin@127.0.0.1", "/system identity print"}, "", "  name: postern\r\n", 0},
		{"a command that fails", "", []string{"admin@127.0.0.1", "/system foo"}, "", "bad command name foo (line 1 column 9); expected resource, identity, note, ntp, routerboard, health, reboot, shutdown, export\r\n", 0},
		{"parameters", "", []string{"admin+cet512w@127.0.0.1", "/system identity print"}, "", "  name: postern\r\n", 0},
		{"a question", "", []string{"admin@127.0.0.1", "/system reboot"}, "y\n", "Reboot, yes? [y/N]: system will reboot shortly\r\n", 0},
		{"a question without an answer", "", []string{"admin@127.0.0.1", "/system reboot"}, "", "Reboot, yes? [y/N]: action cancelled\r\n", 0},
		{"much", "", []string{"admin@127.0.0.1", "/long"}, "", strings.Repeat("0123456789\r\n", 10000), 0},
		{"a wrong password", "wrong", []string{"admin@127.0.0.1", "/system identity print"}, "", "", 255},
		{"another user", secret, []string{"root@127.0.0.1", "/system identity print"}, "", "", 255},
		{"lines", "", []string{"-T", "admin@127.0.0.1"}, "/system identity print\n/quit\n", "[admin@postern] >   name: postern\n[admin@postern] > ", 0},
		{"nothing is forwarded", "", []string{"-W", "127.0.0.1:1", "admin@127.0.0.1"}, "", "", 255},
		{"no subsystem but one", "", []string{"-s", "admin@127.0.0.1", "netconf"}, "", "", 255},
		{"SFTP that ends at once", "", []string{"-s", "admin@127.0.0.1", "sftp"}, "", "", 0},
		{"SFTP that is none", "", []string{"-s", "admin@127.0.0.1", "sftp"}, "GET / HTTP/1.0\r\n", "", 1},
		{"SFTP", "", []string{"-s", "admin@127.0.0.1", "sftp"}, "\x00\x00\x00\x05\x01\x00\x00\x00\x03", "\x00\x00\x00\x26\x02\x00\x00\x00\x03\x00\x00\x00\x18posix-rename@openssh.com\x00\x00\x00\x011", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			client := g.client(c.password, c.args...)
			client.Stdin = strings.NewReader(c.in)
			out, status := g.run(client)
			assert.Equal(t, c.want, out)
			assert.Equal(t, c.status, status)
		})
	}
}

// A shell on a terminal: echo, prompt and a change of the width.
func TestShell(t *testing.T) {
	g := newRig(t, nil)
	client := g.dial()
	s, in, read := openShell(t, client)
	read("[admin@postern] > ")
	_, err := io.WriteString(in, "/system identity print\r\n")
	require.NoError(t, err)
	assert.Equal(t, "/system identity print\r\n  name: postern\r\n[admin@postern] > ", read("> "))
	require.NoError(t, s.WindowChange(24, 120))
	_, err = io.WriteString(in, "/quit\r")
	require.NoError(t, err)
	read("/quit\r\n")
	require.NoError(t, s.Wait())
	require.NoError(t, client.Close())
}

// A program's shell, as admin+cet512w, of a router with a long name with blanks and as many entries and rules as there can be: a
// line is echoed as it was typed, however long it is, and the prompt is there once, behind all that the line says.
func TestProgramsShell(t *testing.T) {
	const entries = 999
	g := newRig(t, nil)
	name := "The gate.of/my_house-" + strings.Repeat("x", 40)
	config := console.Default()
	config.Identity = name
	for i := range entries {
		address, err := match.ParseAddresses(fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		require.NoError(t, err)
		config.AddressLists = append(config.AddressLists, console.ListedAddress{List: "friends", Address: address, Comment: "two words"})
	}
	for range 256 {
		config.Firewall.Filter = append(config.Firewall.Filter, firewall.Rule{Chain: "forward", Action: "drop", Comment: strings.Repeat("x", 200)})
		config.Firewall.NAT = append(config.Firewall.NAT, firewall.Rule{Chain: "srcnat", Action: "masquerade", Comment: strings.Repeat("x", 200)})
	}
	g.mu.Lock()
	g.config = config
	g.mu.Unlock()
	c := g.clientConfig()
	c.User += "+cet512w"
	client, err := protocol.Dial("tcp4", g.address(), c)
	require.NoError(t, err)
	defer client.Close()
	_, in, read := openShell(t, client)
	prompt := "[admin@" + name + "] > "
	assert.Equal(t, prompt, read("> "))
	typed := func(line, end string) string {
		t.Helper()
		_, err := io.WriteString(in, line+"\r\n")
		require.NoError(t, err)
		said, ok := strings.CutPrefix(read(end), line+"\r\n")
		require.True(t, ok, "the echo of %s", line)
		return said
	}
	assert.Equal(t, prompt, typed("/ip firewall address-list add list=friends address=192.0.2.1 comment=\""+strings.Repeat("two words ", 25)+"\"", "> "))
	export := typed("/export", "\n"+prompt)
	assert.Equal(t, entries+1, strings.Count(export, "add address="))
	assert.Equal(t, 1, strings.Count(export, prompt))
	assert.NotContains(t, export, "\x1b")
	assert.Equal(t, 2*256, strings.Count(export, "add action="))
	s, err := client.NewSession()
	require.NoError(t, err)
	whole, err := s.Output("/export")
	require.NoError(t, err)
	assert.Equal(t, string(whole), strings.TrimSuffix(export, prompt), "nothing is lost")
	assert.Equal(t, strings.Repeat("0123456789\r\n", 10_000)+prompt, typed("/long", "\n"+prompt))
}

// The note for people is not for programs: not before what a command says, and not where parameters ask for a dumb terminal.
func TestNote(t *testing.T) {
	g := newRig(t, nil)
	g.mu.Lock()
	g.config.Note = "Authorised people only"
	g.mu.Unlock()
	begin := func(user string) string {
		c := g.clientConfig()
		c.User = user
		client, err := protocol.Dial("tcp4", g.address(), c)
		require.NoError(t, err)
		defer client.Close()
		_, _, read := openShell(t, client)
		return read("> ")
	}
	assert.Equal(t, "Authorised people only\r\n[admin@postern] > ", begin("admin"))
	assert.Equal(t, "Authorised people only\r\n[admin@postern] > ", begin("admin+200w"))
	assert.Equal(t, "[admin@postern] > ", begin("admin+cet512w"))
	s, err := g.dial().NewSession()
	require.NoError(t, err)
	said, err := s.Output("/system identity print")
	require.NoError(t, err)
	assert.Equal(t, "  name: postern\r\n", string(said))
}

// openShell starts a shell at a terminal of 24 lines with 80 characters. read reads what it says up to a text.
func openShell(t *testing.T, client *protocol.Client) (s *protocol.Session, in io.Writer, read func(end string) string) {
	t.Helper()
	s, err := client.NewSession()
	require.NoError(t, err)
	require.NoError(t, s.RequestPty("vt100", 24, 80, nil))
	in, err = s.StdinPipe()
	require.NoError(t, err)
	out, err := s.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Shell())
	return s, in, reader(t, bufio.NewReader(out))
}

// reader returns a function that reads up to a text.
func reader(t *testing.T, r io.Reader) func(end string) string {
	return func(end string) string {
		t.Helper()
		var b bytes.Buffer
		one := make([]byte, 1)
		for !bytes.HasSuffix(b.Bytes(), []byte(end)) {
			_, err := r.Read(one)
			if err != nil {
				require.NoError(t, err, b.String())
			}
			b.Write(one)
		}
		return b.String()
	}
}

func (g *rig) clientConfig() *protocol.ClientConfig {
	signer, err := protocol.NewSignerFromSigner(g.user)
	require.NoError(g, err)
	return &protocol.ClientConfig{User: console.Admin, Auth: []protocol.AuthMethod{protocol.PublicKeys(signer)}, HostKeyCallback: protocol.InsecureIgnoreHostKey()}
}

func (g *rig) address() string { return fmt.Sprintf("127.0.0.1:%d", g.port) }

func (g *rig) dial() *protocol.Client {
	g.Helper()
	c, err := protocol.Dial("tcp4", g.address(), g.clientConfig())
	require.NoError(g, err)
	g.Cleanup(func() { c.Close() })
	return c
}

// closed waits until the server has closed a connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, c)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

// There are no more strangers than login.MaxStrangers, and of one address than login.MaxStrangersOf; who has logged in is
// none. Addresses that have fewer displace those that have more.
func TestStrangers(t *testing.T) {
	strangeTime = time.Hour
	t.Cleanup(func() { strangeTime = 30 * time.Second })
	g := newRig(t, nil)
	_, err := g.dial().NewSession() // so the server knows that the login is over
	require.NoError(t, err)
	connect := func(from byte) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		c, err := d.Dial("tcp4", g.address())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	answered := func(c net.Conn) bool {
		t.Helper()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		_, err := io.ReadFull(c, make([]byte, len(serverVersion)))
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		return err == nil
	}
	var strangers []net.Conn
	for i := range login.MaxStrangers {
		from := byte(2 + i/login.MaxStrangersOf)
		c := connect(from)
		require.True(t, answered(c), i)
		if i == login.MaxStrangersOf-1 {
			for range 100 {
				assert.False(t, answered(connect(from)), "one more of an address")
			}
			_, err := g.dial().NewSession()
			require.NoError(t, err, "another address has its own places")
		}
		strangers = append(strangers, c)
	}
	for range 3 { // by one of each of the others, and one more
		require.Eventually(t, func() bool { return answered(connect(9)) }, patience, 10*time.Millisecond)
	}
	assert.False(t, answered(connect(9)), "one more than others have")
	require.Eventually(t, func() bool { return answered(connect(10)) }, patience, 10*time.Millisecond, "an address that has none")
	for _, oldest := range []net.Conn{strangers[0], strangers[login.MaxStrangersOf]} {
		require.NoError(t, oldest.SetReadDeadline(time.Now().Add(patience)))
		_, err := io.Copy(io.Discard, oldest)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	require.NoError(t, strangers[login.MaxStrangers-1].Close())
	require.Eventually(t, func() bool { return answered(connect(9)) }, patience, 10*time.Millisecond)
}

// Key exchanges that no client makes end their connections alone.
func TestBadKeyExchanges(t *testing.T) {
	strangeTime = time.Hour
	t.Cleanup(func() { strangeTime = 30 * time.Second })
	g := newRig(t, nil)
	const version = "SSH-2.0-x\r\n"
	packet := func(payload ...byte) string {
		padding := 8 - (5+len(payload))%8 + 8
		b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
		return string(append(append(append(b, byte(padding)), payload...), make([]byte, padding)...))
	}
	text := func(b []byte, s string) []byte { return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) }
	init := func(exchange, key, cipher string) string {
		b := append([]byte{20}, make([]byte, 16)...)
		for _, list := range []string{exchange, key, cipher, cipher, "hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""} {
			b = text(b, list)
		}
		return packet(append(b, 0, 0, 0, 0, 0)...)
	}
	const exchange, cipher = "curve25519-sha256", "aes128-ctr"
	good := version + init(exchange, ssh.KeyType, cipher)
	point := func(length int, fill byte) string { // ECDH's message of the client
		return packet(text([]byte{30}, strings.Repeat(string(fill), length))...)
	}
	for _, c := range []struct{ name, sent string }{
		{"a version that does not end", "SSH-2.0-" + strings.Repeat("x", strangeBytes)},
		{"lines before the version that do not end", strings.Repeat("x\r\n", strangeBytes)},
		{"a length of 4 GiB", version + "\xff\xff\xff\xff\x04\x14"},
		{"a length of nothing", version + "\x00\x00\x00\x00\x00\x14"},
		{"more padding than packet", version + "\x00\x00\x00\x0c\xff\x14" + strings.Repeat("x", 32)},
		{"lists that are cut off", version + packet(append([]byte{20}, make([]byte, 20)...)...)},
		{"a list longer than its packet", version + packet(append(make([]byte, 17), 0xff, 0xff, 0xff, 0xff)...)},
		{"no exchange in common", version + init("diffie-hellman-group1-sha1", ssh.KeyType, cipher)},
		{"no key in common", version + init(exchange, "ssh-dss", cipher)},
		{"no cipher in common", version + init(exchange, ssh.KeyType, "none")},
		{"the point of all zeros", good + point(32, 0)},
		{"a point that is too short", good + point(31, 1)},
		{"a point that is too long", good + point(33, 1)},
		{"another message than the exchange", good + packet(50, 0, 0, 0, 0)},
		{"two beginnings", good + init(exchange, ssh.KeyType, cipher)},
		{"keys in use before there are any", good + packet(21)},
		{"a request before the keys are in use", good + point(32, 9) + packet(5, 0, 0, 0, 0)},
		{"noise after the keys", good + point(32, 9) + packet(21) + strings.Repeat("\xa5", 4096)},
	} {
		conn, err := net.Dial("tcp4", g.address())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, _ = io.WriteString(conn, c.sent) // it may be closed before all is there
		_, err = io.Copy(io.Discard, conn)
		assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%s: it is not closed", c.name)
		conn.Close()
	}
	_, err := g.dial().NewSession()
	require.NoError(t, err)
	assert.Empty(t, g.wrong)
}

// Who has not logged in is cut off after strangeTime.
func TestStrangeTime(t *testing.T) {
	strangeTime = 100 * time.Millisecond
	t.Cleanup(func() { strangeTime = 30 * time.Second })
	g := newRig(t, nil)
	c, err := net.Dial("tcp4", g.address())
	require.NoError(t, err)
	defer c.Close()
	closed(t, c)
}

// Commands that were hung up make room for others, although they have nothing to say.
func TestHungUpCommands(t *testing.T) {
	g := newRig(t, nil)
	client := g.dial()
	var commands []*protocol.Session
	for range maxChannels {
		s, err := client.NewSession()
		require.NoError(t, err)
		out, err := s.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, s.Start("/follow"))
		reader(t, out)("it begins\r\n")
		commands = append(commands, s)
	}
	_, err := client.NewSession()
	require.ErrorContains(t, err, "at most 4 sessions")
	for _, s := range commands {
		require.NoError(t, s.Close())
	}
	require.Eventually(t, func() bool {
		s, err := client.NewSession()
		if err != nil {
			return false
		}
		out, err := s.Output("/system identity print")
		return err == nil && string(out) == "  name: postern\r\n"
	}, patience, 10*time.Millisecond)
}

// Who sends more than strangeBytes before the login is cut off.
func TestTooMuch(t *testing.T) {
	b := &boundedConn{Conn: infinite{}}
	b.left.Store(strangeBytes)
	n, err := io.Copy(io.Discard, struct{ io.Reader }{b})
	require.ErrorIs(t, err, errTooMuch)
	assert.LessOrEqual(t, n, int64(strangeBytes))
}

type infinite struct{ net.Conn }

func (infinite) Read(p []byte) (int, error) { return len(p), nil }

// There are max-sessions logins, and more when one has gone.
func TestMaxSessions(t *testing.T) {
	g := newRig(t, func(c *login.Config) { c.MaxSessions = 1 })
	first := g.dial()
	_, err := protocol.Dial("tcp4", g.address(), g.clientConfig())
	require.Error(t, err)
	byPassword := g.clientConfig()
	byPassword.Auth = []protocol.AuthMethod{protocol.Password(secret)}
	said := ""
	byPassword.BannerCallback = func(message string) error { said += message; return nil }
	_, err = protocol.Dial("tcp4", g.address(), byPassword)
	require.Error(t, err)
	assert.Equal(t, login.ErrFull.Error()+"\r\n", said)
	g.mu.Lock()
	assert.Len(t, g.logins, 1, "who was refused is not said to have logged in")
	assert.Empty(t, g.wrong)
	g.mu.Unlock()
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.out == 1
	}, patience, time.Millisecond)
	require.Eventually(t, func() bool {
		c, err := protocol.Dial("tcp4", g.address(), g.clientConfig())
		if err != nil {
			return false
		}
		c.Close()
		return true
	}, patience, 10*time.Millisecond)
}

// A client whose address is not one of address= is not answered.
func TestFrom(t *testing.T) {
	g := newRig(t, func(c *login.Config) { c.From = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	c, err := net.Dial("tcp4", g.address())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	n, err := c.Read(make([]byte, 1))
	assert.Zero(t, n)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

// Who hangs up while a password is checked does not make room for another check.
func TestChecks(t *testing.T) {
	g := newRig(t, nil)
	release := make(chan struct{})
	began := make(chan struct{}, login.MaxChecks)
	g.mu.Lock()
	g.checking = func() { began <- struct{}{}; <-release }
	g.mu.Unlock()
	config := g.clientConfig()
	config.Auth = []protocol.AuthMethod{protocol.Password("wrong")}
	for range login.MaxChecksOf {
		conn, err := net.Dial("tcp4", g.address())
		require.NoError(t, err)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _, _, _ = protocol.NewClientConn(conn, "", config)
		}()
		<-began
		conn.Close()
		<-gone
	}
	_, err := protocol.Dial("tcp4", g.address(), config)
	require.Error(t, err)
	assert.Empty(t, began)
	close(release)
}

// PID 1 gives no session to who has not logged in, and no more of anything than agreed.
func TestBreach(t *testing.T) {
	g := newRig(t, nil)
	for name, r := range map[string]func(*service.Encoder) byte{
		"no such request": func(*service.Encoder) byte { return 99 },
		"no hash to sign": func(e *service.Encoder) byte { e.String(strings.Repeat("x", 33)); return opSign },
		"a long key": func(e *service.Encoder) byte {
			e.Uint(1)
			login.Login{From: netip.MustParseAddr("10.0.0.1")}.Encode(e)
			e.String(strings.Repeat("x", ssh.MaxKey+1))
			return opKeyLogin
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewProcess(nil, g.process.authority)
			var e service.Encoder
			op := r(&e)
			_, err := p.Handle(t.Context(), &service.Request{Op: op, Decoder: service.NewDecoder(e.Bytes())})
			require.ErrorIs(t, err, service.ErrBreach)
		})
	}
}

func TestParseUser(t *testing.T) {
	for text, want := range map[string]parameters{
		"admin":              {user: "admin"},
		"admin+cet512w":      {user: "admin", width: 512, dumb: true},
		"admin+ct511w4098h":  {user: "admin", width: 511, height: 4098},
		"admin+cetw511h4098": {user: "admin", width: 511, height: 4098, dumb: true}, // Netmiko 2.4
		"admin+w80":          {user: "admin", width: 80},
		"admin+80w24":        {user: "admin+80w24"},
		"admin+c1":           {user: "admin+c1"},
		"admin+":             {user: "admin"},
		"admin+x":            {user: "admin+x"},
		"admin+512":          {user: "admin+512"},
		"admin+w":            {user: "admin+w"},
		"a+b+c":              {user: "a+b+c"},
	} {
		assert.Equal(t, want, parseUser(text), text)
	}
}

func TestScreen(t *testing.T) {
	for _, c := range []struct {
		user          string
		width, height uint32
		columns, rows int
	}{
		{"admin", 80, 24, 80, 24}, {"admin", 0, 0, 0, 0}, {"admin", 1<<32 - 1, 1<<32 - 1, maxWidth, maxWidth}, {"admin+512w", 80, 24, 512, 24},
		{"admin+99999w", 80, 0, maxWidth, 0}, {"admin+ct511w4098h", 80, 24, 511, 4098}, {"admin+cet512w", 80, 24, 512, 0},
	} {
		columns, rows := parseUser(c.user).screen(c.width, c.height)
		assert.Equal(t, [2]int{c.columns, c.rows}, [2]int{columns, rows}, c)
	}
}

func FuzzParseUser(f *testing.F) {
	f.Add("admin+cet512w")
	f.Fuzz(func(t *testing.T, text string) {
		p := parseUser(text)
		assert.True(t, strings.HasPrefix(text, p.user))
		assert.GreaterOrEqual(t, p.width, 0)
	})
}

// PID 1 ends a login: the client's connection is over, another's is not, and the process goes on.
func TestEndedLogin(t *testing.T) {
	g := newRig(t, nil)
	first, second := g.dial(), g.dial()
	g.mu.Lock()
	ended := g.logins[0]
	g.mu.Unlock()
	ended.End()
	_ = first.Wait()
	g.mu.Lock()
	assert.Equal(t, 1, g.out)
	g.mu.Unlock()
	s, err := second.NewSession()
	require.NoError(t, err)
	out, err := s.Output("/system identity print")
	require.NoError(t, err)
	assert.Equal(t, "  name: postern\r\n", string(out))
}
