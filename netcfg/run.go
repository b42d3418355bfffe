package netcfg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// settle is how long Run waits after the first of a burst of changes.
	settle = 100 * time.Millisecond
	// maxSettle is the longest such wait. It grows while the repairs are undone or refused
	// again and again.
	maxSettle = 10 * time.Second
)

// Run keeps the kernel at the Config in force: it listens to changes and repairs what
// differs, a moment later. Before the first Apply it does nothing. It returns only when ctx
// is done, with its cause. It takes no processor time while nothing changes.
func (m *Manager) Run(ctx context.Context) error {
	delay := settle
	for {
		err := m.follow(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.logf("netcfg: listening to changes: %v; again in %v", err, delay)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(2*delay, maxSettle)
	}
}

// follow repairs and listens in turn, until ctx is done or the subscription breaks.
func (m *Manager) follow(ctx context.Context) error {
	f, err := subscribe()
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()

	// The time of the next repair is the deadline of the read, zero if none is
	// due. The first is due now: something may have changed before we listened.
	due := time.Now()
	delay := settle
	logged := ""
	// A repair compares everything, so it does not matter what has changed: the rest of a
	// message is dropped.
	header := make([]byte, unix.NLMSG_HDRLEN)
	for {
		if err := f.SetReadDeadline(due); err != nil {
			return err
		}
		_, err := f.Read(header)
		switch {
		case err == nil || errors.Is(err, unix.ENOBUFS): // overflow: some changes were not heard
			if next := time.Now().Add(delay); due.IsZero() || next.Before(due) {
				due = next
			}
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}

		changes, err := m.repair()
		if len(changes) > 0 {
			m.logf("netcfg: repaired: %s", strings.Join(changes, "; "))
		}
		message := ""
		if err != nil {
			message = err.Error()
		}
		if message != "" && message != logged {
			m.logf("netcfg: cannot repair: %s", message)
		}
		logged = message

		// Run hears its own changes too. The repair that follows finds nothing to do, and
		// that is the end of it. If someone undoes the changes at once, the pauses get
		// longer and longer.
		due = time.Time{}
		switch {
		case err != nil:
			delay = min(2*delay, maxSettle)
			due = time.Now().Add(delay)
		case len(changes) > 0:
			delay = min(2*delay, maxSettle)
		default:
			delay = settle
		}
	}
}

// subscribe opens a socket that gets a message for each change of links, their queues, IPv4 addresses,
// IPv4 routes, rules and forwarding. Its buffer in the kernel is small. When it overflows, a read
// returns ENOBUFS, which also tells that something has changed.
func subscribe() (*os.File, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("subscribe to netlink: %w", err)
	}
	defer s.Close()
	if err := s.SetReceiveBufferSize(8<<10, false); err != nil {
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	// s receives only whole datagrams, and would hold 64 KB while it waits. A file can be
	// read for the first bytes of a datagram, which is enough to know that there is one.
	fd, err := unix.FcntlInt(uintptr(s.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate netlink socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}
