package router

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/kmsg"
)

// The users of the processes that PID 1 starts. There is no file of them: only the numbers
// matter.
const (
	nobodyID  = 65534 // socksd: whom nothing belongs to
	consoleID = 65533 // console: who may connect to the session socket
)

const (
	debugShell     = "/bbin/gosh"
	debugShellWord = "postern.shell"
	socksdRoot     = "/run/socksd" // socksd's root folder
	socksdProgram  = "/socksd"     // the program, in there
)

// MakeCell makes the folder that socksd has for a root: it holds the program and
// nothing else, so that there is no file to open and no socket to call.
func MakeCell() error {
	program := socksdRoot + socksdProgram
	if err := os.Mkdir(socksdRoot, 0o555); err != nil {
		return fmt.Errorf("root of socksd: %w", err)
	}
	if err := os.WriteFile(program, nil, 0o444); err != nil {
		return fmt.Errorf("root of socksd: %w", err)
	}
	if err := unix.Mount(programPath, program, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("root of socksd: bind %s: %w", program, err)
	}
	return nil
}

// backoff is the pause before a process is started again: none after a long
// life, then longer with each quick end.
type backoff struct{ pause time.Duration }

const (
	firstPause = 50 * time.Millisecond
	longPause  = 10 * time.Second
	longLife   = 30 * time.Second
)

// next returns the pause after a life of that length.
func (b *backoff) next(life time.Duration) time.Duration {
	switch {
	case life >= longLife:
		b.pause = firstPause
	case b.pause == 0:
		b.pause = firstPause
	default:
		b.pause = min(2*b.pause, longPause)
	}
	return b.pause
}

// startConsoles keeps a console on each of the board's terminals.
func (r *Router) startConsoles(ctx context.Context) {
	name, credential := "/bin/console", &syscall.Credential{Uid: consoleID, Gid: consoleID}
	if r.shellWanted() {
		// A debug image only: there is no shell in the other.
		name, credential = debugShell, nil
	}
	for _, tty := range r.board.Consoles {
		go r.keepConsole(ctx, "/dev/"+tty, name, credential)
	}
}

// shellWanted reports whether the kernel's command line asks for a shell and the
// image has one.
func (r *Router) shellWanted() bool {
	if !r.hasWord(debugShellWord) {
		return false
	}
	_, err := os.Stat(debugShell)
	return err == nil
}

func (r *Router) keepConsole(ctx context.Context, tty, name string, credential *syscall.Credential) {
	var pause backoff
	for {
		start := time.Now()
		if err := runOnTerminal(ctx, tty, name, credential); err != nil && ctx.Err() == nil {
			r.log.Printf(kmsg.Warning, "console on %s: %v", tty, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.next(time.Since(start))):
		}
	}
}

// runOnTerminal runs a program as the leader of a session on a terminal, to its
// end.
func runOnTerminal(ctx context.Context, tty, name string, credential *syscall.Credential) error {
	f, err := os.OpenFile(tty, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
	cmd.Env = []string{"PATH=/sbin:/bin:/bbin", "HOME=/", "TERM=vt100"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Credential: credential}
	return cmd.Run()
}
