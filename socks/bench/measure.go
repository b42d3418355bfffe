package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long the measures take.
const (
	bulkWarmUp     = 300 * time.Millisecond
	bulkTime       = 1500 * time.Millisecond
	connectionTime = 2 * time.Second
	idleSettling   = 1500 * time.Millisecond
	slowTime       = 3 * time.Second
	// endTime is the most to wait for the end of a measure's connections.
	endTime = 2 * time.Second
)

// A slow receiver reads slowSize bytes each slowPause: 40 kB/s.
const (
	slowSize  = 4000
	slowPause = 100 * time.Millisecond
)

// warmUp is how many connections a server has had before its memory is read.
const warmUp = 32

// measure is a load, and the figures that are read while it lasts.
type measure struct {
	name string
	once bool // only in the first round: it takes long, and does not depend on speed
	busy bool // beside busyPrograms
	run  func(ctx context.Context, s *server, t *target, found results) error
}

func measures() []measure {
	return []measure{
		{name: "memory of idle connections", run: idle},
		{name: connectionRate, run: func(ctx context.Context, s *server, _ *target, found results) error {
			return connections(ctx, s, connectionRate, true, found)
		}},
		{name: bulk1, run: bulkOf(1, bulk1, "")},
		{name: bulk4, run: bulkOf(4, bulk4, cpuPerGB)},
		{name: bulk64, run: bulkOf(64, bulk64, "")},
		{name: busyRate, busy: true, run: func(ctx context.Context, s *server, _ *target, found results) error {
			return connections(ctx, s, busyRate, false, found)
		}},
		{name: busyBulk4, busy: true, run: bulkOf(4, busyBulk4, "")},
		{name: "memory with slow receivers", once: true, run: slow},
	}
}

func bulkOf(streams int, speed, cpu string) func(context.Context, *server, *target, results) error {
	return func(ctx context.Context, s *server, t *target, found results) error {
		return bulk(ctx, s, t, streams, speed, cpu, found)
	}
}

// take runs the measure, and waits until the machine has no more TCP sockets than before:
// then the server has closed its connections.
func (m measure) take(ctx context.Context, s *server, t *target, found results) error {
	before, err := readSockets()
	if err != nil {
		return err
	}
	if err := m.run(ctx, s, t, found); err != nil {
		return err
	}
	return ended(ctx, before)
}

// ended waits until there are no more TCP sockets than before. It is not an error if there
// are: other programs use the machine too.
func ended(ctx context.Context, before sockets) error {
	for limit := time.Now().Add(endTime); time.Now().Before(limit); {
		now, err := readSockets()
		if err != nil {
			return err
		}
		if now.inUse <= before.inUse {
			return nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// bulk downloads over that many streams at once. It measures what the sinks got in bulkTime
// and, if cpu is not empty, the CPU time that the server used for it. The sinks are cheap,
// because on a router the ends of a connection cost nothing: the kernel discards what they
// get instead of copying it. (That the data is right has been checked before, by check.)
func bulk(ctx context.Context, s *server, t *target, streams int, speed, cpu string, found results) error {
	conns, err := s.connectMany(ctx, streams, t.source, nil)
	if err != nil {
		return err
	}
	if err := startSources(conns...); err != nil {
		closeAll(conns)
		return err
	}
	var received atomic.Int64
	var sinks sync.WaitGroup
	errs := make([]error, streams)
	for i, conn := range conns {
		sinks.Go(func() { errs[i] = discard(conn, &received) })
	}
	sample := func() (time.Time, int64, time.Duration, error) {
		used, err := s.cpuTime()
		return time.Now(), received.Load(), used, err
	}
	err = func() error {
		if err := wait(ctx, bulkWarmUp); err != nil {
			return err
		}
		start, bytesBefore, cpuBefore, err := sample()
		if err != nil {
			return err
		}
		if err := wait(ctx, bulkTime); err != nil {
			return err
		}
		end, bytesAfter, cpuAfter, err := sample()
		if err != nil {
			return err
		}
		size := float64(bytesAfter - bytesBefore)
		if size == 0 {
			return errors.New("no data")
		}
		found.add(s.name, speed, size/1e6/end.Sub(start).Seconds())
		if cpu != "" && s.version != 0 {
			found.add(s.name, cpu, (cpuAfter-cpuBefore).Seconds()/(size/1e9))
		}
		return nil
	}()
	closeAll(conns)
	sinks.Wait()
	for _, e := range errs {
		if !errors.Is(e, net.ErrClosed) && err == nil {
			err = fmt.Errorf("a stream ended: %w", e)
		}
	}
	return err
}

// discard receives until the stream ends or is closed, which is the error.
func discard(conn syscall.Conn, received *atomic.Int64) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	// Only its size matters, which is the most to discard at once: with MSG_TRUNC, tcp(7),
	// the kernel writes nothing to it.
	buf := make([]byte, blockSize)
	var n int
	var failed error
	receive := func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
		return !errors.Is(failed, unix.EAGAIN)
	}
	for {
		if err := raw.Read(receive); err != nil {
			return err
		}
		if failed != nil {
			return fmt.Errorf("receive: %w", failed)
		}
		if n == 0 {
			return io.EOF
		}
		received.Add(int64(n))
	}
}

// connections makes visits for connectionTime, as many at a time as there are addresses. It
// adds their rate and how many failed, and if all is true what else it measured.
func connections(ctx context.Context, s *server, rate string, all bool, found results) error {
	cpuBefore, err := s.cpuTime()
	if err != nil {
		return err
	}
	// The thread that makes the visits is this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	loadBefore, err := threadTime()
	if err != nil {
		return err
	}
	start := time.Now()
	latencies, failed, err := s.visits(ctx, 0, start.Add(connectionTime))
	took := time.Since(start)
	if err != nil {
		return err
	}
	cpuAfter, err := s.cpuTime()
	if err != nil {
		return err
	}
	loadAfter, err := threadTime()
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		fmt.Fprintf(os.Stderr, "%s: %d connections failed, the first: %v\n", s.name, len(failed), failed[0])
	}
	if len(latencies) == 0 {
		return fmt.Errorf("no connection succeeded: %w", failed[0])
	}
	found.add(s.name, rate, float64(len(latencies))/took.Seconds())
	found.add(s.name, connectionsFailed, float64(len(failed)))
	if !all {
		return nil
	}
	visits := float64(len(latencies) + len(failed))
	if s.version != 0 {
		found.add(s.name, cpuPerConnection, (cpuAfter-cpuBefore).Seconds()*1e6/visits)
	}
	found.add(s.name, loadPerConnection, (loadAfter-loadBefore).Seconds()*1e6/visits)
	found.add(s.name, latency50, quantile(latencies, 0.50))
	found.add(s.name, latency99, quantile(latencies, 0.99))
	return nil
}

