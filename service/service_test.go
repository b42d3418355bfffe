package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// toyParent is the parent's view of the toy.
type toyParent struct {
	link  *Link
	mu    sync.Mutex
	told  []string
	ended bool
}

func (p *toyParent) Handle(_ context.Context, r *Request) ([]byte, error) {
	text := r.String(100)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, text)
	return nil, nil
}

func (p *toyParent) Ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

func (p *toyParent) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// pid asks the process for its id.
func (p *toyParent) pid(t *testing.T) int {
	t.Helper()
	var pid int
	require.NoError(t, p.link.Call(t.Context(), opPID, nil, func(d *Decoder) { pid = int(d.Uint(1 << 31)) }))
	return pid
}

// toy returns the Spec of that name.
func toy(name string) Spec {
	spec, ok := toys.Find(name)
	if !ok {
		panic(name)
	}
	return spec
}

// newToy returns a service of that name, and a function for its newest parent.
func newToy(t *testing.T, name string) (*Service, *testLog, func() *toyParent) {
	t.Helper()
	s, log := newSupervisor(t)
	var mu sync.Mutex
	var newest *toyParent
	v := s.NewService(toy(name), Options{Parent: func(l *Link) Parent {
		mu.Lock()
		defer mu.Unlock()
		newest = &toyParent{link: l}
		return newest
	}})
	return v, log, func() *toyParent {
		mu.Lock()
		defer mu.Unlock()
		return newest
	}
}

// configure is a desired state of the toy.
func configure(word string) *Desired {
	var e Encoder
	e.String(word)
	return &Desired{Configure: func(ctx context.Context, p Parent) error {
		return p.(*toyParent).link.Call(ctx, opConfigure, e.Bytes(), nil)
	}}
}

func taken(t *testing.T, c *Change) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return c.Wait(ctx)
}

func TestServiceLife(t *testing.T) {
	v, log, newest := newToy(t, "toy")
	assert.Nil(t, newest())
	require.NoError(t, v.Health())
	assert.Nil(t, v.Parent())

	require.NoError(t, taken(t, v.Set(configure("one"))))
	first := v.Parent().(*toyParent)
	assert.Equal(t, Running, v.Status().State)
	require.NoError(t, v.Health())
	pid := first.pid(t)

	require.NoError(t, taken(t, v.Set(configure("two"))))
	assert.Same(t, first, v.Parent(), "the same process takes it")
	assert.Equal(t, []string{"one", "two"}, first.told)
	require.EqualError(t, taken(t, v.Set(configure("refuse"))), "toy: refused")
	assert.Equal(t, pid, first.pid(t), "it goes on with what it had")

	// One that dies is replaced, and has the newest configuration.
	require.NoError(t, taken(t, v.Set(configure("three"))))
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	eventually(t, func() bool { return v.Status().Restarts == 1 && v.Status().State == Running }, "no second process")
	second := v.Parent().(*toyParent)
	assert.NotSame(t, first, second)
	assert.True(t, first.hasEnded())
	assert.Equal(t, []string{"three"}, second.told)
	assert.Contains(t, log.String(), "<4>toy: it was ended by signal 9 (killed); starting it again in 50ms\n")
	assert.Contains(t, log.String(), "<5>toy is back\n")
	assert.Contains(t, log.String(), "toy: here\n", "what the process says is in the log")

	pid = second.pid(t)
	require.NoError(t, taken(t, v.Set(nil)))
	assert.Equal(t, Off, v.Status().State)
	assert.Nil(t, v.Parent())
	require.ErrorIs(t, unix.Kill(pid, 0), unix.ESRCH, "off means off")
	assert.True(t, second.hasEnded())

	require.NoError(t, taken(t, v.Set(configure("four"))), "it can be turned on again")
	pid = v.Parent().(*toyParent).pid(t)
	v.Stop()
	assert.Equal(t, Stopped, v.Status().State)
	require.ErrorIs(t, unix.Kill(pid, 0), unix.ESRCH)
}

