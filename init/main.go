// Command init is the router's one program: PID 1, and under the names socksd and
// console, by which PID 1 starts it again, the processes that PID 1 supervises.
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

	"github.com/postern-router/postern/console/terminal"
	"github.com/postern-router/postern/fetch"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/ping"
	"github.com/postern-router/postern/router"
	"github.com/postern-router/postern/socks/daemon"
	"github.com/postern-router/postern/upgrade"
)

func main() {
	// Of what a person looks at each process leaves 1 MB behind before it collects it, not 4.
	debug.SetGCPercent(25)
	switch name := filepath.Base(os.Args[0]); name {
	case "socksd":
		os.Exit(daemon.Main(os.Args[1:]))
	case "ping":
		os.Exit(ping.Main(os.Args[1:]))
	case "ntp":
		os.Exit(ntp.Main(os.Args[1:]))
	case "fetch":
		os.Exit(fetch.Main(os.Args[1:]))
	case "upgrade":
		os.Exit(upgrade.Main(os.Args[1:]))
	case "console":
		if err := terminal.Run(router.SessionSocket, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "console:", err)
			os.Exit(1)
		}
	case "init":
		if os.Getpid() != 1 {
			fmt.Fprintln(os.Stderr, "init: this is for the kernel to start, as PID 1")
			os.Exit(2)
		}
		runInit()
	default:
		fmt.Fprintf(os.Stderr, "init: called as %q: want init, socksd, console, ping, fetch, ntp or upgrade\n", name)
		os.Exit(2)
	}
}
