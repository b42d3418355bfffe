package web

import (
	"errors"
	"net"
	"strconv"
	"time"
)

const (
	// bufferSize is how much of a body is gathered before it is sent. A longer body goes out in chunks.
	bufferSize = 8 << 10
	// writeTime is how long a client may take to read an answer.
	writeTime = time.Minute
)

// reason is the phrase of a status.
func reason(status int) string {
	switch status {
	case 200:
		return "OK"
	case 201:
		return "Created"
	case 204:
		return "No Content"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 406:
		return "Not Acceptable"
	case 408:
		return "Request Timeout"
	case 411:
		return "Length Required"
	case 413:
		return "Content Too Large"
	case 415:
		return "Unsupported Media Type"
	case 417:
		return "Expectation Failed"
	case 421:
		return "Misdirected Request"
	case 428:
		return "Precondition Required"
	case 431:
		return "Request Header Fields Too Large"
	case 503:
		return "Service Unavailable"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Internal Server Error"
}

// The policies of content: of what is no page nothing is shown or run.
const noContentPolicy = "default-src 'none'; frame-ancestors 'none'"

// response is an answer. Its body is gathered, and sent in chunks when it gets long.
type response struct {
	conn net.Conn
	// isHead is set for an answer to HEAD, which has no body; old for a client that knows no chunks: its connection
	// ends with the body.
	isHead, old bool
	// last says that the connection ends behind the answer.
	last bool

	status      int
	contentType string
	policy      string
	fields      []string // further lines of the head
	buffer      []byte
	started     bool
	chunked     bool
	err         error
}

func newResponse(conn net.Conn, r *request) *response {
	w := &response{conn: conn, status: 200, contentType: "text/plain; charset=utf-8", policy: noContentPolicy}
	if r != nil {
		w.isHead, w.last = r.method == "HEAD", r.last
		w.old = r.old
	} else {
		w.last = true
	}
	return w
}

// Write adds to the body.
func (w *response) Write(p []byte) (int, error) {
	w.buffer = append(w.buffer, p...)
	if len(w.buffer) < bufferSize {
		return len(p), w.err
	}
	if !w.started {
		w.chunked = !w.old
		w.send(w.head(-1))
	}
	w.sendBuffer()
	return len(p), w.err
}

// finish sends what is left.
func (w *response) finish() error {
	if !w.started {
		w.buffer = append(w.head(len(w.buffer)), w.buffer[:w.bodyLength()]...)
		w.send(w.buffer)
		return w.err
	}
	w.sendBuffer()
	if w.chunked && !w.isHead {
		w.send([]byte("0\r\n\r\n"))
	}
	return w.err
}

// bodyLength is how much of a gathered body is sent.
func (w *response) bodyLength() int {
	if w.isHead {
		return 0
	}
	return len(w.buffer)
}

// sendBuffer sends what is gathered of a body that goes out in chunks, or up to the end of the connection.
func (w *response) sendBuffer() {
	if len(w.buffer) > 0 && !w.isHead {
		if w.chunked {
			w.send([]byte(strconv.FormatInt(int64(len(w.buffer)), 16) + "\r\n"))
			w.buffer = append(w.buffer, "\r\n"...)
		}
		w.send(w.buffer)
	}
	w.buffer = w.buffer[:0]
}

func (w *response) send(b []byte) {
	if !w.started {
		w.started = true
		w.err = errors.Join(w.err, w.conn.SetWriteDeadline(time.Now().Add(writeTime)))
	}
	if w.err == nil {
		_, w.err = w.conn.Write(b)
	}
}

// head is the head of the answer with a body of that length; -1 is one that goes out in chunks.
func (w *response) head(length int) []byte {
	b := make([]byte, 0, 512+max(0, length))
	line := func(parts ...string) {
		for _, p := range parts {
			b = append(b, p...)
		}
		b = append(b, "\r\n"...)
	}
	line("HTTP/1.1 ", strconv.Itoa(w.status), " ", reason(w.status))
	switch {
	case w.status == 204:
	case length >= 0:
		line("Content-Length: ", strconv.Itoa(length))
	case w.chunked:
		line("Transfer-Encoding: chunked")
	}
	if w.status != 204 {
		line("Content-Type: ", w.contentType)
	}
	line("Content-Security-Policy: ", w.policy)
	line("X-Content-Type-Options: nosniff")
	line("X-Frame-Options: DENY")
	line("Referrer-Policy: no-referrer")
	line("Cross-Origin-Resource-Policy: same-origin")
	line("Cache-Control: no-store")
	for _, f := range w.fields {
		line(f)
	}
	if w.last {
		line("Connection: close")
	}
	line()
	return b
}

// fail makes the answer an error as REST has it. It has no effect on an answer of which a part has been sent: then
// the connection ends, and the client sees that it is not whole.
func (w *response) fail(status int, detail string) {
	if w.started {
		w.err = errors.New("the answer is not whole")
		return
	}
	w.status, w.contentType = status, jsonType
	w.buffer = append(w.buffer[:0], `{"error":`+strconv.Itoa(status)+`,"message":`...)
	w.buffer = appendString(w.buffer, reason(status))
	if detail != "" {
		w.buffer = appendString(append(w.buffer, `,"detail":`...), detail)
	}
	w.buffer = append(w.buffer, '}')
}

const jsonType = "application/json"