// TestStopIsFinal: nothing starts after it, whoever asks for it.
func TestStopIsFinal(t *testing.T) {
	v, _, newest := newToy(t, "toy")
	require.NoError(t, taken(t, v.Set(configure("one"))))
	last := newest()
	v.supervisor.Stop()
	require.ErrorIs(t, taken(t, v.Set(configure("two"))), ErrStopped)
	require.NoError(t, taken(t, v.Set(nil)), "off it is")
	later := v.supervisor.NewService(toy("toy"), Options{})
	require.ErrorIs(t, taken(t, later.Set(&Desired{})), ErrStopped)
	later.Stop()
	require.ErrorIs(t, v.supervisor.Run(t.Context(), Job{Spec: toy("task"), Op: opTask}), ErrStopped)
	v.Stop()
	assert.Equal(t, Stopped, v.Status().State)
	assert.Same(t, last, newest(), "no process has been started")
}

// TestStopWhileItStarts: a service that is stopped while its process starts, takes its
// configuration or waits to be started again starts nothing more.
func TestStopWhileItStarts(t *testing.T) {
	for _, c := range []struct {
		name, service, word string
		state               State
	}{
		{"at once", "toy", "one", Off},
		{"takes its configuration", "toy", "hang", Starting},
		{"will start again", "crash", "", BackingOff},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, _, newest := newToy(t, c.service)
			change := v.Set(configure(c.word))
			if c.state != Off {
				eventually(t, func() bool { return v.Status().State == c.state }, "it is not %v", c.state)
			}
			v.Stop()
			assert.Equal(t, Stopped, v.Status().State)
			last := newest()
			select {
			case <-change.done:
			default:
				assert.Fail(t, "who waits for the change waits still")
			}
			assert.True(t, last == nil || last.hasEnded())
		})
	}
}

// TestSetDoesNotWait: neither a process that hangs nor one that cannot be started holds up who
// changes what is desired, or asks how it is.
func TestSetDoesNotWait(t *testing.T) {
	v, _, _ := newToy(t, "toy")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, v.Set(configure("hang")).Wait(ctx), context.DeadlineExceeded)
	eventually(t, func() bool { return v.Status().State == Starting }, "it does not start")
	require.EqualError(t, v.Health(), "toy does not run")
	require.ErrorIs(t, v.Set(configure("hang")).Wait(ctx), context.DeadlineExceeded)
	require.NoError(t, taken(t, v.Set(nil)), "one that hangs is ended")
}

// TestHang: a process that answers nothing is ended, and its successor started.
func TestHang(t *testing.T) {
	v, log, newest := newToy(t, "toy")
	v.question = 20 * time.Millisecond // of ours; nothing has asked yet
	require.NoError(t, taken(t, v.Set(configure("one"))))
	stopped := newest()
	require.NoError(t, unix.Kill(stopped.pid(t), unix.SIGSTOP))
	eventually(t, func() bool { return stopped.hasEnded() }, "it was not ended")
	assert.Contains(t, log.String(), "<3>toy hangs: it is ended\n")
	assert.Contains(t, log.String(), "toy: no answer to 5 questions; starting it again")
	eventually(t, func() bool { return v.Status().State == Running }, "no second process")
	assert.NotSame(t, stopped, newest())
}

