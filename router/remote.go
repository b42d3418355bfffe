package router

import (
	"context"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
)

// remoteLog is the service that sends the log to a server.
type remoteLog struct {
	sender *kmsg.Remote
	// on says that a configuration was applied before: what is logged before the first goes
	// to the server too.
	on bool
}

func (*remoteLog) Name() string { return "remote log" }

func (l *remoteLog) Apply(next console.Config) error {
	names := map[string]string{}
	for _, p := range next.Links {
		if p.Renamed != "" {
			names[p.Name] = p.Renamed
		}
	}
	l.sender.Set(next.RemoteLog, next.Identity, names, !l.on)
	l.on = true
	return nil
}

func (*remoteLog) Taken(context.Context) error { return nil }

func (*remoteLog) Health() error { return nil }

func (*remoteLog) Show(live *console.Live) { live.RemoteLog = true }

func (l *remoteLog) Stop() { l.sender.Set(console.RemoteLog{}, "", nil, false) }
