package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// This file reads requests of HTTP/1.0 and HTTP/1.1 (RFC 9112). Where that leaves a choice the strict one is
// taken: two readers of the same bytes, such as a proxy and this one, must not find different requests in them.

const (
	// maxLine bounds a line of a head, maxHead the whole head, both in bytes, and maxFields its fields.
	maxLine   = 4 << 10
	maxHead   = 16 << 10
	maxFields = 64
	// maxBody bounds the body of a request in bytes, maxStrangerBody that of somebody who has not
	// logged in: a form with a name and a password, each letter of which may take three bytes.
	maxBody         = 64 << 10
	maxStrangerBody = 2 << 10
	// maxParameters bounds those of a query or a form.
	maxParameters = 64
)

// httpError is an error with its status. The connection ends after one of a head: what follows may be no request.
type httpError struct {
	status int
	detail string
}

func (e *httpError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, reason(e.status), e.detail)
}

func badRequest(detail string) error { return &httpError{400, detail} }

// errSilent is that the client has sent nothing, and closed the connection or waited too long.
var errSilent = errors.New("no request")

// parameter is a name with its value, of a query or a form.
type parameter struct{ name, value string }

// request is a request without its body.
type request struct {
	method string
	// segments are the parts of the path between its slashes, decoded. "/" has none.
	segments []string
	query    []parameter
	// host is that of the URL, without its port, in lower case. origin is what the browser says that the
	// request comes from.
	host, authority, origin string
	site                    string // Sec-Fetch-Site
	contentType             string
	authorization           string
	cookie                  string
	token                   string
	accept                  string
	acceptsGzip             bool
	// fromPage says that the field of the token is there, also if it is empty.
	fromPage bool
	length   int64
	// continues says that the client waits for leave to send the body.
	continues bool
	// last says that the connection ends after this request, old that it is one of HTTP/1.0.
	last, old bool
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// readRequest reads a head. The error is an *httpError, errSilent or one of the connection.
func readRequest(in *bufio.Reader) (*request, error) {
	if _, err := in.Peek(1); err != nil {
		return nil, errSilent
	}
	left := maxHead
	line, err := readLine(in, &left)
	if err == nil && line == "" { // old clients send one behind a body (RFC 9112, section 2.2)
		line, err = readLine(in, &left)
	}
	if err != nil {
		return nil, err
	}
	r := &request{length: -1}
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	if !ok || !isToken(method) || len(method) > 16 || !strings.HasPrefix(version, "HTTP/") {
		return nil, badRequest("expected METHOD /PATH HTTP/1.1")
	}
	r.method = method
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		r.last, r.old = true, true
	default:
		return nil, &httpError{505, "expected HTTP/1.1"}
	}
	// A proxy's form (RFC 9112, section 3.2.2), which a server has to take. Its host goes before the field's.
	absolute, isAbsolute := strings.CutPrefix(target, "http://")
	if isAbsolute {
		target = "/"
		if i := strings.IndexAny(absolute, "/?"); i >= 0 {
			if absolute, target = absolute[:i], absolute[i:]; target[0] == '?' {
				target = "/" + target
			}
		}
		if absolute == "" {
			return nil, badRequest("a URL without a host")
		}
	}
	if err := r.takeTarget(target); err != nil {
		return nil, err
	}
	if err := r.readFields(in, &left); err != nil {
		return nil, err
	}
	if r.authority == "" && (version == "HTTP/1.1" || isAbsolute) {
		return nil, badRequest("no host")
	}
	if isAbsolute {
		r.authority = absolute
	}
	if r.authority != "" {
		if r.host, ok = hostOf(r.authority); !ok {
			return nil, badRequest("bad host")
		}
	}
	if r.length < 0 {
		r.length = 0
	}
	return r, nil
}

// takeTarget reads the path and the query.
func (r *request) takeTarget(target string) error {
	if strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' }) {
		return badRequest("bad character in the URL")
	}
	if target == "*" && r.method == "OPTIONS" {
		return nil
	}
	path, query, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		return badRequest("expected a path that begins with /")
	}
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		text, ok := unescape(segment, false)
		if !ok || text == "." || text == ".." {
			return badRequest("bad path")
		}
		if text != "" {
			r.segments = append(r.segments, text)
		} else if path != "/" {
			return badRequest("bad path")
		}
	}
	var err error
	r.query, err = parseParameters(query)
	return err
}

// parseParameters parses a query or a form: name=value&name=value.
func parseParameters(text string) ([]parameter, error) {
	var all []parameter
	for part := range strings.SplitSeq(text, "&") {
		if part == "" {
			continue
		}
		if len(all) == maxParameters {
			return nil, badRequest("too many parameters")
		}
		name, value, _ := strings.Cut(part, "=")
		name, ok := unescape(name, true)
		value, ok2 := unescape(value, true)
		if !ok || !ok2 {
			return nil, badRequest("bad parameter")
		}
		all = append(all, parameter{name, value})
	}
	return all, nil
}