// threadTime returns the processor time of this thread.
func threadTime() (time.Duration, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		return 0, fmt.Errorf("processor time of the load: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// idle measures what the server holds for a connection that is silent after a byte in each
// direction. It is the difference between connectionsHeld such connections and none, after
// some others that warmed the server up.
func idle(ctx context.Context, s *server, t *target, found results) error {
	if s.version == 0 {
		return nil
	}
	exchangeOne := func(conn *net.TCPConn) error { return take(conn, echoTurn(1)) }
	state, err := readSockets()
	if err != nil {
		return err
	}
	conns, err := s.connectMany(ctx, warmUp, t.echo, exchangeOne)
	if err != nil {
		return err
	}
	closeAll(conns)
	if err := ended(ctx, state); err != nil {
		return err
	}
	if err := wait(ctx, idleSettling/3); err != nil {
		return err
	}
	before, err := s.memory()
	if err != nil {
		return err
	}
	if conns, err = s.connectMany(ctx, connectionsHeld, t.echo, exchangeOne); err != nil {
		return err
	}
	defer closeAll(conns)
	if err := wait(ctx, idleSettling); err != nil {
		return err
	}
	with, err := s.memory()
	if err != nil {
		return err
	}
	// They must still be open.
	for _, conn := range conns {
		if err := errors.Join(conn.SetDeadline(time.Now().Add(patience)), exchangeOne(conn)); err != nil {
			return fmt.Errorf("an idle connection: %w", err)
		}
	}
	found.add(s.name, idleMemory, float64(with.pss-before.pss)/connectionsHeld)
	found.add(s.name, idleDescriptors, float64(with.descriptors-before.descriptors)/connectionsHeld)
	return nil
}

// slow measures the memory of the server, and that of the kernel for all TCP sockets of the
// machine, while connectionsHeld slow receivers read streams without an end.
func slow(ctx context.Context, s *server, t *target, found results) error {
	before, err := readSockets()
	if err != nil {
		return err
	}
	conns, err := s.connectMany(ctx, connectionsHeld, t.source, nil)
	if err != nil {
		return err
	}
	if err := startSources(conns...); err != nil {
		closeAll(conns)
		return err
	}
	var receivers sync.WaitGroup
	errs := make([]error, len(conns))
	for i, conn := range conns {
		receivers.Go(func() {
			buf := make([]byte, slowSize)
			for errs[i] == nil {
				_, errs[i] = conn.Read(buf)
				time.Sleep(slowPause)
			}
		})
	}
	err = func() error {
		if err := wait(ctx, slowTime); err != nil {
			return err
		}
		after, err := readSockets()
		if err != nil {
			return err
		}
		found.add(s.name, slowKernelMemory, float64(after.memory-before.memory)/1e6)
		if s.version == 0 {
			return nil
		}
		with, err := s.memory()
		if err != nil {
			return err
		}
		found.add(s.name, slowMemory, float64(with.pss)/1e6)
		return nil
	}()
	closeAll(conns)
	receivers.Wait()
	for _, e := range errs {
		if !errors.Is(e, net.ErrClosed) && err == nil {
			err = fmt.Errorf("a slow receiver's stream ended: %w", e)
		}
	}
	return err
}
