package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
)

// Examples of the lab.
const (
	exampleFTP  = "ftp"  // that of the manual
	exampleHome = "home" // a household
)

// lab shows an example on a board, and with a terminal leaves the user in control of it.
func lab(ctx context.Context, b board.Board, images string, kvm bool, shown string) (err error) {
	if err := sweep(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postern-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.close()
	o := machineOptions{image: filepath.Join(images, b.Name), kvm: kvm, reboot: true}
	var play func(m *machine) error
	if shown == exampleHome {
		say("A household, in namespaces of this machine: a provider, a web server, a computer without an address")
		h, err := startHousehold(n, filepath.Join(dir, "household"))
		if err != nil {
			return err
		}
		defer h.close()
		play = h.example
	} else {
		say("The network of the manual, in namespaces of this machine")
		s, err := startSite(n, filepath.Join(dir, "site"))
		if err != nil {
			return err
		}
		defer s.close()
		o.configuration = manualConfiguration(b)
		play = func(m *machine) error { return example(n, m, s) }
	}

	say("Booting %s: %s, %d MB", b.Name, b.Description, b.Memory)
	m, err := startMachine(b, n, dir, o)
	if err != nil {
		return err
	}
	defer m.kill()
	// Ctrl-C ends whatever the example waits for, QEMU included.
	stop := context.AfterFunc(ctx, n.killPrograms)
	defer stop()

	if err := play(m); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted")
		}
		return err
	}
	if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		say("Done. With a terminal, the lab would stay at the router's console.")
		return nil
	}
	say("The router's serial console. Ctrl-] ends the lab.")
	say("The client's shell, as root from another terminal: %s", n.enter(client))
	fmt.Printf("After /password at the router: ssh admin@%s\n", lanAddress)
	return m.interact(ctx)
}

// say tells the user what happens next.
func say(format string, args ...any) {
	fmt.Printf("\n== "+format+"\n", args...)
}

// example plays the manual's example, on the wire and at the console.
func example(n network, m *machine, s *site) error {
	if _, err := m.expect("socks accepts on port"); err != nil {
		return err
	}
	if _, err := m.expect("> "); err != nil {
		return err
	}
	m.showLog()
	ftp := "ftp://" + serverAddress + "/" + fileName

	say("The client asks the FTP server directly: the firewall drops it")
	if err := n.showDropped(client, ftp); err != nil {
		return err
	}

	say("Plain HTTP goes out masqueraded: the server sees who asks")
	if err := n.show(client, "curl", "--silent", "--show-error", "--output", os.DevNull,
		"http://"+serverAddress+"/"+fileName).Run(); err != nil {
		return fmt.Errorf("HTTP: %w", err)
	}
	if err := s.askedFrom(wanAddress); err != nil {
		return err
	}
	fmt.Println("web server:", lastLine(s.httpLog.String()))

	say("The same file by FTP through SOCKS, control and passive data")
	// Slowly, so that the connections can be seen while they live.
	fetched := filepath.Join(m.dir, "fetched")
	slow := n.show(client, "curl", "--silent", "--show-error", "--socks4", lanAddress+":1080", "--limit-rate", "700k",
		"--output", fetched, ftp)
	if err := slow.Start(); err != nil {
		return err
	}
	defer kill(slow)
	if err := retry(func() error {
		out, err := m.command("/ip socks connections print")
		if err == nil && strings.Count(out, clientAddress+":") < 2 {
			err = fmt.Errorf("the file does not come:\n%s", out)
		}
		return err
	}); err != nil {
		return err
	}
	if err := m.show("/ip socks connections print", "/ip firewall nat print", "/ip firewall filter print", "/ip socks print", "/ip socks access print"); err != nil {
		return err
	}
	if err := slow.Wait(); err != nil {
		return fmt.Errorf("FTP through SOCKS: %w", err)
	}
	got, err := os.ReadFile(fetched)
	if err != nil {
		return err
	}
	if string(got) != string(s.file) {
		return fmt.Errorf("FTP through SOCKS: the file differs from the server's")
	}
	say("%d bytes arrived, the same as the server has", len(got))
	return nil
}

// show prepares a program on a host, as command does, and tells the user; what
// it prints is shown.
func (n network) show(h host, name string, args ...string) *exec.Cmd {
	fmt.Printf("%s$ %s %s\n", h, name, strings.Join(args, " "))
	cmd := n.command(h, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd
}

// showDropped has a host ask for a URL, and shows that nobody answers.
func (n network) showDropped(h host, url string) error {
	err := n.show(h, "curl", "--silent", "--show-error", "--connect-timeout", "4", "--output", os.DevNull, url).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 28 {
		return fmt.Errorf("%s: %v: want curl to time out (28)", url, err)
	}
	return nil
}

// showLog shows what the router has said on its console since its start.
func (m *machine) showLog() {
	for line := range strings.Lines(m.screen.all()) {
		if strings.Contains(line, "postern:") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
}

// show runs lines at the router's console, and shows what they print.
func (m *machine) show(lines ...string) error {
	for _, line := range lines {
		out, err := m.command(line)
		if err != nil {
			return err
		}
		fmt.Printf("[admin@postern] > %s\n%s", line, out)
	}
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// interact joins the user's terminal to the serial line until Ctrl-] or the
// machine's end.
func (m *machine) interact(ctx context.Context) error {
	in := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(in, unix.TCGETS)
	if err != nil {
		return err
	}
	raw := *old
	raw.Iflag &^= unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(in, unix.TCSETS, &raw); err != nil {
		return err
	}
	defer unix.IoctlSetTermios(in, unix.TCSETS, old)
	m.screen.mirrorTo(os.Stdout)
	defer m.screen.mirrorTo(nil)
	if err := m.send("\r"); err != nil {
		return err
	}

	left := make(chan error, 1)
	go func() {
		buf := make([]byte, 256)
		for {
			k, err := os.Stdin.Read(buf)
			if err != nil {
				left <- err
				return
			}
			keys, end, _ := strings.Cut(string(buf[:k]), "\x1d")
			if err := m.send(keys); err != nil {
				left <- err
				return
			}
			if len(keys) < k || end != "" {
				left <- nil
				return
			}
		}
	}()
	select {
	case err := <-left:
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	case <-m.exited:
		return m.exitErr
	case <-ctx.Done():
		return nil
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