// unescape decodes %XX, and in parameters "+" to a blank. It refuses a byte 0.
func unescape(s string, plus bool) (string, bool) {
	decode := url.PathUnescape
	if plus {
		decode = url.QueryUnescape
	}
	text, err := decode(s)
	return text, err == nil && strings.IndexByte(text, 0) < 0
}

// hostOf is the host of an authority in lower case, without its port: an IPv4 address or a name.
func hostOf(authority string) (host string, ok bool) {
	host, port, hasPort := strings.Cut(strings.ToLower(authority), ":")
	if hasPort && port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
			return "", false
		}
	}
	host = strings.TrimSuffix(host, ".")
	for _, c := range []byte(host) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '.' && c != '_' {
			return "", false
		}
	}
	return host, host != "" && len(host) <= 253
}

// isAddress reports whether a host is an IPv4 address.
func isAddress(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Is4()
}

// readFields reads the fields of a head, up to the empty line.
func (r *request) readFields(in *bufio.Reader, left *int) error {
	seen := map[string]bool{}
	var transfer bool
	for n := 0; ; n++ {
		line, err := readLine(in, left)
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		if n == maxFields {
			return &httpError{431, "too many fields"}
		}
		// A line that begins with a blank, which once continued the field before it, and a blank before the
		// colon have no name that is a token (RFC 9112, sections 5.1 and 5.2).
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return badRequest("bad field in the head")
		}
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		switch name {
		case "accept", "accept-encoding", "connection", "via", "x-forwarded-for", "te", "cache-control", "pragma", "accept-language":
			// lists, which may be on several lines
		default:
			if seen[name] {
				return badRequest("field " + name + " twice")
			}
			seen[name] = true
		}
		transfer = transfer || name == "transfer-encoding"
		if err := r.takeField(name, value); err != nil {
			return err
		}
	}
	switch {
	case transfer && r.length >= 0:
		return badRequest("a length and a transfer encoding")
	case transfer && r.old:
		return badRequest("a transfer encoding in HTTP/1.0")
	case transfer:
		return &httpError{411, "expected a Content-Length"} // RFC 9112, section 6.3: it may be refused so
	}
	return nil
}

func (r *request) takeField(name, value string) error {
	switch name {
	case "host":
		if value == "" {
			return badRequest("no host")
		}
		r.authority = value
	case "content-length":
		// Digits alone: no sign, and no list of equal numbers.
		if value == "" || strings.Trim(value, "0123456789") != "" {
			return badRequest("bad length")
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return &httpError{413, fmt.Sprintf("at most %d bytes are taken", maxBody)}
		}
		r.length = int64(n)
	case "connection":
		for option := range strings.SplitSeq(strings.ToLower(value), ",") {
			if strings.TrimSpace(option) == "close" {
				r.last = true
			}
		}
	case "expect":
		if !strings.EqualFold(value, "100-continue") {
			return &httpError{417, "expected 100-continue"}
		}
		r.continues = true
	case "authorization":
		r.authorization = value
	case "cookie":
		r.cookie = value
	case "origin":
		r.origin = value
	case "sec-fetch-site":
		r.site = value
	case "content-type":
		r.contentType, _, _ = strings.Cut(strings.ToLower(value), ";")
		r.contentType = strings.TrimSpace(r.contentType)
	case tokenField:
		r.token, r.fromPage = value, true
	case "accept":
		r.accept += value + ","
	case "accept-encoding":
		for coding := range strings.SplitSeq(strings.ToLower(value), ",") {
			name, weight, _ := strings.Cut(strings.TrimSpace(coding), ";")
			weight = strings.TrimSpace(weight)
			if strings.TrimSpace(name) == "gzip" && !(strings.HasPrefix(weight, "q=0") && strings.Trim(weight, "q=0.") == "") {
				r.acceptsGzip = true
			}
		}
	}
	return nil
}

// readLine returns a line without its end, which is CRLF. It takes the line's length off left, and fails if that gets
// negative. A line has no other control characters than tabs.
func readLine(in *bufio.Reader, left *int) (string, error) {
	line, err := in.ReadSlice('\n')
	*left -= len(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || *left < 0:
		return "", &httpError{431, fmt.Sprintf("longer than %d bytes, or a line longer than %d", maxHead, maxLine)}
	case err == io.EOF:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		return "", badRequest("a line that does not end with CRLF")
	}
	for _, c := range []byte(text) {
		if c < ' ' && c != '\t' || c == 0x7F {
			return "", badRequest("a control character in the head")
		}
	}
	return text, nil
}

// find returns the value of a parameter, if there is one of that name.
func find(all []parameter, name string) (value string, ok bool) {
	for _, p := range all {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}