// TestLate: a process that answers nothing for a while, but less than to hang, is left alone,
// and takes what was desired meanwhile.
func TestLate(t *testing.T) {
	v, log, newest := newToy(t, "toy")
	require.NoError(t, taken(t, v.Set(configure("one"))))
	pid := newest().pid(t)
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	eventually(t, func() bool { return processState(t, pid) == "T" }, "it was not stopped")
	change := v.Set(configure("two"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, change.Wait(ctx), context.DeadlineExceeded)
	require.NoError(t, unix.Kill(pid, unix.SIGCONT))
	require.NoError(t, taken(t, change))
	assert.Equal(t, pid, v.Parent().(*toyParent).pid(t))
	assert.NotContains(t, log.String(), "hangs")
}

// processState is the third word of /proc/PID/stat.
func processState(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	return string(text[strings.LastIndex(string(text), ")")+2])
}

func TestFreshProcessFails(t *testing.T) {
	for _, c := range []struct{ name, service, word, err, log string }{
		{"refuses its configuration", "toy", "refuse", "toy: refused", "<4>toy: toy: refused; starting it again in 50ms"},
		{"dies of its configuration", "toy", "die", "toy ended with exit status 7", "<4>toy: it ended with exit status 7; starting it again in 50ms"},
		{"crashes", "crash", "", "crash ended with exit status 1", "toy: crashed\n<4>crash: it ended with exit status 1; starting it again in 50ms"},
		{"breaks the protocol", "breaker", "", "", "<4>breaker: breach of the control protocol: a frame that is none; starting"},
		{"closes its link", "closer", "", "", "<4>closer: it closed its control link; starting it again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, log, _ := newToy(t, c.service)
			change := v.Set(configure(c.word))
			if c.err != "" {
				require.EqualError(t, taken(t, change), c.err)
				require.ErrorContains(t, v.Health(), c.service+" does not run")
			}
			eventually(t, func() bool { return strings.Contains(log.String(), c.log) }, "not in the log")
			eventually(t, func() bool { return v.Status().Restarts > 1 }, "it is not started again")
		})
	}
	t.Run("there is no program", func(t *testing.T) {
		v, _, _ := newToy(t, "toy")
		v.supervisor.Program = filepath.Join(t.TempDir(), "absent")
		require.ErrorContains(t, taken(t, v.Set(configure("one"))), "start toy: fork/exec ")
	})
}

// TestMayEnd: to end is no error, and no reason for a line in the log.
func TestMayEnd(t *testing.T) {
	v, log, newest := newToy(t, "once")
	v.Set(&Desired{})
	eventually(t, func() bool { return newest() != nil }, "no process")
	first := newest()
	eventually(t, func() bool { return newest() != first }, "no second process")
	assert.Empty(t, log.String())
	assert.Zero(t, v.Status().Restarts)
}

func TestBackoff(t *testing.T) {
	var b backoff
	var pauses []time.Duration
	for _, life := range []time.Duration{0, 0, time.Second, time.Minute, 0} {
		pauses = append(pauses, b.next(life)/firstPause)
	}
	assert.Equal(t, []time.Duration{1, 2, 4, 1, 2}, pauses)
	for range 20 {
		b.next(0)
	}
	assert.Equal(t, longPause, b.next(0))
}

// listenTCP returns a listening socket as PID 1 has it, and its address.
func listenTCP(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().String()
}

// call connects, and returns the connection and the id of the process that serves it.
func call(t *testing.T, address string) (net.Conn, string) {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	return conn, strings.TrimSpace(line)
}

// TestSleeper: the process starts with the first connection, which it serves, and ends when it
// is idle. Nobody who calls is refused.
func TestSleeper(t *testing.T) {
	v, _, newest := newToy(t, "sleeper")
	listener, address := listenTCP(t)
	desired := &Desired{Listeners: []*os.File{listener}, Configure: func(ctx context.Context, p Parent) error {
		return p.(*toyParent).link.Call(ctx, opListen, nil, nil, listener)
	}}
	require.NoError(t, taken(t, v.Set(desired)))
	assert.Equal(t, Sleeping, v.Status().State)
	require.NoError(t, v.Health())
	assert.Nil(t, newest(), "nobody has called")

	conn, first := call(t, address)
	_, second := call(t, address)
	assert.Equal(t, first, second, "one process serves both")
	eventually(t, func() bool { return v.Status().State == Running }, "it does not run")
	require.NoError(t, conn.Close())
	_, third := call(t, address)
	assert.Equal(t, first, third, "there has always been a connection")
}

