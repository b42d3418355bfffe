package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ping"
)

// pingEnd is how long a process has for its last line when it is to end.
const pingEnd = time.Second

// stream does what takes its time and shows how it goes. The requests of ping or traceroute
// are sent by a process of its own, a user who has nothing but the socket for it, in
// socksd's root folder. It ends with ctx.
func (r *Router) stream(ctx context.Context, result console.Result, out io.Writer) error {
	if result.Request == console.Upgrade {
		return r.upgradeTo(ctx, result.Upgrade, out)
	}
	servers := r.effective(r.snapshot()).DNS
	p := result.Ping
	arguments := ping.Arguments(p.Address, p.Count, p.Interval, p.Size, servers)
	if t := result.Traceroute; result.Request == console.Traceroute {
		arguments = ping.TraceArguments(t.Address, t.MaxHops, t.Timeout, servers)
	}
	socket, err := ping.Open()
	if err != nil {
		return err
	}
	defer socket.Close()
	cmd := processOfNobody(ctx, "ping", arguments)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stdout, cmd.Stderr = out, r.log
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() || ctx.Err() != nil {
		return nil // it has said itself why, or was told to end
	}
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}
