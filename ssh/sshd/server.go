package sshd

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	protocol "golang.org/x/crypto/ssh"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/files"
	"github.com/postern-router/postern/console/terminal"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
	"github.com/postern-router/postern/ssh/sftp"
)

const (
	// strangeBytes is how many bytes a connection may send that has not logged in.
	strangeBytes = 64 << 10
	// maxTries is how many passwords and keys a connection may try: as many as OpenSSH lets, because agents
	// offer all keys that they have.
	maxTries = 6
	// maxChannels is how many sessions a connection may have at once.
	maxChannels = login.SessionsOf
	// serverVersion is what the server says of itself (RFC 4253, section 4.2).
	serverVersion = "SSH-2.0-Postern"
	// filesMemory is how many bytes of files all sessions of SFTP together hold.
	filesMemory = 1 << 20
	// plainWidth is the width of the screen for a command without a terminal, maxWidth the greatest.
	plainWidth = 80
	maxWidth   = 1 << 15
)

// strangeTime is how long a connection may take to log in. Tests change it.
var strangeTime = 30 * time.Second

// boundedConn is a connection that ends when too much has been read of it.
type boundedConn struct {
	net.Conn
	left    atomic.Int64
	trusted atomic.Bool
}

var errTooMuch = errors.New("too much was sent before the login")

func (b *boundedConn) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if !b.trusted.Load() && b.left.Add(-int64(n)) < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// hostKey is the router's key, with which PID 1 signs.
type hostKey struct {
	public string
	sign   func(data []byte) (string, error)
}

func (k hostKey) PublicKey() protocol.PublicKey { return hostPublic(k.public) }

func (k hostKey) Sign(_ io.Reader, data []byte) (*protocol.Signature, error) {
	signature, err := k.sign(data)
	if err != nil {
		return nil, err
	}
	return &protocol.Signature{Format: ssh.KeyType, Blob: []byte(signature)}, nil
}

// hostPublic is the public part of the router's key.
type hostPublic string

func (hostPublic) Type() string      { return ssh.KeyType }
func (k hostPublic) Marshal() []byte { return ssh.PublicKey{Key: string(k)}.Blob() }
func (k hostPublic) Verify(data []byte, s *protocol.Signature) error {
	if s.Format != ssh.KeyType || !ed25519.Verify(ed25519.PublicKey(k), data, s.Blob) {
		return errors.New("wrong signature")
	}
	return nil
}

// parameters are what stands behind the user's name.
type parameters struct {
	user string
	// width and height are 0 if there is none. A dumb terminal, which is one of a program, has no pages
	// and no note for people.
	width, height int
	dumb          bool
}

// parseUser takes the parameters off a user's name. What is no list of parameters is part of the name.
func parseUser(text string) parameters {
	name, rest, ok := strings.Cut(text, "+")
	if !ok {
		return parameters{user: text}
	}
	p := parameters{user: name}
	// Netmiko 2 writes numbers behind their letters.
	behind := strings.TrimRight(rest, digits) != rest
	for rest != "" {
		number := leadingDigits(rest)
		rest = rest[len(number):]
		if rest == "" || !strings.Contains("cetwh", rest[:1]) {
			return parameters{user: text}
		}
		letter := rest[0]
		if rest = rest[1:]; behind && number == "" {
			number = leadingDigits(rest)
			rest = rest[len(number):]
		}
		if needs := letter == 'w' || letter == 'h'; needs != (number != "") {
			return parameters{user: text}
		}
		switch value, _ := strconv.Atoi(number[:min(len(number), 5)]); letter {
		case 'w':
			p.width = value
		case 'h':
			p.height = value
		case 'e':
			p.dumb = true
		}
	}
	return p
}

// screen is the size of a screen of which the client says that it has so many columns and rows.
func (p parameters) screen(width, height uint32) (columns, rows int) {
	if p.width > 0 {
		width = uint32(p.width)
	}
	if p.height > 0 {
		height = uint32(p.height)
	}
	if p.dumb {
		height = 0
	}
	return int(min(width, maxWidth)), int(min(height, maxWidth))
}

const digits = "0123456789"

func leadingDigits(s string) string { return s[:len(s)-len(strings.TrimLeft(s, digits))] }

