package router

import (
	"net/netip"
	"slices"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/web"
)

// viaWeb is the session.Origin.Via of the page, and viaREST of REST and of metrics, in RouterOS's words.
const (
	viaWeb  = "web"
	viaREST = "rest-api"
)

// newWebService returns the service of the page, with the process of a Spec, which is told the names of the router.
func newWebService(s *service.Supervisor, log *kmsg.Logger, spec service.Spec) *programService {
	v := newProgramService(s, log, spec)
	v.extra = func(c console.Config) string { return web.Extra(ownNames(c)) }
	return v
}

// ownNames are the names by which hosts find the router: its own, and those that it tells of its addresses.
func ownNames(c console.Config) []string {
	names := []string{c.Identity}
	own := func(a netip.Addr) bool {
		return slices.ContainsFunc(c.Addresses, func(o netcfg.Address) bool { return o.Address.Addr() == a })
	}
	for _, s := range c.DNSServer.Static {
		if s.Name != "" && !s.Disabled && own(s.Address) {
			names = append(names, s.Name)
		}
	}
	return names
}
