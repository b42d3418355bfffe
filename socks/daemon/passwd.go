package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/postern-router/postern/password"
)

// passwdCommand is the argument for runPasswd.
const passwdCommand = "passwd"

// runPasswd is "socksd passwd NAME": it reads the password of a user from standard input, and
// writes the line for the file of users to standard output. On a terminal it asks twice, and
// nothing that is typed is shown. It returns the exit code, as Main does.
func runPasswd(args []string, stdin, stdout, stderr *os.File) int {
	fail := func(code int, err error) int {
		say(log.New(stderr, "socksd: passwd: ", 0), "%v", err)
		return code
	}
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return fail(2, errors.New("expected the name of one user: socksd passwd NAME (see --help)"))
	}
	name := args[0]
	if err := checkUserName(name); err != nil {
		return fail(2, err)
	}
	read := readLine
	if term.IsTerminal(int(stdin.Fd())) {
		read = askTwice
	}
	secret, err := read(stdin, stderr)
	if err == nil && (secret == "" || len(secret) > 255) { // RFC 1929, section 2
		err = fmt.Errorf("a password of %d bytes: expected 1..255", len(secret))
	}
	if err != nil {
		return fail(1, err)
	}
	hash, err := password.New(secret)
	if err != nil {
		return fail(1, err)
	}
	if _, err := fmt.Fprintf(stdout, "%s:%s\n", name, hash); err != nil {
		return fail(1, err)
	}
	return 0
}

// readLine returns the first line of what is not a terminal, without its end.
func readLine(stdin, _ *os.File) (string, error) {
	const enough = 1 << 10
	line, err := bufio.NewReader(io.LimitReader(stdin, enough)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// askTwice asks for a password, and for the same again. A signal that ends the program leaves
// the terminal as it was.
func askTwice(terminal, stderr *os.File) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the state of the terminal: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	defer func() { signal.Stop(signals); close(done) }()
	go func() {
		select {
		case s := <-signals:
			_ = term.Restore(fd, before) // nothing more can be done
			fmt.Fprintln(stderr)
			code := 1
			if n, ok := s.(syscall.Signal); ok {
				code = 128 + int(n) // as a shell reports it
			}
			os.Exit(code)
		case <-done:
		}
	}()
	var answers [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(stderr, prompt)
		answer, err := term.ReadPassword(fd)
		fmt.Fprintln(stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		answers[i] = string(answer)
	}
	if answers[0] != answers[1] {
		return "", errors.New("the two passwords differ")
	}
	return answers[0], nil
}
