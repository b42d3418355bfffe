package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/socks"
)

// The longest lines, in bytes with the newline.
const (
	maxLineToChild  = 256 << 10
	maxLineToParent = 64 << 10
)

// sendTimeout is how long the other end may leave a line unread.
const sendTimeout = 10 * time.Second

// The requests.
const (
	opConfigure   = "configure"
	opConnections = "connections"
	opHits        = "hits"
	opOpen        = "open"
	opClose       = "close"
)

// message is a line of the control protocol.
type message struct {
	ID          uint64             `json:"id"`
	Op          string             `json:"op,omitempty"`
	Error       string             `json:"error,omitempty"`
	File        bool               `json:"file,omitempty"`
	Config      *socks.Config      `json:"config,omitempty"`
	Opening     *socks.Opening     `json:"opening,omitempty"`
	Number      uint64             `json:"number,omitempty"`
	Connections []socks.Connection `json:"connections,omitempty"`
	Hits        []uint64           `json:"hits,omitempty"`
}

// errGone is what a call returns when the other end has gone.
var errGone = errors.New("the control connection has ended")

// link is one end of the control connection.
type link struct {
	conn              *net.UnixConn
	maxSend, maxTaken int

	sending sync.Mutex

	mu      sync.Mutex
	last    uint64
	pending map[uint64]chan message // calls that wait for their reply
	done    chan struct{}           // closed when run returns
}

func newLink(conn *net.UnixConn, maxSend, maxTaken int) *link {
	return &link{conn: conn, maxSend: maxSend, maxTaken: maxTaken, pending: map[uint64]chan message{}, done: make(chan struct{})}
}

// call sends a request, with file unless that is nil, and returns its reply.
func (l *link) call(ctx context.Context, m message, file syscall.Conn) (message, error) {
	reply := make(chan message, 1)
	l.mu.Lock()
	l.last++
	m.ID = l.last
	l.pending[m.ID] = reply
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.pending, m.ID)
		l.mu.Unlock()
	}()
	if err := l.send(m, file); err != nil {
		return message{}, err
	}
	select {
	case r := <-reply:
		if r.Error != "" {
			return message{}, errors.New(r.Error)
		}
		return r, nil
	case <-ctx.Done():
		return message{}, ctx.Err()
	case <-l.done:
		return message{}, errGone
	}
}

// send sends m, with file unless that is nil. A line that went out in part ends
// the connection.
func (l *link) send(m message, file syscall.Conn) error {
	m.File = file != nil
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	line = append(line, '\n')
	if len(line) > l.maxSend {
		return fmt.Errorf("control message of %d bytes is longer than %d", len(line), l.maxSend)
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	l.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	n := 0
	if file != nil {
		raw, err := file.SyscallConn()
		if err != nil {
			return fmt.Errorf("send descriptor: %w", err)
		}
		var sendErr error
		if err := raw.Control(func(fd uintptr) {
			n, _, sendErr = l.conn.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
		}); err != nil {
			return fmt.Errorf("send descriptor: %w", err)
		}
		err = sendErr
		if err != nil {
			l.conn.Close()
			return fmt.Errorf("send control message: %w", err)
		}
	}
	if _, err := l.conn.Write(line[n:]); err != nil {
		l.conn.Close()
		return fmt.Errorf("send control message: %w", err)
	}
	return nil
}

// answer sends the reply to a request: m if err is nil, else the error.
func (l *link) answer(id uint64, m message, err error) error {
	if err != nil {
		m = message{Error: err.Error()}
	}
	m.ID = id
	return l.send(m, nil)
}

// run reads messages until the connection ends, and closes it. Replies go to
// their calls; requests to handle, which closes the file, if there is one, and
// whose error ends the connection. It returns nil when the other end closed.
func (l *link) run(handle func(message, *os.File) error) error {
	defer close(l.done)
	defer l.conn.Close()
	var (
		line  []byte
		file  *os.File // came, and belongs to a line that is not complete
		chunk = make([]byte, 4096)
		oob   = make([]byte, unix.CmsgSpace(4))
	)
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	for {
		n, oobn, _, _, err := l.conn.ReadMsgUnix(chunk, oob)
		if oobn > 0 {
			came, err := descriptor(oob[:oobn])
			if err != nil {
				return err
			}
			if file != nil {
				came.Close()
				return errors.New("control: a descriptor that no message takes")
			}
			file = came
		}
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read control: %w", err)
		}
		rest := chunk[:n]
		for {
			part, after, complete := bytes.Cut(rest, []byte{'\n'})
			if len(line)+len(part)+1 > l.maxTaken {
				return fmt.Errorf("control: a line of more than %d bytes", l.maxTaken)
			}
			line = append(line, part...)
			if !complete {
				break
			}
			rest = after
			var m message
			if err := json.Unmarshal(line, &m); err != nil {
				return fmt.Errorf("control: %w", err)
			}
			line = nil
			if m.File && file == nil {
				return errors.New("control: a message without its descriptor")
			}
			if m.Op == "" {
				if m.File {
					return errors.New("control: a reply with a descriptor")
				}
				l.deliver(m)
				continue
			}
			var taken *os.File
			if m.File {
				taken, file = file, nil
			}
			if err := handle(m, taken); err != nil {
				return err
			}
		}
	}
}

// deliver gives a reply to the call that waits for it, if one still does.
func (l *link) deliver(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reply, ok := l.pending[m.ID]; ok {
		reply <- m
		delete(l.pending, m.ID)
	}
}

// descriptor returns the one descriptor of a control message.
func descriptor(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control: descriptor: %w", err)
	}
	var all []int
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, fmt.Errorf("control: descriptor: %w", err)
		}
		all = append(all, fds...)
	}
	if len(all) != 1 {
		for _, fd := range all {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("control: %d descriptors at once", len(all))
	}
	return os.NewFile(uintptr(all[0]), "control descriptor"), nil
}
