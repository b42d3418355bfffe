package service

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// maxBody is that of the links of these tests: several frames.
const maxBody = 40 << 10

// startLink starts one end of a link.
func startLink(t *testing.T, file *os.File, handler Handler) *Link {
	t.Helper()
	l, err := newLink(file, maxBody)
	require.NoError(t, err)
	l.start(t.Context(), handler)
	t.Cleanup(func() {
		l.Close()
		await(t, l.Done(), "the end of a link")
	})
	return l
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.Fail(t, "there was not: "+what)
	}
}

// linkPair starts both ends of a link.
func linkPair(t *testing.T, near, far Handler) (*Link, *Link) {
	t.Helper()
	a, b, err := socketPair()
	require.NoError(t, err)
	return startLink(t, a, near), startLink(t, b, far)
}

// echo replies with what it was asked.
func echo(_ context.Context, r *Request) ([]byte, error) {
	text := r.String(maxBody)
	var e Encoder
	e.String(text)
	return e.Bytes(), nil
}

func refuseAll(context.Context, *Request) ([]byte, error) { return nil, errors.New("no") }

func askEcho(ctx context.Context, l *Link, text string) (string, error) {
	var e Encoder
	e.String(text)
	var got string
	err := l.Call(ctx, 1, e.Bytes(), func(d *Decoder) { got = d.String(maxBody) })
	return got, err
}

func TestLinkBothWays(t *testing.T) {
	near, far := linkPair(t, echo, echo)
	var calling sync.WaitGroup
	for i := range 3 * MaxCalls { // more than there may be under way: they take turns
		text := strings.Repeat(fmt.Sprint(i), i*i*8)
		for _, l := range []*Link{near, far} {
			calling.Go(func() {
				got, err := askEcho(t.Context(), l, text)
				assert.NoError(t, err)
				assert.True(t, text == got, "%d bytes", len(got))
			})
		}
	}
	calling.Wait()
	require.NoError(t, near.Call(t.Context(), opAlive, nil, nil), "which every link answers")
}

func TestLinkFiles(t *testing.T) {
	near, far := linkPair(t, refuseAll, func(_ context.Context, r *Request) ([]byte, error) {
		first, second := r.TakeFile(), r.TakeFile() // of three
		defer first.Close()
		defer second.Close()
		_, err := second.WriteString("taken")
		return nil, err
	})
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	require.NoError(t, near.Call(t.Context(), 1, nil, nil, reader, writer, writer))
	require.NoError(t, far.Call(t.Context(), opAlive, nil, nil))
	// All the other end had is closed: what was taken by the handler, the rest by the link.
	require.NoError(t, writer.Close())
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	assert.Equal(t, "taken", string(text))

	require.EqualError(t, far.Call(t.Context(), 1, nil, nil, reader), "no")
	closed, err := os.Open(os.DevNull)
	require.NoError(t, err)
	closed.Close()
	require.ErrorContains(t, near.Call(t.Context(), 1, nil, nil, closed), "send a descriptor: ")
	require.NoError(t, near.Call(t.Context(), opAlive, nil, nil), "the link lives on")
}

// TestLinkNotServed: an end that serves nothing for long loses nothing, and does no harm.
func TestLinkNotServed(t *testing.T) {
	a, b, err := socketPair()
	require.NoError(t, err)
	near := startLink(t, a, echo)
	// The other end is there, and does not read: as a process that is stopped.
	var mu sync.Mutex
	var served []string
	long := strings.Repeat("x", maxBody-3)
	_, err = func() (string, error) {
		ctx, cancel := WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return askEcho(ctx, near, "first")
	}()
	require.ErrorIs(t, err, ErrTimeout)
	for i := range MaxCalls {
		ctx, cancel := WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := askEcho(ctx, near, long)
		require.ErrorIs(t, err, ErrTimeout, "call %d", i)
		cancel()
	}
	// One that waits as long as it takes.
	late := make(chan error, 1)
	go func() {
		got, err := askEcho(t.Context(), near, "last")
		if err == nil && got != "last" {
			err = fmt.Errorf("the reply is %q", got)
		}
		late <- err
	}()

	far := startLink(t, b, func(ctx context.Context, r *Request) ([]byte, error) {
		body, err := echo(ctx, r)
		mu.Lock()
		defer mu.Unlock()
		served = append(served, NewDecoder(body).String(maxBody))
		return body, err
	})
	select {
	case err := <-late:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "the link did not go on")
	}
	for _, l := range []*Link{near, far} {
		got, err := askEcho(t.Context(), l, long)
		require.NoError(t, err)
		assert.True(t, long == got, "%d bytes", len(got))
		require.NoError(t, l.Err())
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, "first", served[0])
	for _, text := range served[1 : len(served)-2] {
		assert.True(t, long == text || text == "last", "what the kernel had taken whole is served whole")
	}
	assert.Contains(t, served, "last")
	assert.Len(t, near.slots, 0, "the late replies have freed their slots")
}