// keyOf returns the key that a client offers, as PID 1 knows it (ssh.PublicKey.Key); "" if it is none that a user can have.
func keyOf(k protocol.PublicKey) string {
	key, _ := ssh.ParseBlob(k.Marshal())
	return key.Key
}

var errDenied = errors.New("permission denied")

// denied is an error that the client shows.
func denied(why string) error { return &protocol.BannerError{Err: errDenied, Message: why + "\r\n"} }

// child is the process.
type child struct {
	*login.Server
	// files bounds what sessions of SFTP hold.
	files *sftp.Memory
}

// runProcess is the process.
func runProcess(p *service.Child) error {
	c := child{files: sftp.NewMemory(filesMemory)}
	c.Server = login.NewServer(p, c.serve)
	return c.Run()
}

// serve serves a connection.
func (c *child) serve(conn *login.Conn) {
	bounded := &boundedConn{Conn: conn}
	bounded.left.Store(strangeBytes)
	ctx, cancel := service.WithTimeout(conn.Context, strangeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var entry *login.Entry
	defer func() {
		if entry != nil {
			entry.Logout()
		}
	}()
	server, channels, requests, err := protocol.NewServerConn(bounded, c.serverConfig(ctx, conn.From, &entry))
	if !stop() && err == nil {
		server.Close()
		return
	}
	if err != nil {
		return // PID 1 has told of each wrong password
	}
	bounded.trusted.Store(true)
	conn.Trust()
	entry.OnEnd(func() { conn.Close() })
	defer server.Close()
	go protocol.DiscardRequests(requests)
	params := parseUser(server.User())
	var serving sync.WaitGroup
	defer serving.Wait()
	slots := make(chan struct{}, maxChannels)
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(protocol.Prohibited, "nothing is forwarded")
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = offered.Reject(protocol.ResourceShortage, fmt.Sprintf("a connection has at most %d sessions", maxChannels))
			continue
		}
		channel, asked, err := offered.Accept()
		if err != nil {
			<-slots
			continue
		}
		serving.Go(func() {
			defer func() { <-slots }()
			c.serveChannel(channel, asked, entry, params)
		})
	}
}

