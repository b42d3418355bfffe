// Command init is the router's one program: PID 1, and under the names of router.Processes, by
// which PID 1 starts it again, the processes that PID 1 supervises.
//
// PID 1 mounts the file systems, loads the configuration and applies it, first the
// firewall, and keeps what should run running. It promises:
//   - nothing is forwarded and no port answers before the user's rules stand;
//   - a configuration that is wrong anywhere is applied nowhere: the router is then
//     reachable on its LAN, forwards nothing, and its log names file and line. Of one
//     that flash has kept, perhaps from another version, lines that have nothing to do
//     with the firewall are kept out instead;
//   - what is accepted is on flash some seconds later, and at the next start; flash
//     that fails is told of and holds nothing up;
//   - a process that ends is started again, with growing pauses, and the SOCKS
//     port goes on listening meanwhile;
//   - SIGTERM and SIGINT restart the machine in order, SIGUSR2 powers it off; a
//     panic of PID 1 is one of the kernel, which restarts after 10 seconds.
//
// No process in the shipped image starts another but PID 1, so it waits for its
// own children by their ids and for no other.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/postern-router/postern/router"
)

func main() {
	// Of what a person looks at each process leaves 1 MB behind before it collects it, not 4.
	debug.SetGCPercent(25)
	name := filepath.Base(os.Args[0])
	if spec, ok := router.Processes.Find(name); ok {
		os.Exit(spec.RunChild())
	}
	if name != "init" || os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "init: called as %q: this is for the kernel to start, as PID 1\n", name)
		os.Exit(2)
	}
	runInit()
}