func TestSleeperEndsIdle(t *testing.T) {
	v, log, _ := newToy(t, "sleeper")
	listener, address := listenTCP(t)
	require.NoError(t, taken(t, v.Set(&Desired{Listeners: []*os.File{listener}, Configure: func(ctx context.Context, p Parent) error {
		return p.(*toyParent).link.Call(ctx, opListen, nil, nil, listener)
	}})))
	pids := map[string]bool{}
	for range 5 {
		conn, pid := call(t, address)
		_, err := io.WriteString(conn, "hello\n")
		require.NoError(t, err)
		echoed := make([]byte, 6)
		_, err = io.ReadFull(conn, echoed)
		require.NoError(t, err)
		assert.Equal(t, "hello\n", string(echoed))
		require.NoError(t, conn.Close())
		eventually(t, func() bool { return v.Status().State == Sleeping }, "it does not end when it is idle")
		pids[pid] = true
	}
	assert.Len(t, pids, 5, "a process each time")
	assert.Empty(t, log.String(), "and not a word")

	// What is desired can change while it sleeps, and it can be turned off.
	other, otherAddress := listenTCP(t)
	require.NoError(t, taken(t, v.Set(&Desired{Listeners: []*os.File{other}, Configure: func(ctx context.Context, p Parent) error {
		return p.(*toyParent).link.Call(ctx, opListen, nil, nil, other)
	}})))
	_, pid := call(t, otherAddress)
	assert.NotEmpty(t, pid)
	require.NoError(t, taken(t, v.Set(nil)))
	assert.Equal(t, Off, v.Status().State)
}

// acceptRig is an Acceptor that listens, and PID 1's copy of the listening socket.
type acceptRig struct {
	*testing.T
	*Acceptor
	address string
	copied  *os.File
	done    chan struct{} // closed when the Acceptor has ended
}

// echoing serves a connection.
func echoing(conn *net.TCPConn) func() { return func() { io.Copy(conn, conn) } }

func newAcceptRig(t *testing.T, idle time.Duration, admit func(*net.TCPConn) (serve func())) *acceptRig {
	ctx, cancel := context.WithCancel(t.Context())
	c := &Child{ctx: ctx, stop: cancel}
	g := &acceptRig{T: t, Acceptor: c.NewAcceptor(idle, admit), done: make(chan struct{})}
	g.copied, g.address = listenTCP(t)
	g.listen(g.copied)
	go func() {
		defer close(g.done)
		g.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		await(t, g.done, "the end")
	})
	return g
}

// listen has the Acceptor accept at a copy of a listening socket.
func (g *acceptRig) listen(f *os.File) {
	l, err := net.FileListener(f)
	require.NoError(g, err)
	g.Listen(l.(*net.TCPListener))
}

