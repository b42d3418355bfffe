package web

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// strangerTime is how long a connection may be there on which nobody has logged in, and maxStrangerRequests
	// how many requests it may make.
	strangerTime        = time.Minute
	maxStrangerRequests = 16
	// requestTime is how long a client may take to send a request, keepTime how long it may take from one to the
	// next, once somebody has logged in.
	requestTime = 15 * time.Second
	keepTime    = 5 * time.Minute
	// maxTrusted is how many connections there may be at once on which somebody has logged in.
	maxTrusted = 16

	// cookieName is that of the cookie of a session, and secureName over TLS: a browser keeps both beside one another, sends the
	// second over TLS alone, and lets no page that came without it set one.
	cookieName = "postern"
	secureName = "__Host-postern"
	tokenField = "x-postern-token"
)

// Server serves connections.
type Server struct {
	users *users
	// extra is what PID 1 has added to the configuration: see Extra.
	extra func() string

	mu      sync.Mutex
	trusted int
}

// newServer returns a server. hold is called for each login; the process stays until it is released.
func newServer(check checkPassword, first setFirst, hold func() (release func()), extra func() string) *Server {
	return &Server{users: newUsers(check, first, hold), extra: extra}
}

// serve serves a connection, which is one over TLS if it is secure, until its end. entered is called when somebody has logged in; stays
// says whether the connection goes on after the answer, as there are not too many of such.
func (s *Server) serve(ctx context.Context, conn net.Conn, from netip.Addr, secure bool, entered func(stays bool)) {
	c := &connection{Server: s, ctx: ctx, conn: conn, from: from, secure: secure, entered: entered, in: bufio.NewReaderSize(conn, maxLine)}
	defer c.leave()
	end := time.Now().Add(strangerTime)
	for n := 0; c.trusted || n < maxStrangerRequests; n++ {
		idle := time.Now().Add(keepTime)
		if !c.trusted {
			idle = end
		}
		if conn.SetReadDeadline(idle) != nil {
			return
		}
		if _, err := c.in.Peek(1); err != nil {
			return
		}
		if conn.SetReadDeadline(time.Now().Add(requestTime)) != nil {
			return
		}
		if !c.request() {
			return
		}
	}
}

// connection is a connection.
type connection struct {
	*Server
	ctx  context.Context
	conn net.Conn
	from netip.Addr
	// secure says that it is one over TLS.
	secure bool
	// entered is that of Server.serve.
	entered func(stays bool)
	in      *bufio.Reader
	// trusted says that somebody has logged in on it.
	trusted bool
}

// enter makes the connection one of those who have logged in. If there are too many of them, it ends after this answer.
func (c *connection) enter(w *response) {
	if c.trusted {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Server.trusted >= maxTrusted {
		w.last = true
		c.entered(false)
		return
	}
	c.Server.trusted++
	c.trusted = true
	c.entered(true)
}

func (c *connection) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trusted {
		c.Server.trusted--
	}
}

// request serves a request, and reports whether the connection goes on.
func (c *connection) request() bool {
	r, err := readRequest(c.in)
	if err != nil {
		var h *httpError
		if !errors.As(err, &h) {
			return false
		}
		w := newResponse(c.conn, nil)
		w.fail(h.status, h.detail)
		c.finish(w)
		return false
	}
	w := newResponse(c.conn, r)
	c.answer(w, r)
	if w.finish() != nil {
		return false
	}
	if w.last {
		c.linger()
	}
	return !w.last
}

func (c *connection) finish(w *response) {
	if w.finish() == nil {
		c.linger()
	}
}

// linger lets the client read the answer: the kernel would drop it at the end of the connection, if there were bytes that nobody has
// read (RFC 9112, section 9.6).
func (c *connection) linger() {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, c.in, 2*maxBody)
}

// body reads the body of a request.
func (c *connection) body(w *response, r *request, limit int64) (string, bool) {
	if r.length > limit {
		w.last = true
		w.fail(413, "")
		return "", false
	}
	if r.length == 0 {
		return "", true
	}
	if r.continues {
		_ = c.conn.SetWriteDeadline(time.Now().Add(requestTime))
		if _, err := io.WriteString(c.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			w.err = err
			return "", false
		}
	}
	b := make([]byte, r.length)
	if _, err := io.ReadFull(c.in, b); err != nil {
		w.last = true
		w.fail(408, "")
		return "", false
	}
	r.length = 0
	return string(b), true
}

