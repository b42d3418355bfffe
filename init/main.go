// Command init is the router's one program: PID 1, and under the names of router.Processes, by
// which PID 1 starts it again, the processes that PID 1 supervises.
//
// PID 1 mounts the file systems, opens the log and the hardware watchdog, runs the router
// (package router) and ends it in order. It promises:
//   - nothing is forwarded and no port answers before the user's rules stand;
//   - a configuration from the image that is wrong anywhere is not applied: the router is then
//     reachable on its LAN, forwards nothing, and its log names file and line. Of one from
//     flash, which another version may have written, wrong lines that have nothing to do with
//     the firewall are left out instead;
//   - what is accepted is on flash some seconds later, and in force at the next start; flash
//     that fails is reported and holds nothing up;
//   - a process that ends is started again, with growing pauses, and the SOCKS port goes on
//     listening meanwhile;
//   - SIGTERM and SIGINT restart the machine in order, SIGUSR2 powers it off; if PID 1 panics,
//     so does the kernel, which restarts after 10 seconds.
//
// In the shipped image only PID 1 starts processes, so it waits for its own children by their
// ids and for no other process.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/postern-router/postern/router"
)

// collectorPercent is how much more memory than it had after a collection a process takes until the next. By itself Go collects when
// there are 4 MB; a process here has 1 MB at most.
const collectorPercent = 25

func main() {
	name := filepath.Base(os.Args[0])
	if spec, ok := router.Processes.Find(name); ok {
		debug.SetGCPercent(collectorPercent)
		os.Exit(spec.RunChild())
	}
	if name != "init" || os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "init: called as %q: this is for the kernel to start, as PID 1\n", name)
		os.Exit(2)
	}
	runInit()
}