// dial connects. The connection waits in the kernel's queue until it is accepted.
func (g *acceptRig) dial() net.Conn {
	g.Helper()
	conn, err := net.Dial("tcp4", g.address)
	require.NoError(g, err)
	g.Cleanup(func() { conn.Close() })
	require.NoError(g, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// echoes expects that a connection is served.
func (g *acceptRig) echoes(conn net.Conn) {
	g.Helper()
	_, err := conn.Write([]byte{7})
	require.NoError(g, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(g, err)
}

// isClosed expects that the other end has closed a connection.
func (g *acceptRig) isClosed(conn net.Conn) {
	g.Helper()
	_, err := conn.Read(make([]byte, 1))
	require.Error(g, err)
	require.NotErrorIs(g, err, os.ErrDeadlineExceeded)
}

// isIdle does what happens when there has been no connection for the idle time.
func (g *acceptRig) isIdle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end()
}

// TestAccept: which connections are served, and what ends it.
func TestAccept(t *testing.T) {
	t.Run("told to end", func(t *testing.T) {
		g := newAcceptRig(t, time.Hour, echoing)
		first, second := g.dial(), g.dial()
		g.echoes(first)
		g.echoes(second)
		require.NoError(t, first.Close())
		g.child.Stop()
		await(t, g.done, "the end")
		g.isClosed(second)
	})
	t.Run("idle", func(t *testing.T) {
		g := newAcceptRig(t, 10*time.Millisecond, echoing)
		await(t, g.done, "the end")
		require.NoError(t, g.child.Context().Err())
		require.NoError(t, g.copied.Close())
		_, err := net.Dial("tcp4", g.address)
		require.ErrorIs(t, err, unix.ECONNREFUSED, "the listener is closed")
	})
	t.Run("not admitted", func(t *testing.T) {
		admitted := make(chan bool, 2)
		g := newAcceptRig(t, time.Hour, func(conn *net.TCPConn) func() {
			if !<-admitted {
				return nil
			}
			return echoing(conn)
		})
		first, second := g.dial(), g.dial()
		admitted <- false
		g.isClosed(first)
		admitted <- true
		g.echoes(second)
	})
	t.Run("another listener", func(t *testing.T) {
		g := newAcceptRig(t, time.Hour, echoing)
		before := g.dial()
		g.echoes(before)
		old := g.address
		require.NoError(t, g.copied.Close())
		var other *os.File
		other, g.address = listenTCP(t)
		g.listen(other)
		g.echoes(g.dial())
		g.echoes(before)
		_, err := net.Dial("tcp4", old)
		require.ErrorIs(t, err, unix.ECONNREFUSED)
		g.child.Stop()
		await(t, g.done, "the end")
		g.listen(other)
		require.NoError(t, other.Close())
		_, err = net.Dial("tcp4", g.address)
		require.ErrorIs(t, err, unix.ECONNREFUSED, "one that comes after the end is closed")
	})
	// The idle time ends while a connection is being accepted.
	for _, admitted := range []bool{true, false} {
		t.Run(fmt.Sprintf("idle, and a connection comes, admitted: %v", admitted), func(t *testing.T) {
			accepted, decided := make(chan struct{}, 2), make(chan struct{})
			g := newAcceptRig(t, time.Hour, func(conn *net.TCPConn) func() {
				accepted <- struct{}{}
				<-decided
				if !admitted {
					return nil
				}
				return echoing(conn)
			})
			first := g.dial()
			await(t, accepted, "the first connection")
			second := g.dial()
			g.isIdle()
			close(decided)
			if admitted {
				g.echoes(first)
				g.echoes(second)
				return
			}
			await(t, g.done, "the end")
			g.isClosed(first)
			l, err := net.FileListener(g.copied)
			require.NoError(t, err)
			defer l.Close()
			conn, err := l.Accept()
			require.NoError(t, err)
			defer conn.Close()
			assert.Equal(t, second.LocalAddr().String(), conn.RemoteAddr().String(), "it waited for the next process")
		})
	}
}

// TestActivity: a connection that is older than the idle time lives on.
func TestActivity(t *testing.T) {
	ended := make(chan struct{})
	a := &activity{idle: 10 * time.Millisecond, end: func() { close(ended) }}
	a.wait()
	a.enter()
	a.enter()
	a.leave()
	select {
	case <-ended:
		require.Fail(t, "it ended with someone in")
	case <-time.After(100 * time.Millisecond):
	}
	a.leave()
	await(t, ended, "the end")
}

// pseudoTerminal returns the master of a terminal, and the path of its slave.
func pseudoTerminal(t *testing.T) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

func TestTerminal(t *testing.T) {
	master, path := pseudoTerminal(t)
	s, _ := newSupervisor(t)
	v := s.NewService(toy("terminal"), Options{Terminal: path})
	require.NoError(t, taken(t, v.Set(&Desired{})))
	line, err := bufio.NewReader(master).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "foreground: true\r\n", line)

	absent := s.NewService(toy("terminal"), Options{Terminal: "/dev/pts/none", Label: "absent"})
	require.ErrorContains(t, taken(t, absent.Set(&Desired{})), "start terminal: open /dev/pts/none")
}

// TestProgram runs another program, as a debug image does on its terminal.
func TestProgram(t *testing.T) {
	master, path := pseudoTerminal(t)
	s, log := newSupervisor(t)
	v := s.NewService(Spec{Name: "shell", Program: "/bin/sh", MayEnd: true}, Options{Terminal: path})
	require.NoError(t, taken(t, v.Set(&Desired{})))
	_, err := master.WriteString("echo called $0; exit\n")
	require.NoError(t, err)
	lines := bufio.NewReader(master)
	for line := ""; line != "called /bin/sh\r\n"; { // behind the echo
		line, err = lines.ReadString('\n')
		require.NoError(t, err)
		line = line[max(0, strings.Index(line, "called /")):]
	}
	eventually(t, func() bool { return v.Status().State == BackingOff }, "it has not ended")
	assert.Empty(t, log.String())
}

// runTask runs the task with these words, and returns what it told and its reply.
func runTask(ctx context.Context, s *Supervisor, words ...string) (told []string, reply string, err error) {
	var e Encoder
	e.Strings(words)
	err = s.Run(ctx, Job{Spec: toy("task"), Op: opTask, Body: e.Bytes(),
		Decode: func(d *Decoder) { reply = d.String(10) },
		Handle: func(_ context.Context, r *Request) ([]byte, error) {
			told = append(told, r.String(100))
			return nil, nil
		}})
	return told, reply, err
}

func TestRun(t *testing.T) {
	s, _ := newSupervisor(t)
	told, reply, err := runTask(t.Context(), s, "one", "two")
	require.NoError(t, err)
	assert.Equal(t, []string{"one", "two"}, told)
	assert.Equal(t, "done", reply)

	told, _, err = runTask(t.Context(), s, "one", "fail")
	require.Equal(t, RemoteError("task: failed"), err)
	assert.Equal(t, []string{"one"}, told)
	_, _, err = runTask(t.Context(), s, "die")
	require.EqualError(t, err, "task was ended by signal 9 (killed)")
	_, _, err = runTask(t.Context(), s, "breach")
	require.ErrorIs(t, err, ErrBreach)
	err = s.Run(t.Context(), Job{Spec: toy("task"), Op: opTask, Body: []byte{1, 0}})
	require.ErrorIs(t, err, ErrBreach, "it asks, and there is nobody to answer")

	var printed strings.Builder
	var e Encoder
	e.Strings([]string{"print"})
	job := Job{Spec: toy("task"), Op: opTask, Body: e.Bytes(), Decode: func(d *Decoder) { _ = d.String(10) }, Output: &printed}
	require.NoError(t, s.Run(t.Context(), job))
	assert.Equal(t, strings.Repeat("x", maxOutput)+"?[2J\n", printed.String())
	job.Output = failingWriter{}
	require.Equal(t, RemoteError("nobody reads"), s.Run(t.Context(), job))

	t.Run("is told to end, and has a last word", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan string, 2)
		done := make(chan error, 1)
		var e Encoder
		e.Strings([]string{"one", "wait"})
		go func() {
			done <- s.Run(ctx, Job{Spec: toy("task"), Op: opTask, Body: e.Bytes(), Decode: func(d *Decoder) { _ = d.String(10) },
				Handle: func(_ context.Context, r *Request) ([]byte, error) {
					told <- r.String(100)
					return nil, nil
				}})
		}()
		assert.Equal(t, "one", <-told)
		cancel()
		require.NoError(t, <-done)
		assert.Equal(t, "told to end", <-told)
	})
	t.Run("does not end, and is killed", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("a key was pressed")
		err := s.Run(ctx, Job{Spec: toy("stubborn"), Op: opTask, Handle: func(_ context.Context, r *Request) ([]byte, error) {
			cancel(why)
			_ = r.Uint(0)
			return nil, nil
		}})
		require.ErrorIs(t, err, why)
	})
	t.Run("all are stopped", func(t *testing.T) {
		s, _ := newSupervisor(t)
		done := make(chan error, 1)
		began := make(chan struct{}, 2)
		var e Encoder
		e.Strings([]string{"one", "wait"})
		go func() {
			done <- s.Run(t.Context(), Job{Spec: toy("task"), Op: opTask, Body: e.Bytes(), Decode: func(d *Decoder) { _ = d.String(10) },
				Handle: func(_ context.Context, r *Request) ([]byte, error) {
					_ = r.String(100)
					began <- struct{}{}
					return nil, nil
				}})
		}()
		await(t, began, "the task")
		s.Stop()
		require.NoError(t, <-done)
	})
	t.Run("nobody takes its output", func(t *testing.T) {
		s, log := newSupervisor(t)
		writing, release := make(chan struct{}), make(chan struct{})
		var e Encoder
		e.Strings([]string{"print"})
		done := make(chan error, 1)
		go func() {
			done <- s.Run(t.Context(), Job{Spec: toy("task"), Op: opTask, Body: e.Bytes(), Decode: func(d *Decoder) { _ = d.String(10) },
				Output: writerFunc(func(p []byte) (int, error) {
					close(writing)
					<-release
					return 0, errors.New("gone")
				})})
		}()
		await(t, writing, "its output")
		s.tasksTime = time.Millisecond
		s.Stop() // does not wait for it
		assert.Contains(t, log.String(), "does not end")
		close(release)
		require.Error(t, <-done)
	})
	t.Run("there is no program", func(t *testing.T) {
		s, _ := newSupervisor(t)
		s.Program = filepath.Join(t.TempDir(), "absent")
		_, _, err := runTask(t.Context(), s)
		require.ErrorContains(t, err, "start task: ")
	})
}