// answer makes the answer to a request.
func (c *connection) answer(w *response, r *request) {
	// Whoever's body has not been read gets no further request in.
	defer func() { w.last = w.last || r.length > 0 }()

	if !c.isOurs(r.host) {
		// A page of somebody else's whose name leads here (DNS rebinding).
		w.fail(421, "expected an address or a name of the router as host")
		return
	}
	if r.origin != "" && !strings.EqualFold(r.origin, c.scheme()+r.authority) || r.site == "cross-site" && r.method != "GET" && r.method != "HEAD" {
		w.fail(403, "a request of another page")
		return
	}
	first := ""
	if len(r.segments) > 0 {
		first = r.segments[0]
	}
	isChange := r.method != "GET" && r.method != "HEAD"
	switch {
	case r.method == "OPTIONS":
		w.status = 204
		w.fields = append(w.fields, "Allow: GET, HEAD, PUT, PATCH, DELETE, POST, OPTIONS")
		return
	case len(r.segments) == 0:
		if isChange {
			w.fields = append(w.fields, "Allow: GET, HEAD, OPTIONS")
			w.fail(405, "")
			return
		}
		showPage(w, r)
		return
	case len(r.segments) == 1 && first == "login":
		c.login(w, r)
		return
	case first != "rest" && !(len(r.segments) == 1 && slices.Contains([]string{"session", "logout", "metrics"}, first)):
		w.fail(404, "")
		return
	}

	u, ok := c.authenticate(w, r)
	if !ok {
		return
	}
	defer c.users.done(u)
	c.enter(w)
	if r.authorization == "" && isChange && subtle.ConstantTimeCompare([]byte(r.token), []byte(u.token)) == 0 {
		w.fail(403, "expected the token of the session")
		return
	}
	body, ok := c.body(w, r, maxBody)
	if !ok {
		return
	}
	switch first {
	case "rest":
		c.rest(c.ctx, w, r, u, body)
	case "metrics":
		if isChange {
			w.fail(405, "")
			return
		}
		c.metrics(c.ctx, w, r, u)
	case "session":
		u.show(w)
	case "logout":
		if r.method != "POST" {
			w.fail(405, "")
			return
		}
		c.users.logout(c.from, c.cookieOf(r))
		w.fields = append(w.fields, c.setCookie("; Max-Age=0"))
		w.status = 204
		w.last = true
	}
}

// isOurs reports whether a host is one that a browser may have asked for: an address, or a name of the router. A name of
// one word is none that somebody outside could have made lead here. A client of HTTP/1.0, which no browser is, may say none.
func (c *connection) isOurs(host string) bool {
	return host == "" || isAddress(host) || !strings.Contains(host, ".") || slices.Contains(strings.Fields(c.extra()), host)
}

// scheme begins the URLs of the connection's pages.
func (c *connection) scheme() string {
	if c.secure {
		return "https://"
	}
	return "http://"
}

// cookieName is the name of the connection's own cookie.
func (c *connection) cookieName() string {
	if c.secure {
		return secureName
	}
	return cookieName
}

// cookieOf is the value of the connection's own cookie.
func (c *connection) cookieOf(r *request) string {
	for part := range strings.SplitSeq(r.cookie, ";") {
		if value, ok := strings.CutPrefix(strings.TrimSpace(part), c.cookieName()+"="); ok {
			return value
		}
	}
	return ""
}

func (c *connection) setCookie(valueAndMore string) string {
	text := "Set-Cookie: " + c.cookieName() + "=" + valueAndMore + "; Path=/; HttpOnly; SameSite=Strict"
	if c.secure {
		text += "; Secure"
	}
	return text
}

// authenticate returns the user whose request it is, for users.done. If there is none, the answer says so.
func (c *connection) authenticate(w *response, r *request) (*user, bool) {
	if scheme, value, _ := strings.Cut(r.authorization, " "); strings.EqualFold(scheme, "basic") {
		text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
		name, secret, ok := strings.Cut(string(text), ":")
		if err == nil && ok {
			u, err := c.users.byPassword(c.ctx, c.from, name, secret)
			if err == nil && u != nil {
				return u, true
			}
			c.refuse(w, r, err)
			return nil, false
		}
	} else if cookie := c.cookieOf(r); cookie != "" && r.authorization == "" {
		if u := c.users.byCookie(c.from, cookie); u != nil {
			return u, true
		}
	}
	c.refuse(w, r, nil)
	return nil, false
}

// refuse is the answer to who has not logged in. err is why the password was not checked, or that there are too many logins.
func (c *connection) refuse(w *response, r *request, err error) {
	// Its place is for those who have.
	w.last = w.last || c.trusted
	if err != nil {
		w.fields = append(w.fields, "Retry-After: 10")
		w.fail(503, err.Error())
		return
	}
	if !r.fromPage { // for which the browser would ask by a window of its own
		w.fields = append(w.fields, `WWW-Authenticate: Basic realm="router", charset="UTF-8"`)
	}
	w.fail(401, "")
}

// login is the page's login.
func (c *connection) login(w *response, r *request) {
	if r.method != "POST" {
		w.fail(405, "")
		return
	}
	// The field of the page's own makes a browser ask first, when it is another page that sends the form.
	if !r.fromPage || r.contentType != "application/x-www-form-urlencoded" {
		w.fail(403, "expected the form of the page")
		return
	}
	body, ok := c.body(w, r, maxStrangerBody)
	if !ok {
		return
	}
	form, err := parseParameters(body)
	if err != nil {
		w.fail(400, "")
		return
	}
	name, _ := find(form, "user")
	secret, _ := find(form, "password")
	var u *user
	var cookie string
	if secret == "" {
		var unset bool
		new, _ := find(form, "new")
		if u, cookie, unset, err = c.users.byFirst(c.ctx, c.from, name, new); unset {
			w.fail(428, "a new password is needed")
			return
		}
	} else {
		u, cookie, err = c.users.byForm(c.ctx, c.from, name, secret)
	}
	if err != nil || u == nil {
		c.refuse(w, r, err)
		return
	}
	defer c.users.done(u)
	c.enter(w)
	w.fields = append(w.fields, c.setCookie(cookie))
	u.show(w)
}

// show tells the page whose session it is.
func (u *user) show(w *response) {
	w.contentType = jsonType
	_, _ = w.Write(appendObject(nil, "user", u.name, "token", u.token))
}
