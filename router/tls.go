//go:build !small

package router

import (
	"slices"
	"time"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/web"
)

// tlsProcesses are the services over TLS. Each has a process beside that of the service without.
var tlsProcesses = []service.Spec{api.TLSSpec, web.TLSSpec}

// addTLS adds the services over TLS. Nothing of them is there while they are disabled, and no process until somebody connects.
func (r *Router) addTLS(s *service.Supervisor, log *kmsg.Logger) {
	programs := newProgramService(s, log.About("api"), api.TLSSpec)
	page := newWebService(s, log.About("www"), web.TLSSpec)
	programs.attach(r, way{viaAPI, true})
	page.attach(r, way{viaWeb, true})
	r.services = append(r.services, programs, page)
}

// firstBuilt is the day on which software was built that does not know when.
var firstBuilt = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// offerCertificates has the console make certificates.
func (r *Router) offerCertificates(live *console.Live) {
	live.MakeCertificate = func(c certificate.Certificate) (certificate.Certificate, error) {
		built := r.upgrades.running.Date
		if built.Before(firstBuilt) {
			built = firstBuilt
		}
		return certificate.Make(c, time.Now(), built)
	}
}

// logCertificates tells the log of new certificates, by which clients are to know the router from now on.
func (r *Router) logCertificates(before, after console.Config) {
	for _, c := range after.Certificates {
		had := slices.ContainsFunc(before.Certificates, func(o certificate.Certificate) bool { return o.Chain == c.Chain })
		if info, err := c.Info(); err == nil && !had {
			r.log.Printf(kmsg.Info, "certificate %s: fingerprint %s", c.Name, info.Fingerprint)
		}
	}
}
