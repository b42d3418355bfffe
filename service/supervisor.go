package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Levels of Log.Printf, those of syslog (RFC 5424, section 6.2.1).
const (
	levelError   = 3
	levelWarning = 4
	levelNotice  = 5
)

// Log takes lines of the router's log: Write those of a process, one or more at once.
type Log interface {
	io.Writer
	Printf(level int, format string, args ...any)
}

// ErrStopped is the error of starting something after Stop.
var ErrStopped = errors.New("the services have been stopped")

// Supervisor starts processes, and ends all of them when it is stopped.
type Supervisor struct {
	// Program is the file that each process runs, under the name of its Spec.
	Program string
	// Table has all Specs that there are. It gives them their users.
	Table Table
	// Roots is a folder for the root folders of processes, which Start makes: each holds the
	// program alone, and nothing in there can be written to. If it is empty a process has its
	// parent's root and user, as in tests.
	Roots string
	// Log returns the log for lines about a topic.
	Log func(topic string) Log

	// tasksTime is defaultTasksTime, but in tests.
	tasksTime time.Duration

	mu       sync.Mutex
	stopped  bool
	services []*Service
	tasks    sync.WaitGroup
	cancel   map[*process]context.CancelFunc // of tasks
	rooted   map[string]bool                 // names of services with a root folder
}

// process is one life of a service.
type process struct {
	spec    Spec
	cmd     *exec.Cmd
	link    *Link // nil of a Program
	began   time.Time
	exited  chan struct{} // closed when it is gone and was waited for
	waitErr error         // of exec.Cmd.Wait, when exited is closed
}

