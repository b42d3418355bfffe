package service

import (
	"context"
	"fmt"
	"time"
)

// Start is when a service's process runs.
type Start int

const (
	// WhileEnabled is for as long as the service is enabled.
	WhileEnabled Start = iota
	// OnConnection is from the first connection to one of its listening sockets, or the first
	// packet for one of others, until it ends by itself because it is idle. The sockets are PID 1's.
	OnConnection
	// Task is a process with one request, which ends when it has replied: it is for
	// Supervisor.Run.
	Task
)

// Spec is a service as a value: how its process is run, by both ends. The process has no
// file but its program and those that it is handed, a user of its own without capabilities,
// and only the system calls of Calls.
type Spec struct {
	// Name is the process's name, by which the program knows what to be (argv[0]).
	Name string
	// Topic is what its lines of the log are about; Name, if it is empty.
	Topic string
	Start Start
	// Main is the process, after it has confined itself. It returns when the context of the
	// Child has ended, or it has nothing to do any more.
	Main func(*Child) error
	// Calls are the system calls that it may make besides those of Go's runtime and the
	// control link.
	Calls Calls
	// Limits bound what it can take of the machine.
	Limits Limits
	// MaxMessage is how many bytes the body of a message of its link may have, either way;
	// 64 KiB if it is zero.
	MaxMessage int
	// AskEvery is how often a process is asked whether it is well, so that one that hangs is noticed and
	// ended; 15 s if it is zero. Alive asks; if it is nil the process has to serve its link, that is all.
	// A Task is not asked: who has it run waits for it, and can end it.
	AskEvery time.Duration
	Alive    func(ctx context.Context, p Parent) error
	// StopTime is what a process may take to end in order when it is told to, before it is killed;
	// 5 s if it is zero.
	StopTime time.Duration
	// LeastPause is the shortest time from the end of a process to its next start.
	LeastPause time.Duration
	// EndLast says that much is lost with the process: if memory is short the kernel ends others first.
	EndLast bool
	// MayEnd says that to end with status 0 is its right: it is started again without a word.
	MayEnd bool
	// Program, if it is not empty, is run in place of Postern's own, as root, with no link and
	// unconfined: for the shell of a debug image.
	Program string

	uid uint32
}

// Limits bound a process. Of whatever service, it leaves no core dump and has no more threads
// than maxThreads.
type Limits struct {
	// Files is how many descriptors it may have open; 32 if it is zero.
	Files int
	// Memory is to how many bytes Go's garbage collector keeps what it manages, if it can;
	// 8 MiB if it is zero. The kernel refuses memory for data above about twice that
	// (RLIMIT_DATA), with what Go takes at once on top.
	Memory int64
}

const (
	// firstUID is the user of the first service of a Table; its group has the same number.
	// Nothing else on the machine has these, and there is no file of users: only the numbers
	// matter.
	firstUID = 64000

	defaultFiles      = 32
	defaultMemory     = 8 << 20
	defaultMaxMessage = 64 << 10
	defaultStopTime   = 5 * time.Second
	defaultAskEvery   = 15 * time.Second
)

func (s Spec) topic() string {
	if s.Topic != "" {
		return s.Topic
	}
	return s.Name
}

func orDefault[T int | int64 | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

func (s Spec) files() int              { return orDefault(s.Limits.Files, defaultFiles) }
func (s Spec) memory() int64           { return orDefault(s.Limits.Memory, defaultMemory) }
func (s Spec) maxMessage() int         { return orDefault(s.MaxMessage, defaultMaxMessage) }
func (s Spec) stopTime() time.Duration { return orDefault(s.StopTime, defaultStopTime) }
func (s Spec) askEvery() time.Duration { return orDefault(s.AskEvery, defaultAskEvery) }

// oomScore is the process's oom_score_adj (proc(5)), in thousandths of the memory: by so much more of it than another
// it counts as having when the kernel looks for one to end. What can be asked for again goes first, then what
// waits for callers, who call again, then what runs always. PID 1 is never ended, and what else it starts, as
// iptables, has 0. The steps are small, so that a process that takes far more than the others goes before them
// whatever it is.
func (s Spec) oomScore() int {
	switch {
	case s.EndLast:
		return 100
	case s.Start == Task || s.Program != "":
		return 400
	case s.Start == OnConnection:
		return 300
	}
	return 200
}

// Table is the services of a program. Each has a user of its own.
type Table []Spec

// NewTable returns a table, in which each of specs has a user of its own. It panics if two
// have the same name.
func NewTable(specs ...Spec) Table {
	t := make(Table, 0, len(specs))
	for i, s := range specs {
		if _, twice := t.Find(s.Name); twice || s.Name == "" {
			panic(fmt.Sprintf("service: the name %q is not one service's", s.Name))
		}
		s.uid = firstUID + uint32(i)
		t = append(t, s)
	}
	return t
}

// Find returns the service of that name.
func (t Table) Find(name string) (Spec, bool) {
	for _, s := range t {
		if s.Name == name {
			return s, true
		}
	}
	return Spec{}, false
}
