//go:build !small

package router

import (
	"context"
	"maps"
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

const (
	// certificateLook is the time from one look at when certificates end to the next.
	certificateLook = time.Hour
	day             = 24 * time.Hour
)

// certificateWarnings are how long before its end the log is warned of a certificate: nothing renews it, and clients of a service whose
// certificate has run out refuse to speak with it.
var certificateWarnings = []time.Duration{30 * day, 7 * day, day, 0}

// certificateWatch knows of which certificates the log was warned, by their fingerprints, and how many of certificateWarnings it has had.
type certificateWatch map[string]int

// watchCertificates warns of certificates that will end soon, until ctx ends.
func (r *Router) watchCertificates(ctx context.Context) {
	looks := time.NewTicker(certificateLook)
	defer looks.Stop()
	for watch := (certificateWatch{}); ; {
		watch.look(r.snapshot().running, time.Now(), r.log)
		select {
		case <-looks.C:
		case <-ctx.Done():
			return
		}
	}
}

// look warns of certificates of services that are enabled. A clock that was never set is before all ends.
func (w certificateWatch) look(c console.Config, now time.Time, log *kmsg.Logger) {
	there := certificateWatch{}
	for _, s := range console.NetworkServices {
		i := slices.IndexFunc(c.Certificates, func(o certificate.Certificate) bool { return o.Name == s.Config(c).Certificate })
		if i < 0 || !s.Open(c) {
			continue
		}
		info, err := c.Certificates[i].Info()
		if err != nil {
			continue
		}
		key, step, left := s.Name+" "+info.Fingerprint, 0, info.To.Sub(now)
		for step < len(certificateWarnings) && left <= certificateWarnings[step] {
			step++
		}
		there[key] = step
		end := info.To.Add(c.TimeZone).Format(time.DateTime)
		switch {
		case step <= w[key]:
		case left <= 0:
			log.Printf(kmsg.Error, "certificate %s of %s has run out at %s: clients refuse it", c.Certificates[i].Name, s.Name, end)
		default:
			log.Printf(kmsg.Warning, "certificate %s of %s runs out at %s, in %d days: it needs another, as by /certificate sign", c.Certificates[i].Name, s.Name, end, left/day)
		}
	}
	clear(w)
	maps.Copy(w, there)
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