// start starts a process. terminal, unless it is empty, is the device that it has as standard
// input, output and error, and controls. attach gets the link and returns what serves it.
func (s *Supervisor) start(spec Spec, terminal string, attach func(*Link) Handler) (*process, error) {
	p := &process{spec: spec, exited: make(chan struct{}), began: time.Now()}
	fail := func(err error) (*process, error) {
		if p.link != nil {
			p.link.conn.Close()
		}
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	log := lines{s.Log(spec.topic())}
	p.cmd = &exec.Cmd{
		Path: s.Program, Args: []string{spec.Name}, Env: []string{}, Dir: "/", Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{}, WaitDelay: outputDelay,
	}
	switch {
	case spec.Program != "":
		// By its own name, which some programs go by.
		p.cmd.Path, p.cmd.Args = spec.Program, []string{spec.Program}
		p.cmd.Env = []string{"PATH=/sbin:/bin:/bbin", "HOME=/", "TERM=vt100"}
	case s.Roots != "":
		known, ok := s.Table.Find(spec.Name)
		if !ok {
			return fail(errors.New("it is not in the table of services, which gives it its user"))
		}
		root, err := s.root(spec.Name)
		if err != nil {
			return fail(err)
		}
		p.cmd.Path = "/" + spec.Name // which tells what the process is, in lists of processes
		p.cmd.SysProcAttr.Chroot = root
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: known.uid, Gid: known.uid}
	}
	if terminal != "" {
		f, err := os.OpenFile(terminal, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return fail(err)
		}
		defer f.Close()
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = f, f, f
		p.cmd.SysProcAttr.Setsid, p.cmd.SysProcAttr.Setctty = true, true
	}
	if spec.Program == "" {
		parent, child, err := socketPair()
		if err != nil {
			return fail(err)
		}
		defer child.Close()
		if p.link, err = newLink(parent, spec.maxMessage()); err != nil {
			return fail(err)
		}
		p.cmd.ExtraFiles = []*os.File{child}
	}
	pidfd := -1
	p.cmd.SysProcAttr.PidFD = &pidfd
	if err := p.cmd.Start(); err != nil {
		return fail(err)
	}
	// One that has ended already has none, and where proc is not there the kernel ends what is largest.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.cmd.Process.Pid), strconv.AppendInt(nil, int64(spec.oomScore()), 10), 0)
	if p.link != nil {
		p.link.start(context.Background(), attach(p.link))
	}
	go func() {
		awaitEnd(pidfd)
		p.waitErr = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// maxLine is how long a line of a process may be, in bytes; a longer one is logged as several. The kernel's log takes 1,024 in one.
const maxLine = 1 << 10

// lines has what a process prints logged line by line. By itself package exec copies in pieces of 32 KiB, wherever they end, and
// keeps room for one as long as the process runs.
type lines struct{ Log }

// ReadFrom logs all that comes.
func (l lines) ReadFrom(r io.Reader) (read int64, err error) {
	text := make([]byte, 0, maxLine)
	for err == nil {
		var n int
		n, err = r.Read(text[len(text):maxLine])
		read += int64(n)
		text = text[:len(text)+n]
		whole := bytes.LastIndexByte(text, '\n') + 1
		if whole == 0 && len(text) == maxLine || err != nil {
			whole = len(text)
		}
		if whole == 0 {
			continue
		}
		if _, failed := l.Write(text[:whole]); failed != nil {
			return read, failed
		}
		text = text[:copy(text, text[whole:])]
	}
	if err == io.EOF {
		err = nil
	}
	return read, err
}

// awaitEnd returns when the process of a descriptor (pidfd_open(2)) has ended, and closes it. exec.Cmd.Wait,
// which can follow at any time, would keep a thread waiting for as long as the process runs, 20 kB of PID 1.
func awaitEnd(pidfd int) {
	if pidfd < 0 || unix.SetNonblock(pidfd, true) != nil {
		return
	}
	f := os.NewFile(uintptr(pidfd), "process")
	defer f.Close()
	// exec's own descriptor is a duplicate: without this its wait would not wait where the poller could not.
	defer unix.SetNonblock(pidfd, false)
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Read(readable)
	}
}

const (
	// outputDelay is how long the last output of a process that is gone is waited for.
	outputDelay = 5 * time.Second
	// killTime is how long the end of a process that was killed is waited for: one that the
	// kernel does not let go, because of a device that hangs, must hold nothing else up.
	killTime = 5 * time.Second
)

// root makes the root folder of a service, if it is not there yet, and returns its path.
func (s *Supervisor) root(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	folder := filepath.Join(s.Roots, name)
	if s.rooted[name] {
		return folder, nil
	}
	program := filepath.Join(folder, name)
	if err := os.MkdirAll(folder, 0o555); err != nil {
		return "", fmt.Errorf("root folder: %w", err)
	}
	if err := os.WriteFile(program, nil, 0o444); err != nil {
		return "", fmt.Errorf("root folder: %w", err)
	}
	if err := unix.Mount(s.Program, program, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("root folder: bind %s: %w", program, err)
	}
	// The kernel takes these flags of a bind mount only when it is there.
	const flags = unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", program, "", flags, ""); err != nil {
		return "", errors.Join(fmt.Errorf("root folder: make %s read-only: %w", program, err), unix.Unmount(program, 0))
	}
	if s.rooted == nil {
		s.rooted = map[string]bool{}
	}
	s.rooted[name] = true
	return folder, nil
}

// linkEnded is closed when the link has ended; nil, which never is, without a link.
func (p *process) linkEnded() <-chan struct{} {
	if p.link == nil {
		return nil
	}
	return p.link.Done()
}

// end ends a process in order: it is told to, and if that takes longer than its stop time, killed.
// It returns an error if the process is there still.
func (p *process) end() error {
	ctx, cancel := WithTimeout(context.Background(), p.spec.stopTime())
	defer cancel()
	p.tellToEnd(ctx)
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return p.kill()
	}
}

// tellToEnd tells a process to end in order, which one that is gone need not be told. It waits for one that
// does not read, until ctx ends.
func (p *process) tellToEnd(ctx context.Context) {
	if p.link != nil {
		_ = p.link.tellToEnd(ctx)
		return
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
}

// kill ends a process at once.
func (p *process) kill() error {
	_ = p.cmd.Process.Kill()
	if !p.awaitExit(killTime) {
		return fmt.Errorf("%s does not end, though it was killed", p.spec.Name)
	}
	return nil
}

// awaitExit waits for the end of a process, and reports whether it came in time.
func (p *process) awaitExit(d time.Duration) bool {
	ctx, cancel := WithTimeout(context.Background(), d)
	defer cancel()
	select {
	case <-p.exited:
		return true
	case <-ctx.Done():
		return false
	}
}

// how says how a process that is gone has ended: "ended with exit status 1".
func (p *process) how() string {
	state := p.cmd.ProcessState
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return "ended"
	case status.Signaled():
		return fmt.Sprintf("was ended by signal %d (%v)", status.Signal(), status.Signal())
	case status.ExitStatus() == 0:
		return "ended by itself"
	}
	return fmt.Sprintf("ended with exit status %d", status.ExitStatus())
}

