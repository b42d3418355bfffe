//go:build small

package router

import (
	"context"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
)

// A small flash has no room for TLS.
var tlsProcesses []service.Spec

func (*Router) addTLS(*service.Supervisor, *kmsg.Logger) {}

func (*Router) offerCertificates(*console.Live) {}

func (*Router) watchCertificates(context.Context) {}

func (*Router) logCertificates(_, _ console.Config) {}