// TestLinkRequestsUnderWay: whose time was up still counts, until its reply comes.
func TestLinkRequestsUnderWay(t *testing.T) {
	release := make(chan struct{})
	near, _ := linkPair(t, echo, func(ctx context.Context, r *Request) ([]byte, error) {
		<-release
		return echo(ctx, r)
	})
	for range MaxCalls {
		ctx, cancel := WithTimeout(t.Context(), 5*time.Millisecond)
		_, err := askEcho(ctx, near, "x")
		require.ErrorIs(t, err, ErrTimeout)
		cancel()
	}
	assert.Len(t, near.slots, MaxCalls)
	ctx, cancel := WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := askEcho(ctx, near, "x")
	require.ErrorIs(t, err, ErrTimeout)
	close(release)
	got, err := askEcho(t.Context(), near, "y")
	require.NoError(t, err)
	assert.Equal(t, "y", got)
}

func TestLinkTooLong(t *testing.T) {
	near, far := linkPair(t, func(context.Context, *Request) ([]byte, error) { return make([]byte, maxBody+1), nil }, refuseAll)
	require.ErrorContains(t, near.Call(t.Context(), 1, make([]byte, maxBody+1), nil), "is the most")
	require.EqualError(t, near.Call(t.Context(), 1, make([]byte, maxBody), nil), "no", "it arrives, and is not read")
	require.ErrorContains(t, far.Call(t.Context(), 1, nil, nil), "is the most", "a reply that the other end may not send")
	require.NoError(t, far.Call(t.Context(), opAlive, nil, nil))
}

func TestLinkGone(t *testing.T) {
	entered := make(chan struct{})
	near, far := linkPair(t, refuseAll, func(ctx context.Context, _ *Request) ([]byte, error) {
		close(entered)
		<-ctx.Done() // which the end of the link ends
		return nil, ctx.Err()
	})
	failed := make(chan error)
	go func() { failed <- near.Call(context.Background(), 1, nil, nil) }()
	await(t, entered, "the request")
	far.Close()
	require.ErrorIs(t, <-failed, ErrGone)
	await(t, near.Done(), "the end")
	await(t, far.Done(), "the end")
	require.NoError(t, near.Err())
	require.ErrorIs(t, near.Call(t.Context(), 1, nil, nil), ErrGone)
}