// Job is what a process of a Spec with Start Task is asked once.
type Job struct {
	Spec Spec
	// Op and Body are the request, and Files go with it; Decode reads the reply, see Link.Call.
	Op     byte
	Body   []byte
	Files  []*os.File
	Decode func(*Decoder)
	// Output takes what the process writes to Child.Output, nil if it writes nothing. A Write
	// that waits holds the process up.
	Output io.Writer
	// Handle serves what the process asks meanwhile; nil if it has nothing to ask.
	Handle Handler
}

// handle is the Handler of a job.
func (j Job) handle(ctx context.Context, r *Request) ([]byte, error) {
	switch {
	case r.Op == opOutput && j.Output != nil:
		_, err := io.WriteString(j.Output, printable(r.String(maxOutput)))
		return nil, err
	case j.Handle != nil:
		return j.Handle(ctx, r)
	}
	return nil, fmt.Errorf("%w: a request", ErrBreach)
}

// printable is a text without what would do more to a terminal than be shown.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// Run starts a process, has it do a job and ends it. It returns the error of the process's
// handler, a RemoteError, if that is what it replied. When ctx ends, the process is told to
// end, which the reply may still tell of; if there is none in the Spec's stop time the
// process is killed and the error is that of ctx.
func (s *Supervisor) Run(ctx context.Context, j Job) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return ErrStopped
	}
	s.tasks.Add(1)
	defer s.tasks.Done()
	s.mu.Unlock()
	p, err := s.start(j.Spec, "", func(*Link) Handler { return j.handle })
	if err != nil {
		return err
	}
	if !s.register(p, cancel) {
		cancel()
	}
	defer s.unregister(p)
	replied := make(chan error, 1)
	go func() { replied <- p.link.Call(context.Background(), j.Op, j.Body, j.Decode, j.Files...) }()
	select {
	case err = <-replied:
	case <-ctx.Done():
		limit, stop := WithTimeout(context.Background(), j.Spec.stopTime())
		p.tellToEnd(limit)
		select {
		case err = <-replied:
		case <-limit.Done():
			err = context.Cause(ctx)
		}
		stop()
	}
	broke := p.link.Err()
	p.link.Close() // which is the process's end, too
	endErr := p.end()
	<-p.link.Done()
	switch {
	case errors.Is(err, ErrGone) && ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, ErrGone) && broke != nil:
		err = fmt.Errorf("%s: %w", j.Spec.Name, broke)
	case errors.Is(err, ErrGone) && endErr == nil:
		err = fmt.Errorf("%s %s", j.Spec.Name, p.how())
	}
	if endErr != nil {
		s.Log(j.Spec.topic()).Printf(levelError, "%v", endErr)
	}
	return err
}

// register remembers a task, unless all have been told to end.
func (s *Supervisor) register(p *process, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil {
		s.cancel = map[*process]context.CancelFunc{}
	}
	s.cancel[p] = cancel
	return !s.stopped
}

func (s *Supervisor) unregister(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cancel, p)
}

// Stop ends all processes, in order, and returns when they are gone or were given up. Nothing
// starts after it.
func (s *Supervisor) Stop() {
	s.mu.Lock()
	s.stopped = true
	services := s.services
	for _, cancel := range s.cancel {
		cancel()
	}
	s.mu.Unlock()
	var ending sync.WaitGroup
	for _, service := range services {
		ending.Go(service.Stop)
	}
	ending.Wait()
	// A job ends when its process is gone and who reads its output has taken what is there: that
	// one may be slow.
	done := make(chan struct{})
	go func() {
		s.tasks.Wait()
		close(done)
	}()
	ctx, cancel := WithTimeout(context.Background(), orDefault(s.tasksTime, defaultTasksTime))
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		s.Log("system").Printf(levelError, "a process or who reads its output does not end")
	}
}

// defaultTasksTime is how long Stop waits for jobs: longer than it takes to end their processes.
const defaultTasksTime = defaultStopTime + 2*killTime
