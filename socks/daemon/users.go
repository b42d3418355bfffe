package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/socks"
)

// maxUsersFile is how long a file of users may be, in bytes: more than the longest that
// socks.MaxUserBytes allows, with comments.
const maxUsersFile = 1 << 20

// readUsers reads a file of users.
func readUsers(path string) ([]socks.User, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxUsersFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	if len(text) > maxUsersFile {
		return nil, fmt.Errorf("read the users: %s is longer than %d bytes", path, maxUsersFile)
	}
	return parseUsers(path, text)
}

// parseUsers parses the text of the file called name. It has a user in each line,
//
//	NAME:HASH[:only-one][:rate-limit=RATE][:disabled]
//
// with the hash as package password writes it and the rate as socks.ParseRate reads it. Empty
// lines and those that begin with # are left out. An error names the file and the line; it does
// not show what may be a password.
func parseUsers(name string, text []byte) ([]socks.User, error) {
	var users []socks.User
	lines := map[string]int{} // of each user
	n := 0
	for line := range bytes.Lines(text) {
		n++
		body := strings.TrimRight(string(line), "\r\n")
		if body == "" || body[0] == '#' {
			continue
		}
		u, err := parseUser(body)
		if err == nil && lines[u.Name] > 0 {
			err = fmt.Errorf("user %q is in line %d too", u.Name, lines[u.Name])
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		lines[u.Name] = n
		users = append(users, u)
	}
	return users, nil
}

func parseUser(line string) (socks.User, error) {
	fields := strings.Split(line, ":")
	if len(fields) < 2 {
		return socks.User{}, errors.New("expected NAME:HASH[:only-one][:rate-limit=RATE][:disabled], as socksd passwd NAME writes it")
	}
	u := socks.User{Name: fields[0], Password: fields[1]}
	if err := checkUserName(u.Name); err != nil {
		return socks.User{}, err
	}
	if _, err := password.Parse(u.Password); err != nil {
		return socks.User{}, fmt.Errorf("user %q: the hash is not one that socksd passwd writes: %w", u.Name, err)
	}
	for i, option := range fields[2:] {
		key, value, valued := strings.Cut(option, "=")
		for _, other := range fields[2 : 2+i] {
			if before, _, _ := strings.Cut(other, "="); before == key {
				return socks.User{}, fmt.Errorf("user %q: %s is there twice", u.Name, key)
			}
		}
		switch {
		case option == "only-one":
			u.OnlyOne = true
		case option == "disabled":
			u.Disabled = true
		case key == "rate-limit" && valued:
			rate, err := socks.ParseRate(value)
			if err != nil || rate < socks.MinRateLimit || rate > socks.MaxRateLimit {
				return socks.User{}, fmt.Errorf("user %q: rate-limit=%s: expected bits per second, %s..%s", u.Name, value,
					socks.FormatRate(socks.MinRateLimit), socks.FormatRate(socks.MaxRateLimit))
			}
			u.RateLimit = rate
		default:
			return socks.User{}, fmt.Errorf("user %q: expected only-one, rate-limit=RATE or disabled, not %q", u.Name, option)
		}
	}
	return u, nil
}

// checkUserName returns an error for a name that a client cannot send (RFC 1929, section 2) or
// that a line of the file cannot hold.
func checkUserName(name string) error {
	switch {
	case name == "" || len(name) > 255:
		return fmt.Errorf("a user's name of %d bytes: expected 1..255", len(name))
	case name[0] == '#':
		return fmt.Errorf("user %q: a name that begins with # would be a comment", name)
	case strings.Contains(name, ":"):
		return fmt.Errorf("user %q: a name cannot have a colon", name)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("user %q: expected a name that can be printed", name)
	}
	return nil
}
