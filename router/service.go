package router

import (
	"context"

	"github.com/postern-router/postern/console"
)

// Service is something that runs on the router beside its network and firewall. The router
// keeps its services in one list: it applies a configuration to each in that order, goes
// back in the other if one refuses, asks each how it is, and stops them at the end.
type Service interface {
	// Name is what errors and log lines call it.
	Name() string
	// Apply brings the service to next, or returns why it cannot be and leaves it as it
	// was. It checks what can be checked at once, such as a port that is taken. It does not
	// wait for a process: one that has to start, take its configuration or end does so
	// later. The router calls it for one configuration at a time.
	Apply(next console.Config) error
	// Taken waits until the process has what Apply was told last, or ctx ends, and returns why
	// it has not. Only whoever made the change waits for it, and holds no lock meanwhile.
	Taken(ctx context.Context) error
	// Health is why the service does not do what it should, or nil. It only reads what is
	// known: whether the hardware watchdog is answered depends on it.
	Health() error
	// Show fills in what the service alone can tell the console. The functions that it
	// sets may take their time: no lock is held while they are called.
	Show(live *console.Live)
	// Stop ends the service for good, in order: nothing of it runs afterwards, or starts
	// again, whatever Apply is told.
	Stop()
}
