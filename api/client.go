package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/service"
)

const (
	// maxTries is how many wrong passwords a connection may try, maxStrangerSentences how many sentences it
	// may send before it has logged in.
	maxTries             = 3
	maxStrangerSentences = 16
	// maxCommands is how many commands of a connection run at once, maxEndless how many that go on until
	// they are cancelled, and maxSessions how many sessions they have.
	maxCommands = 8
	maxEndless  = 8
	maxSessions = 2
	// bufferSize is how much of the replies is gathered before it is sent.
	bufferSize = 4 << 10
)

// Times; tests change them.
var (
	// loginTime is how long a connection may take to log in, writeTime how long the client may leave bufferSize of replies unread.
	loginTime = 30 * time.Second
	writeTime = 30 * time.Second
	// pollTime is the time from one look at what a listen is about to the next, and from one round of a
	// monitor to the next.
	pollTime = time.Second
)

// Session is a session with PID 1, over which one command at a time looks at the router or changes it: see
// package program, whose Client it is.
type Session interface {
	Query(path string, where []console.Condition, proplist []string, each func(console.Row) error) error
	Do(path, command string, out func(string) error, arguments ...console.Argument) (console.ID, error)
	Execute(line string, out func(string) error) error
	Close() error
}

// Account is a user who has logged in.
type Account interface {
	Session() (Session, error)
	Logout()
	// OnEnd has f called when PID 1 ends the login.
	OnEnd(f func())
}

// checkPassword says whose password this is; nil is that it is wrong. The error is shown to the client.
type checkPassword func(ctx context.Context, user, secret string) (Account, error)

// client is a connection.
type client struct {
	conn    io.ReadWriteCloser
	ctx     context.Context // ends with the connection
	end     context.CancelFunc
	in      *reader
	out     output
	account Account

	tasks sync.WaitGroup
	// commands has an entry for each command that runs, endless for each that goes on.
	commands, endless chan struct{}
	// pinging has an entry while there is a ping.
	pinging chan struct{}
	// places has an entry for each session, idle those that no command uses.
	places chan struct{}
	idle   chan Session

	mu       sync.Mutex
	running  map[*task]bool
	sessions map[Session]bool
	jobs     int // of /execute, so far
}

// task is a command that runs.
type task struct {
	*client
	request
	ctx    context.Context // ends when the command is cancelled
	cancel context.CancelFunc
	// show gets the rows, if it is not nil; else they are sent.
	show func(id console.ID, row []Pair) error
}

// serve serves a connection until it or ctx ends, and closes it. trusted is called when somebody has logged in.
func serve(ctx context.Context, conn io.ReadWriteCloser, check checkPassword, trusted func()) {
	c := &client{conn: conn, in: newReader(conn), running: map[*task]bool{}, sessions: map[Session]bool{},
		pinging:  make(chan struct{}, 1),
		commands: make(chan struct{}, maxCommands), endless: make(chan struct{}, maxEndless),
		places: make(chan struct{}, maxSessions), idle: make(chan Session, maxSessions)}
	c.ctx, c.end = context.WithCancel(ctx)
	defer context.AfterFunc(c.ctx, func() { conn.Close() })()
	defer conn.Close()
	defer c.end()
	c.out.write = func(b []byte) error {
		timed, cancel := service.WithTimeout(c.ctx, writeTime)
		defer cancel()
		defer context.AfterFunc(timed, func() { conn.Close() })()
		_, err := conn.Write(b)
		return err
	}
	if err := c.login(check); err != nil {
		c.fatal(err)
		return
	}
	trusted()
	defer c.account.Logout()
	c.account.OnEnd(c.end)
	defer c.stop()
	c.in.limits = userLimits
	for {
		words, err := c.in.read()
		if err == nil && len(words) > 0 {
			err = c.handle(words)
		}
		if err != nil {
			c.fatal(err)
			return
		}
	}
}

// stop ends all commands, and waits for their end.
func (c *client) stop() {
	c.end()
	c.mu.Lock()
	for s := range c.sessions {
		s.Close()
	}
	c.mu.Unlock()
	c.tasks.Wait()
}