// TestLinkBreach plays an end that somebody has taken over.
func TestLinkBreach(t *testing.T) {
	request := func(id uint64, body ...byte) []byte {
		return append(binary.AppendUvarint([]byte{frameRequest | frameFirst | frameLast}, id), body...)
	}
	first := func(kind byte, body []byte) []byte { return append([]byte{kind | frameFirst, 1}, body...) }
	for _, c := range []struct {
		name   string
		frames [][]byte
		files  int // with each frame
		want   string
	}{
		{"a frame that is none", [][]byte{{0}}, 0, "a frame that is none"},
		{"an unknown kind", [][]byte{{0x0F | frameFirst | frameLast, 1, 1}}, 0, "a frame that is none"},
		{"an unknown flag", [][]byte{{frameRequest | 0x40, 1, 1}}, 0, "a frame that is none"},
		{"half a number", [][]byte{{frameRequest | frameFirst, 0x80}}, 0, "a frame that is none"},
		{"a piece of no message", [][]byte{{frameRequest | frameLast, 1, 1}}, 0, "a piece of no message"},
		{"a piece of another message", [][]byte{first(frameRequest, nil), {frameRequest | frameLast, 2, 1}}, 0, "a piece of no message"},
		{"a piece of another kind", [][]byte{first(frameRequest, nil), {frameReply | frameLast, 1, 1}}, 0, "a piece of no message"},
		{"a later piece with descriptors", [][]byte{first(frameRequest, nil), {frameRequest | frameLast, 1, 1}}, 1, "a piece of no message"},
		{"a frame too long", [][]byte{append(request(1, 1), make([]byte, maxFrame)...)}, 0, "a frame of more than"},
		{"too many descriptors", [][]byte{request(1, 1)}, maxFiles + 1, "a frame of more than"},
		{"a message too long", append([][]byte{first(frameRequest, make([]byte, maxFrame-2))},
			slices.Repeat([][]byte{append([]byte{frameRequest, 1}, make([]byte, maxFrame-2)...)}, maxBody/(maxFrame-2))...), 0, "a message of more than 40960 bytes"},
		{"an empty request", [][]byte{request(1)}, 0, "an empty request"},
		{"a reply that nothing was asked for", [][]byte{{frameReply | frameFirst | frameLast, 1}}, 0, "nothing was asked for"},
		{"a reply with descriptors", [][]byte{{frameReply | frameFirst | frameLast, 1}}, 1, "a reply with descriptors"},
		{"a wish that only PID 1 may have", [][]byte{{frameEnd | frameFirst | frameLast, 1}}, 0, "a wish that is none of this end's"},
		{"a body that is not as agreed", [][]byte{request(1, 1, 200)}, 0, "request 1: the message ends too early"},
		{"bytes too many", [][]byte{request(1, opAlive, 1)}, 0, "request 0: the message has 1 bytes too many"},
		{"what the handler will not have", [][]byte{request(1, 2)}, 0, "not this"},
		{"requests without end", func() (frames [][]byte) {
			for i := range uint64(MaxCalls + 2) {
				frames = append(frames, request(i, 3))
			}
			return frames
		}(), 0, "more than 16 requests at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, err := socketPair()
			require.NoError(t, err)
			defer b.Close()
			l := startLink(t, a, func(ctx context.Context, r *Request) ([]byte, error) {
				switch r.Op {
				case 1:
					return echo(ctx, r)
				case 2:
					return nil, fmt.Errorf("%w: not this", ErrBreach)
				}
				<-ctx.Done()
				return nil, nil
			})
			before := countDescriptors(t)
			for _, frame := range c.frames {
				var fds []int
				for range c.files {
					fds = append(fds, int(b.Fd()))
				}
				err := unix.Sendmsg(int(b.Fd()), frame, unix.UnixRights(fds...), nil, 0)
				if errors.Is(err, unix.EPIPE) {
					break
				}
				require.NoError(t, err)
			}
			await(t, l.Done(), "the end of the link")
			require.ErrorIs(t, l.Err(), ErrBreach)
			require.ErrorContains(t, l.Err(), c.want)
			assert.LessOrEqual(t, countDescriptors(t), before, "what came is closed")
		})
	}
}

// TestLinkBadReply: a reply that is not as agreed ends the link.
func TestLinkBadReply(t *testing.T) {
	near, _ := linkPair(t, refuseAll, echo)
	err := near.Call(t.Context(), 1, []byte{1, 'x'}, nil) // expects no body
	require.ErrorIs(t, err, ErrBreach)
	await(t, near.Done(), "the end of the link")
	require.ErrorIs(t, near.Err(), ErrBreach)
}

func TestNewLinkErrors(t *testing.T) {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	_, err = newLink(f, maxBody)
	require.ErrorContains(t, err, "control link: ")
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fds[1])
	_, err = newLink(os.NewFile(uintptr(fds[0]), "stream"), maxBody)
	require.ErrorContains(t, err, "not a Unix socket for packets")
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