// serverConfig is what the protocol is told. entry becomes the login.
func (c *child) serverConfig(ctx context.Context, peer netip.Addr, entry **login.Entry) *protocol.ServerConfig {
	password := func(meta protocol.ConnMetadata, secret []byte) (*protocol.Permissions, error) {
		e, v, err := c.Password(ctx, login.Login{User: parseUser(meta.User()).user, From: peer}, string(secret))
		switch {
		case err != nil:
			return nil, err
		case v == login.Full:
			return nil, denied(login.ErrFull.Error())
		case v != login.Right:
			return nil, errDenied
		}
		*entry = e
		return &protocol.Permissions{}, nil
	}
	s := &protocol.ServerConfig{
		Config: protocol.Config{
			KeyExchanges: []string{"curve25519-sha256", "curve25519-sha256@libssh.org"},
			Ciphers:      []string{"chacha20-poly1305@openssh.com", "aes128-ctr", "aes256-ctr"},
			MACs:         []string{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"},
		},
		PublicKeyAuthAlgorithms: []string{ssh.KeyType, ssh.RSASHA512, ssh.RSASHA256},
		MaxAuthTries:            maxTries,
		ServerVersion:           serverVersion,
		PasswordCallback:        password,
		KeyboardInteractiveCallback: func(meta protocol.ConnMetadata, challenge protocol.KeyboardInteractiveChallenge) (*protocol.Permissions, error) {
			answers, err := challenge("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(answers) != 1 {
				return nil, errDenied
			}
			return password(meta, []byte(answers[0]))
		},
		PublicKeyCallback: func(meta protocol.ConnMetadata, offered protocol.PublicKey) (*protocol.Permissions, error) {
			user, key := parseUser(meta.User()).user, keyOf(offered)
			if key == "" || len(user) > login.MaxUser {
				return nil, errDenied
			}
			known, err := c.knows(login.Login{User: user, From: peer}, key)
			if err == nil && !known {
				err = errDenied
			}
			return &protocol.Permissions{}, err
		},
		VerifiedPublicKeyCallback: func(meta protocol.ConnMetadata, offered protocol.PublicKey, _ *protocol.Permissions, _ string) (*protocol.Permissions, error) {
			e, err := c.Enter(opKeyLogin, login.Login{User: parseUser(meta.User()).user, From: peer}, keyOf(offered))
			if err != nil {
				return nil, denied(err.Error())
			}
			*entry = e
			return &protocol.Permissions{}, nil
		},
	}
	s.AddHostKey(hostKey{public: c.Extra(), sign: c.sign})
	return s
}

// knows asks PID 1 whether a key is one of the user's.
func (c *child) knows(from login.Login, key string) (known bool, err error) {
	var e service.Encoder
	from.Encode(&e)
	e.String(key)
	err = c.Call(opKnown, e, func(d *service.Decoder) { known = d.Bool() })
	return known, err
}

// sign has PID 1 sign with the host key.
func (c *child) sign(data []byte) (signature string, err error) {
	var e service.Encoder
	e.String(string(data))
	err = c.Call(opSign, e, func(d *service.Decoder) { signature = d.String(maxSigned) })
	return signature, err
}

// ptyRequest is the request for a terminal (RFC 4254, section 6.2).
type ptyRequest struct {
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}

// windowChange is a change of its size (RFC 4254, section 6.7).
type windowChange struct{ Columns, Rows, Width, Height uint32 }

// exitStatus is how a command went (RFC 4254, section 6.10): as in RouterOS 0, whatever the console said,
// and 1 if there was no session, or it broke.
type exitStatus struct{ Status uint32 }

// serveChannel serves a session.
func (c *child) serveChannel(channel protocol.Channel, asked <-chan *protocol.Request, entry *login.Entry, params parameters) {
	defer channel.Close()
	var columns, rows atomic.Uint32
	var pty, begun bool
	var running sync.WaitGroup
	defer running.Wait()
	// The client has closed the channel: the command ends too, as one that prints nothing would never notice. This runs
	// before running.Wait.
	gone, leave := context.WithCancel(context.Background())
	defer leave()
	for r := range asked {
		ok := false
		switch r.Type {
		case "pty-req":
			var p ptyRequest
			if ok = !begun && protocol.Unmarshal(r.Payload, &p) == nil; ok {
				pty = true
				columns.Store(p.Columns)
				rows.Store(p.Rows)
			}
		case "window-change":
			var w windowChange
			if ok = protocol.Unmarshal(r.Payload, &w) == nil; ok {
				columns.Store(w.Columns)
				rows.Store(w.Rows)
			}
		case "shell", "exec", "subsystem":
			var command struct{ Line string }
			ok = !begun && (r.Type == "shell" || protocol.Unmarshal(r.Payload, &command) == nil && len(command.Line) <= console.MaxLine) &&
				(r.Type != "subsystem" || command.Line == "sftp")
			if !ok {
				break
			}
			begun = true
			size := func() (int, int) { return params.screen(columns.Load(), rows.Load()) }
			run := func(conn net.Conn) error { return shell(channel, conn, pty, params.dumb, size) }
			open, errs := entry.Session, io.Writer(channel)
			switch r.Type {
			case "exec":
				columnsNow, _ := size()
				if columnsNow == 0 {
					columnsNow = plainWidth
				}
				run = func(conn net.Conn) error {
					return terminal.Exec(conn, command.Line, columnsNow, channel, channel)
				}
			case "subsystem":
				errs = channel.Stderr()
				open = func() (net.Conn, error) { return entry.Open(opFiles) }
				run = func(conn net.Conn) error {
					return sftp.Serve(channel, errs, files.NewClient(conn), c.files)
				}
			}
			// The answer goes out before the first output.
			_ = r.Reply(true, nil)
			running.Go(func() {
				defer channel.Close()
				status := exitStatus{}
				conn, err := open()
				if err == nil {
					stop := context.AfterFunc(gone, func() { conn.Close() })
					err = run(conn)
					stop()
					conn.Close()
				} else {
					_, _ = io.WriteString(errs, err.Error()+"\r\n")
				}
				if err != nil {
					status.Status = 1
				}
				_, _ = channel.SendRequest("exit-status", false, protocol.Marshal(status))
			})
			continue
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
}

// shell is a session on a terminal or, without one, of lines.
func shell(channel protocol.Channel, conn net.Conn, pty, program bool, size func() (columns, rows int)) error {
	if !pty {
		size = nil
	}
	t := terminal.New(channel, channel, size)
	defer t.Close()
	if program {
		t.ForProgram()
	}
	return t.Talk(conn)
}
