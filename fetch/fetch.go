// Package fetch downloads a file by HTTP, and has the unprivileged process that does so. Only
// that process reads what the server sends; the file is passed on as bytes.
//
// It speaks HTTP/1.0 (RFC 1945), as much as a client needs for one file: a GET, an answer
// with status 200, and a body that ends as Content-Length says or with the connection.
// net/http takes ten times as much flash. (The router's own server is package web, which has to
// refuse what this takes.)
//
// It promises that a server can make it hold no more than 16 KiB, and make it wait no
// longer than a minute without a byte and half an hour in all.
package fetch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/resolve"
)

const (
	// maxURL is the length of the longest URL, in bytes.
	maxURL = 1024
	// maxLine and maxHead bound a line of the head and the whole head, in bytes.
	maxLine = 4 << 10
	maxHead = 16 << 10
	// MaxBody is the length of the longest file, in bytes.
	MaxBody = 1<<30 + 4096

	connectTime = 20 * time.Second
	// silence is how long a server may send nothing.
	silence = time.Minute
	// allTime is how long a download may take.
	allTime = 30 * time.Minute
)

// URL is an address of the form http://HOST[:PORT]/PATH.
type URL struct {
	Host string // an IPv4 address or a name
	Port uint16
	// Path begins with "/" and has the query, if there is one.
	Path string
}

// ParseURL reads an address. It does not decode the path, which goes to the server as it is
// written.
func ParseURL(s string) (URL, error) {
	if len(s) > maxURL {
		return URL{}, fmt.Errorf("URL of %d bytes, at most %d", len(s), maxURL)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
		return URL{}, errors.New("URL with a character that is not allowed there")
	}
	rest, ok := strings.CutPrefix(s, "http://")
	if !ok {
		return URL{}, errors.New("URL that does not begin with http://")
	}
	u := URL{Port: 80, Path: "/"}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		if rest, u.Path = rest[:i], rest[i:]; u.Path[0] == '?' {
			u.Path = "/" + u.Path
		}
	}
	host, port, hasPort := strings.Cut(rest, ":")
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return URL{}, fmt.Errorf("port %q of the URL, expected 1 to 65535", port)
		}
		u.Port = uint16(n)
	}
	if !validHost(host) {
		return URL{}, fmt.Errorf("host %q of the URL, expected an IPv4 address or a name", host)
	}
	u.Host = host
	return u, nil
}

// validHost reports whether host is an IPv4 address or could be a name (RFC 1123,
// section 2.1).
func validHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Is4()
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return len(host) <= 253
}

// request returns the request for u.
func (u URL) request() string {
	host := u.Host
	if u.Port != 80 {
		host = net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
	}
	return "GET " + u.Path + " HTTP/1.0\r\nHost: " + host + "\r\nUser-Agent: Postern\r\nAccept: */*\r\nConnection: close\r\n\r\n"
}

// get asks for a file over conn and writes it to out.
func get(conn net.Conn, u URL, out io.Writer) error {
	end := time.Now().Add(allTime)
	if err := conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, u.request()); err != nil {
		return resolve.Reason(err)
	}
	in := bufio.NewReaderSize(patient{conn, end}, maxLine)
	r, err := readResponse(in)
	if err != nil {
		return err
	}
	if r.status != 200 {
		if r.location != "" {
			return fmt.Errorf("the server answers %d %s: it is at %s", r.status, r.reason, r.location)
		}
		return fmt.Errorf("the server answers %d %s", r.status, r.reason)
	}
	return copyBody(out, in, r.length)
}

// copyBody copies a body of that length, or to the end of in if length is -1.
func copyBody(out io.Writer, in io.Reader, length int64) error {
	limit := length
	if length < 0 {
		limit = MaxBody + 1
	}
	n, err := io.Copy(out, io.LimitReader(in, limit))
	switch {
	case err != nil:
		return fmt.Errorf("after %d bytes: %w", n, err)
	case length >= 0 && n < length:
		return fmt.Errorf("the connection ended after %d of %d bytes", n, length)
	case n > MaxBody:
		return fmt.Errorf("the file is longer than %d bytes", int64(MaxBody))
	}
	return nil
}

// patient reads from a connection on which nothing may come for the time of silence, but not
// beyond end.
type patient struct {
	net.Conn
	end time.Time
}

func (p patient) Read(b []byte) (int, error) {
	deadline := time.Now().Add(silence)
	if p.end.Before(deadline) {
		deadline = p.end
	}
	if err := p.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := p.Conn.Read(b)
	return n, resolve.Reason(err)
}

// response is the head of an answer.
type response struct {
	status   int
	reason   string
	location string
	// length is the body's in bytes, or -1 if it ends with the connection.
	length int64
}

// readResponse reads the head, up to the empty line.
func readResponse(in *bufio.Reader) (response, error) {
	left := maxHead
	line, err := readLine(in, &left)
	if err != nil {
		return response{}, fmt.Errorf("answer: %w", err)
	}
	r := response{length: -1}
	protocol, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if !strings.HasPrefix(protocol, "HTTP/1.") || len(code) != 3 {
		return response{}, errors.New("the server does not speak HTTP")
	}
	if r.status, err = strconv.Atoi(code); err != nil || r.status < 100 {
		return response{}, fmt.Errorf("status %q of the answer, expected three digits", code)
	}
	r.reason = strings.TrimSpace(reason)
	for {
		line, err := readLine(in, &left)
		if err != nil {
			return response{}, fmt.Errorf("head of the answer: %w", err)
		}
		if line == "" {
			return r, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return response{}, errors.New("head of the answer: a line without a colon")
		}
		if err := r.take(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)); err != nil {
			return response{}, err
		}
	}
}

// take reads a field of the head.
func (r *response) take(name, value string) error {
	switch name {
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || r.length >= 0 && int64(n) != r.length {
			return fmt.Errorf("content-length %q, expected one number", value)
		}
		if n > MaxBody {
			return fmt.Errorf("the file has %d bytes, at most %d are taken", n, int64(MaxBody))
		}
		r.length = int64(n)
	case "location":
		r.location = value
	case "transfer-encoding", "content-encoding":
		// HTTP/1.0 does not have the first, and the request did not ask for the second.
		if !strings.EqualFold(value, "identity") {
			return fmt.Errorf("%s %q, expected none", name, value)
		}
	}
	return nil
}

// readLine returns a line without its end. It takes the line's length off left, and fails
// if that gets negative.
func readLine(in *bufio.Reader, left *int) (string, error) {
	line, err := in.ReadSlice('\n')
	*left -= len(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || *left < 0:
		return "", fmt.Errorf("longer than %d bytes, or a line longer than %d", maxHead, maxLine)
	case err == io.EOF:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
}
