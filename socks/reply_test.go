package socks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/resolve"
)

func TestCode5(t *testing.T) {
	connect := func(err error) error { return fmt.Errorf("connect to 192.0.2.1:80: %w", err) }
	denied := decided(t)
	for _, c := range []struct {
		name string
		err  error
		want byte
	}{
		{"nothing known", errors.New("no firewall"), 1},
		{"no error", nil, 1},
		{"no descriptors", fmt.Errorf("socket: %w", unix.EMFILE), 1},
		{"no name servers", nameError{fmt.Errorf("address of x: %w", resolve.ErrNoServers)}, 1},
		{"rule", denied, 2},
		{"rule, for a call", fmt.Errorf("call: %w", denied), 2},
		{"own address", (&ownProbe{fd: none}).checkForeign(netip.MustParseAddr("127.0.0.1")), 2},
		{"prohibit route", connect(unix.EACCES), 2},
		{"dropped on its way out", connect(unix.EPERM), 2},
		{"no route", connect(unix.ENETUNREACH), 3},
		{"route, of a BIND", fmt.Errorf("route to 192.0.2.1: %w", unix.ENETUNREACH), 3},
		{"host does not answer ARP", connect(unix.EHOSTUNREACH), 4},
		{"no such name", nameError{fmt.Errorf("address of x: %w", resolve.ErrNotFound)}, 4},
		{"name server silent", nameError{context.DeadlineExceeded}, 4},
		{"nobody listens", connect(unix.ECONNREFUSED), 5},
		{"silent", connect(unix.ETIMEDOUT), 6},
		{"silent for longer than the server waits", connect(errConnectTimeout), 6},
		{"nobody calls", errBindTimeout, 6},
		{"one address is denied, one refuses", errors.Join(denied, connect(unix.ECONNREFUSED)), 5},
		{"one address is unreachable, one denied", errors.Join(connect(unix.EHOSTUNREACH), denied), 4},
		{"command", replyError{reply5Command, "command 9"}, 7},
		{"IPv6", fmt.Errorf("request: %w", replyError{reply5AddressType, "IPv6"}), 8},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, code5(c.err)) })
	}
}

// decided is the error of a rule that denies.
func decided(t *testing.T) error {
	s := New(Options{})
	t.Cleanup(s.Shutdown)
	s.cfg.Access = []Rule{{Action: Deny}}
	s.hits = make([]uint64, 1)
	return s.allow(&conn{}, netip.MustParseAddrPort("192.0.2.1:80"))
}
