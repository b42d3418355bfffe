package router

import (
	"context"
	"maps"
	"net/netip"
	"reflect"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
)

// remoteLog is the service that sends the log to a server.
type remoteLog struct {
	sender interface {
		Set(to kmsg.Destination, whole bool)
	}
	// config, host and names are those that were applied last, if applied says so.
	config  console.RemoteLog
	host    string
	names   map[string]string
	applied bool
}

func (*remoteLog) Name() string { return "remote log" }

// Apply has the log sent to who is to have it now. What was logged before the first time goes
// there too.
func (l *remoteLog) Apply(next console.Config) error {
	names := map[string]string{}
	for _, p := range next.Links {
		if p.Renamed != "" {
			names[p.Name] = p.Renamed
		}
	}
	config, host := next.RemoteLog, next.Identity
	if l.applied && reflect.DeepEqual(config, l.config) && host == l.host && maps.Equal(names, l.names) {
		return nil
	}
	to := kmsg.Destination{Sends: config.Sends, Host: host, Names: names}
	if config.Address.IsValid() {
		to.Server = netip.AddrPortFrom(config.Address, config.Port)
	}
	l.sender.Set(to, !l.applied)
	l.config, l.host, l.names, l.applied = config, host, names, true
	return nil
}

func (*remoteLog) Taken(context.Context) error { return nil }

// Health is nil: a router whose server is out of reach does what it is for.
func (*remoteLog) Health() error { return nil }

func (*remoteLog) Show(live *console.Live) { live.RemoteLog = true }

func (l *remoteLog) Stop() { l.sender.Set(kmsg.Destination{}, false) }
