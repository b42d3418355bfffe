package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
)

// checkTime is how long the server of newer versions may take to send the header of an image.
const checkTime = 30 * time.Second

// releaseURL is where the server has this board's image.
func (r *Router) releaseURL() string {
	return r.snapshot().running.UpdateURL + "/" + r.board.Name + "/sysupgrade.img"
}

// updateState tells the console what is known of newer versions.
func (r *Router) updateState() console.UpdateState {
	u := &r.upgrades
	u.mu.Lock()
	defer u.mu.Unlock()
	return console.UpdateState{Latest: u.latest, Status: u.status}
}

// checkForUpdates reads the header of the image that the server has, in two processes: one fetches, and one checks
// the signature. So what it says is signed, and no index is to be believed. It writes what came of it to out.
func (r *Router) checkForUpdates(ctx context.Context, out io.Writer) error {
	latest, err := r.lookForUpdate(ctx)
	status := "System is already up to date"
	switch {
	case err != nil:
		latest.Version, status = "", "ERROR: "+err.Error()
	case latest.Date.After(r.upgrades.running.Date):
		status = "New version is available"
	}
	r.upgrades.mu.Lock()
	r.upgrades.latest = latest.Version
	if r.upgrades.stop == nil { // an upgrade says how far it is
		r.upgrades.status = status
	}
	r.upgrades.mu.Unlock()
	if err == nil {
		r.log.Printf(kmsg.Info, "the update server has version %s of %s", latest.Version, latest.Date.Format(time.DateTime))
	}
	fmt.Fprintf(out, "         postern-version: %s\n", r.upgrades.running.Version)
	if latest.Version != "" {
		fmt.Fprintf(out, "  latest-postern-version: %s\n", latest.Version)
	}
	fmt.Fprintf(out, "                  status: %s\n", status)
	return nil
}

func (r *Router) lookForUpdate(ctx context.Context) (upgrade.Header, error) {
	var found upgrade.Header
	key, err := upgrade.ReadKey(r.root + upgrade.KeyFile)
	if err != nil {
		return found, err
	}
	in, body, err := os.Pipe()
	if err != nil {
		return found, err
	}
	ctx, cancel := service.WithTimeout(ctx, checkTime)
	defer cancel()
	fetched := make(chan error, 1)
	go func() {
		err := r.fromURL(r.releaseURL(), r.effective(r.snapshot()).Resolvers())(ctx, body)
		body.Close()
		fetched <- err
	}()
	err = r.supervisor.Run(ctx, upgrade.LookJob(key, in, r.upgrades.running, &found))
	late, nothing := ctx.Err() != nil, errors.Is(err, service.RemoteError(upgrade.ErrNothing.Error()))
	in.Close() // the rest of the image is not fetched
	if !nothing {
		cancel() // nor waited for, where the server is slow
	}
	why := <-fetched
	if late {
		return found, fmt.Errorf("no answer within %v", checkTime)
	}
	if nothing && why != nil {
		err = why // no byte came
	}
	return found, err
}