// TestSimulate: a job done in this process, as one of its own does it.
func TestSimulate(t *testing.T) {
	var told []string
	link, ended, err := Simulate(t.Context(), toy("task"), func(*Link) Handler {
		return Job{Output: writerFunc(func(p []byte) (int, error) { told = append(told, string(p)); return len(p), nil }),
			Handle: func(_ context.Context, r *Request) ([]byte, error) {
				told = append(told, r.String(100))
				return nil, nil
			}}.handle
	})
	require.NoError(t, err)
	var e Encoder
	e.Strings([]string{"one", "print"})
	require.NoError(t, link.Call(t.Context(), opTask, e.Bytes(), func(d *Decoder) { assert.Equal(t, "done", d.String(10)) }))
	link.Close()
	<-link.Done()
	require.NoError(t, <-ended)
	assert.Equal(t, []string{"one", strings.Repeat("x", maxOutput), "?[2J\n"}, told)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestTable(t *testing.T) {
	uids := map[uint32]string{}
	for _, s := range toys {
		assert.Empty(t, uids[s.uid], "of %s too", s.Name)
		assert.GreaterOrEqual(t, s.uid, uint32(firstUID))
		uids[s.uid] = s.Name
	}
	_, ok := toys.Find("nothing")
	assert.False(t, ok)
	assert.Panics(t, func() { NewTable(Spec{Name: "a"}, Spec{Name: "a"}) })
	assert.Panics(t, func() { NewTable(Spec{}) })
	assert.Equal(t, "backing off", BackingOff.String())
}

// TestAwaitEnd: the flags of the descriptor are those of exec's own, which shall wait if this one does not.
func TestAwaitEnd(t *testing.T) {
	pidfd := -1
	process, err := os.StartProcess("/proc/self/exe", []string{"test", "-test.list=none"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &pidfd}})
	require.NoError(t, err)
	require.GreaterOrEqual(t, pidfd, 0, "the kernel has pidfd_open(2), since 5.3")
	second, err := unix.Dup(pidfd)
	require.NoError(t, err)
	defer unix.Close(second)
	awaitEnd(pidfd)
	flags, err := unix.FcntlInt(uintptr(second), unix.F_GETFL, 0)
	require.NoError(t, err)
	assert.Zero(t, flags&unix.O_NONBLOCK)
	_, err = process.Wait()
	require.NoError(t, err)
}

// TestEndedForMemory: the kernel is told whose process to end first when memory is short, and who begins before
// anybody has said so is PID 1, which it never ends.
func TestEndedForMemory(t *testing.T) {
	v, _, newest := newToy(t, "toy")
	require.NoError(t, taken(t, v.Set(configure("one"))))
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", newest().pid(t)))
	require.NoError(t, err)
	assert.Equal(t, "200\n", string(score))
	specs := []Spec{{Start: Task}, {Start: OnConnection}, {}, {EndLast: true}}
	for i, s := range specs[1:] {
		assert.Less(t, s.oomScore(), specs[i].oomScore())
	}
	assert.Positive(t, Spec{EndLast: true}.oomScore(), "what PID 1 runs besides goes after all of them")
}

// TestAllAreAsked: a process that is started by a connection is asked whether it is well, too.
func TestAllAreAsked(t *testing.T) {
	v, _, _ := newToy(t, "sleeper")
	assert.NotNil(t, v.nextQuestion(nil))
}
