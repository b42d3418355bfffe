package resolve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	// maxUDP is room for an answer over UDP, in bytes. RFC 1035 allows 512, as the
	// question does not ask for more; some servers send more all the same.
	maxUDP = 1500
	// maxTCP is the longest answer over TCP that is read: some 1,000 addresses.
	maxTCP = 16 << 10
)

// errSilent means that no answer came in time.
var errSilent = errors.New("did not answer")

// ask asks one server for the addresses of a name over UDP and, if the answer is truncated,
// over TCP. Each of the two may take as long as wait.
func ask(ctx context.Context, server netip.AddrPort, name string, wait time.Duration) (answer, error) {
	a, err := exchange(ctx, askUDP, server, name, wait)
	if err == errTruncated {
		a, err = exchange(ctx, askTCP, server, name, wait)
	}
	return a, err
}

// exchange asks a server in one of two ways, and waits for the answer.
func exchange(ctx context.Context, way func(context.Context, netip.AddrPort, question) (answer, error),
	server netip.AddrPort, name string, wait time.Duration) (answer, error) {
	ctx, cancel := withTimeout(ctx, wait)
	defer cancel()
	var id [2]byte
	rand.Read(id[:])
	q, err := newQuestion(binary.BigEndian.Uint16(id[:]), name)
	if err != nil {
		return answer{}, err
	}
	a, err := way(ctx, server, q)
	if err != nil && ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	if err == errUnhelped && server.Addr().IsLoopback() {
		return answer{}, ErrNoServers // that it could ask: so says package dns, too
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return answer{}, fmt.Errorf("cannot be asked: %w", Reason(op))
	}
	return a, err
}

// Reason is what an error of a connection is about, without what package net writes before that:
// the addresses of both sockets and the system call, which are no help to who reads it. Other
// errors, and nil, it returns as they are.
func Reason(err error) error {
	op, ok := err.(*net.OpError)
	if !ok {
		return err
	}
	if call, ok := op.Err.(*os.SyscallError); ok {
		return call.Err
	}
	return op.Err
}

// askUDP asks over UDP.
func askUDP(ctx context.Context, server netip.AddrPort, q question) (a answer, err error) {
	message, err := q.append(nil)
	if err != nil {
		return answer{}, err
	}
	failure := AskUDP(ctx, server, message, maxUDP, func(b []byte) bool {
		a, err = q.answer(b)
		return err != errForeign
	})
	if failure != nil {
		return answer{}, failure
	}
	return a, err
}

// askTCP asks over TCP.
func askTCP(ctx context.Context, server netip.AddrPort, q question) (answer, error) {
	message, err := q.append(nil)
	if err != nil {
		return answer{}, err
	}
	b, err := AskTCP(ctx, server, message, maxTCP)
	if err != nil {
		return answer{}, err
	}
	a, err := q.answer(b)
	if err == errForeign {
		err = errors.New("sent what is not the answer to the question")
	}
	return a, err
}

// timeoutSteps is in how many steps withTimeout counts time.
const timeoutSteps = 8

// withTimeout returns a context that ends after d, with the cause errSilent. It counts the
// time in steps, however late each of them comes. So when a machine continues that stood
// still, most of the time is left, and an answer that has come meanwhile is read.
func withTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	step := d / timeoutSteps
	left := timeoutSteps
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		if left--; left == 0 {
			cancel(errSilent)
		}
		if ctx.Err() == nil {
			timer.Reset(step)
		}
	})
	timer.Reset(step)
	return ctx, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}
