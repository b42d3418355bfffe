// Command confined is a service that tries what it must not do, for the tests of package
// service. They build it without cgo, as the shipped program is built.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

// Table is the program's services. The first one fills the first user.
var table = service.NewTable(
	service.Spec{Name: "other", Main: func(*service.Child) error { return nil }},
	service.Spec{Name: "confined", Main: run, Calls: service.Client(), Limits: service.Limits{Files: 20, Memory: 4 << 20}, StopTime: time.Minute},
	service.Spec{Name: "unknown-call", Main: run, Calls: service.Calls{Checked: []service.Check{{Argument: 1 << 20, Is: 99}}}},
)

func main() {
	spec, ok := table.Find(filepath.Base(os.Args[0]))
	if !ok {
		os.Exit(2)
	}
	os.Exit(spec.RunChild())
}

func run(c *service.Child) error {
	return c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) {
		address := r.String(100)
		var e service.Encoder
		for _, err := range []error{
			second(os.ReadFile("/proc/self/status")),
			os.WriteFile("/tmp/file", nil, 0o600),
			forkExec(),
			unix.Kill(1, 0),
			second(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)),
			second(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)),
			second(unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)),
			unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1000, Max: 1000}),
			roomForHeap(),
			work(address),
		} {
			text := "ok"
			if err != nil {
				text = err.Error()
			}
			e.String(text)
		}
		return e.Bytes(), nil
	})
}

func forkExec() error {
	_, _, err := syscall.StartProcess("/proc/self/exe", nil, &syscall.ProcAttr{})
	return err
}

// roomForHeap returns an error if what Go's runtime takes for itself leaves little of the limit, so that the
// collector would never rest.
func roomForHeap() error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if left := debug.SetMemoryLimit(-1) - int64(m.Sys-m.HeapReleased-m.HeapInuse); left < 2<<20 {
		return fmt.Errorf("%d bytes of the limit are left", left)
	}
	return nil
}

func second[T any](_ T, err error) error { return err }

// work is what such a service does: connections, timers, threads, memory.
func work(address string) error {
	errs := make(chan error, 4)
	var working sync.WaitGroup
	for range cap(errs) {
		working.Go(func() {
			conn, err := net.Dial("tcp4", address)
			if err == nil {
				_, err = conn.Write(make([]byte, 1<<20))
				conn.Close()
			}
			time.Sleep(time.Millisecond)
			errs <- err
		})
	}
	working.Wait()
	for range cap(errs) {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}