// fatalError is an error after which the server closes the connection, and of which the client is told.
type fatalError string

func (e fatalError) Error() string { return string(e) }

var (
	errQuit        = fatalError("session terminated on request")
	errNotLoggedIn = fatalError("not logged in")
	// errOver ends a connection without a word.
	errOver = errors.New("the connection is over")
)

// fatal tells the client why its connection ends, if it ends because of what the client has sent.
func (c *client) fatal(err error) {
	var f fatalError
	switch {
	case errors.As(err, &f):
	case errors.Is(err, errLongWord), errors.Is(err, errLongSentence):
		f = fatalError(err.Error())
	default:
		return
	}
	_ = c.out.send(true, appendWord(appendWord(appendWord(nil, "!fatal"), string(f)), ""))
}

// login returns when somebody has logged in.
func (c *client) login(check checkPassword) error {
	ctx, cancel := service.WithTimeout(c.ctx, loginTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	tries := 0
	for range maxStrangerSentences {
		words, err := c.in.read()
		if err != nil {
			return err
		}
		if len(words) == 0 {
			continue
		}
		r, err := parseRequest(words)
		t := &task{client: c, request: r}
		if r.path != "" || r.command != "login" {
			return errNotLoggedIn
		}
		var given map[string]string
		if err == nil {
			given, err = r.take("name", "password", "response")
		}
		_, answered := given["response"]
		switch {
		case err != nil:
		case len(given) == 0:
			// The way of before RouterOS 6.43. Whoever has hashes of passwords alone cannot check the answer: as in
			// RouterOS since 6.45 it is always wrong.
			var challenge [16]byte
			_, _ = rand.Read(challenge[:]) // never fails
			if err := t.done("ret", hex.EncodeToString(challenge[:])); err != nil {
				return err
			}
			continue
		case answered:
			err = errLogin
		default:
			c.account, err = check(ctx, given["name"], given["password"])
			if err == nil && c.account != nil {
				if !stop() {
					c.account.Logout()
					return errOver
				}
				if err = t.done(); err != nil {
					c.account.Logout()
				}
				return err
			}
			if err == nil {
				err = errLogin
			}
		}
		if tries++; tries > maxTries {
			return errOver
		}
		if err := t.failed(err); err != nil {
			return err
		}
		if tries == maxTries {
			return errOver
		}
	}
	return errOver
}

var errLogin = &trap{noCategory, "invalid user name or password (6)"}

// handle serves a sentence. The error is one after which nothing more is served.
func (c *client) handle(words []string) error {
	r, err := parseRequest(words)
	t := &task{client: c, request: r}
	if err != nil {
		return t.failed(err)
	}
	if r.path == "" {
		switch r.command {
		case "quit":
			return errQuit
		case "cancel":
			return t.interrupt()
		case "login":
			return t.failed(&trap{general, "failure: already logged in"})
		}
	}
	t.ctx, t.cancel = context.WithCancel(c.ctx)
	slots := c.commands
	if t.isEndless() {
		slots = c.endless
		select {
		case slots <- struct{}{}:
		default:
			t.cancel()
			return t.failed(&trap{general, "failure: too many commands that go on until they are cancelled"})
		}
	} else {
		// Those that run come to an end, so that the client can be made to wait.
		select {
		case slots <- struct{}{}:
		case <-c.ctx.Done():
			t.cancel()
			return c.ctx.Err()
		}
	}
	c.mu.Lock()
	c.running[t] = true
	c.mu.Unlock()
	run := func() error {
		err := t.finish(t.run())
		c.mu.Lock()
		delete(c.running, t)
		c.mu.Unlock()
		t.cancel()
		<-slots
		return err
	}
	// Without tags nobody could tell replies of several commands apart: one runs behind the other.
	if !r.tagged && slots == c.commands {
		return run()
	}
	c.tasks.Go(func() {
		if run() != nil {
			c.end()
		}
	})
	return nil
}

// interrupt ends commands of the connection: those of a tag, or all.
func (t *task) interrupt() error {
	given, err := t.take("tag")
	if err != nil {
		return t.failed(err)
	}
	tag, one := given["tag"]
	t.mu.Lock()
	for other := range t.running {
		if !one || other.tagged && other.tag == tag {
			other.cancel()
		}
	}
	t.mu.Unlock()
	return t.done()
}

// finish sends the end of a command: the error is one of the connection.
func (t *task) finish(value string, has bool, err error) error {
	switch {
	case err == nil && has:
		return t.done("ret", value)
	case err == nil:
		return t.done()
	case t.client.ctx.Err() != nil:
		return t.client.ctx.Err()
	case t.ctx.Err() != nil:
		err = errCancelled
	}
	return t.failed(err)
}

// done sends the last reply of a command, with names and values.
func (t *task) done(pairs ...string) error { return t.out.send(true, t.reply("!done", pairs...)) }

// failed sends an error, and the last reply behind it.
func (t *task) failed(err error) error {
	trap := asTrap(err)
	pairs := []string{"message", trap.message}
	if trap.category != noCategory {
		pairs = []string{"category", string(rune('0' + trap.category)), "message", trap.message}
	}
	return t.out.send(true, append(t.reply("!trap", pairs...), t.reply("!done")...))
}

// asTrap is an error in the form that clients get.
func asTrap(err error) *trap {
	var t *trap
	switch {
	case errors.As(err, &t):
		return t
	case errors.Is(err, console.ErrNoSuchMenu):
		return errNoPrefix
	case errors.Is(err, console.ErrNoSuchCommand):
		return errNoCommand
	case errors.Is(err, console.ErrNoSuchItem):
		return errNoItem
	case errors.Is(err, console.ErrNotPermitted), strings.HasPrefix(err.Error(), "failure:"):
		return &trap{noCategory, err.Error()}
	}
	return &trap{badValue, err.Error()}
}

// reply is a sentence for the client, with names and values.
func (t *task) reply(kind string, pairs ...string) []byte {
	b := t.replyHead(kind)
	for i := 0; i < len(pairs); i += 2 {
		b = appendWord(b, "=", pairs[i], "=", pairs[i+1])
	}
	return append(b, 0)
}

func (t *task) replyHead(kind string) []byte {
	b := appendWord(make([]byte, 0, 256), kind)
	if t.tagged {
		b = appendWord(b, ".tag=", t.tag)
	}
	return b
}

// output gathers replies and sends them. Sentences of several commands are never mixed.
type output struct {
	write func([]byte) error

	mu     sync.Mutex
	buffer []byte
	err    error
}

// send sends sentences, at once if flush is set, which also sends what was gathered before.
func (o *output) send(flush bool, sentences []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	o.buffer = append(o.buffer, sentences...)
	if flush && len(o.buffer) > 0 || len(o.buffer) >= bufferSize {
		// In pieces: each of them has its time.
		for b := o.buffer; len(b) > 0 && o.err == nil; {
			n := min(len(b), bufferSize)
			o.err = o.write(b[:n])
			b = b[n:]
		}
		if o.buffer = o.buffer[:0]; cap(o.buffer) > 2*bufferSize {
			o.buffer = nil
		}
	}
	return o.err
}

// withSession calls f with a session that no other command uses meanwhile.
func (t *task) withSession(f func(Session) error) error {
	s, err := t.session()
	if err != nil {
		return err
	}
	err = f(s)
	if err != nil && !program.Refused(err) {
		t.drop(s)
		return err
	}
	t.idle <- s // there is room for all sessions
	return err
}

// session returns a session that no command uses, or begins one.
func (t *task) session() (Session, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s := <-t.idle:
		return s, nil
	default:
	}
	select {
	case s := <-t.idle:
		return s, nil
	case <-t.ctx.Done():
		return nil, t.ctx.Err()
	case t.places <- struct{}{}:
	}
	s, err := t.account.Session()
	if err != nil {
		<-t.places
		return nil, &trap{general, err.Error()}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sessions[s] = true
	if t.client.ctx.Err() != nil { // stop has closed the others
		s.Close()
	}
	return s, nil
}

// drop ends a session that is of no use any more.
func (t *task) drop(s Session) {
	s.Close()
	t.mu.Lock()
	delete(t.sessions, s)
	t.mu.Unlock()
	<-t.places
}
