package terminal

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/u-root/u-root/pkg/termios"
	"golang.org/x/sys/unix"
)

// retry is the pause between two attempts to reach the server.
const retry = 500 * time.Millisecond

// Run is the process of a console: it talks to the server at socketPath from in and out. If
// both are a terminal it is put into raw mode; else their lines are read as they come. If the
// server is not there, or goes, Run says so and tries again for as long as it takes. It
// returns nil when the session is over.
func Run(socketPath string, in io.Reader, out io.Writer) error {
	var width func() int
	if raw, ok := bothTerminals(in, out); ok {
		// Before the first read, which otherwise waits for a whole line.
		old, err := termios.GetTermios(raw)
		if err == nil {
			err = termios.SetTermios(raw, termios.MakeRaw(old))
		}
		if err != nil {
			return fmt.Errorf("%w: raw mode: %w", errTerminal, err)
		}
		defer termios.SetTermios(raw, old)
		width = func() int {
			// Not by termios.GetWinSize (v0.16.0): it panics if the terminal was hung up.
			size, err := unix.IoctlGetWinsize(int(raw), unix.TIOCGWINSZ)
			if err != nil {
				return 0
			}
			return int(size.Col)
		}
	}
	t := New(in, out, width)
	defer t.Close()
	for {
		conn, err := t.dial(socketPath)
		if err != nil {
			return err
		}
		err = t.Talk(conn)
		conn.Close()
		if err == nil || errors.Is(err, errTerminal) {
			return err
		}
		if err := t.show("\nConnection to the router lost; the last line may have had no effect.\n"); err != nil {
			return err
		}
		time.Sleep(retry)
	}
}

// dial connects to the server, however long that takes.
func (t *Terminal) dial(socketPath string) (net.Conn, error) {
	for told := false; ; told = true {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socketPath, Net: "unix"})
		if err == nil {
			return conn, nil
		}
		if !told {
			if err := t.show("Waiting for the router: " + err.Error() + "\n"); err != nil {
				return nil, err
			}
		}
		time.Sleep(retry)
	}
}

// bothTerminals reports whether in and out are terminals, and returns in's descriptor.
func bothTerminals(in io.Reader, out io.Writer) (fd uintptr, ok bool) {
	i, isFile := in.(*os.File)
	o, alsoFile := out.(*os.File)
	if !isFile || !alsoFile {
		return 0, false
	}
	for _, f := range []*os.File{i, o} {
		if _, err := termios.GetTermios(f.Fd()); err != nil {
			return 0, false
		}
	}
	return i.Fd(), true
}
