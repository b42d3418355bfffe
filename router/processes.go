package router

import (
	"context"
	"net"
	"os"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/console/terminal"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/fetch"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/neighbor"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/ping"
	"github.com/postern-router/postern/pppoe"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks/daemon"
	"github.com/postern-router/postern/ssh/sshd"
	"github.com/postern-router/postern/upgrade"
	"github.com/postern-router/postern/web"
)

// Processes are the services of the shipped program that have a process of their own: what its
// main function can be besides PID 1, and what PID 1 starts. Each has a user of its own.
var Processes = service.NewTable(append([]service.Spec{daemon.Spec, terminal.Spec, ntp.Spec, ping.Spec, fetch.Spec, upgrade.Spec, server.Spec, client.Spec,
	dns.Spec, sshd.Spec, pppoe.Spec, api.Spec, neighbor.Spec, web.Spec}, tlsProcesses...)...)

// rootFolders is where the root folders of processes are.
const rootFolders = "/run/service"

// newSupervisor returns who runs the processes.
func newSupervisor(log *kmsg.Logger) *service.Supervisor {
	return &service.Supervisor{Program: programPath, Table: Processes, Roots: rootFolders,
		Log: func(topic string) service.Log { return log.About(topic) }}
}

const (
	debugShell     = "/bbin/gosh"
	debugShellWord = "postern.shell"
)

// startConsoles keeps a console on each of the board's terminals until ctx is done.
func (r *Router) startConsoles(ctx context.Context) {
	spec := terminal.Spec
	if r.shellWanted() {
		// A debug image only: there is no shell in the other.
		spec = service.Spec{Name: "shell", Program: debugShell, MayEnd: true}
	}
	for _, tty := range r.board.Consoles {
		from := session.Origin{Via: session.Console, Terminal: tty}
		c := r.supervisor.NewService(spec, service.Options{
			Terminal: "/dev/" + tty, Label: spec.Name + " on " + tty,
			Parent: func(*service.Link) service.Parent {
				return terminal.NewProcess(func(conn net.Conn) { r.Serve(conn, from) })
			},
		})
		c.Set(&service.Desired{})
		context.AfterFunc(ctx, c.Stop)
	}
}

// shellWanted reports whether the kernel's command line asks for a shell and the
// image has one.
func (r *Router) shellWanted() bool {
	if !r.hasWord(debugShellWord) {
		return false
	}
	_, err := os.Stat(debugShell)
	return err == nil
}
