package router

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
)

// maxNetworkSessions is how many sessions there may be over the network, and one more of who manages the router. They are
// counted apart, so that they never keep a serial line from having one.
const maxNetworkSessions = 8

// viaAPI is the session.Origin.Via of the API.
const viaAPI = "api"

// way is a way into the router: session.Origin.Via and TLS of it.
type way struct {
	via string
	tls bool
}

// networkService is a service of /ip service. The listening socket is PID 1's, and the process sleeps until
// somebody connects.
type networkService struct {
	console.NetworkService
	log     *kmsg.Logger
	process *service.Service
	// configure gives the process its configuration.
	configure func(_ context.Context, _ service.Parent, _ login.Config, _ login.TLS, extra string, _ *os.File) error
	// extra is what the service adds to that; nil is nothing.
	extra func(console.Config) string

	mu       sync.Mutex
	config   login.Config
	tls      login.TLS
	added    string   // of extra
	listener *os.File // nil while nobody can connect
	stopped  bool
}

// newNetworkService returns the service of that name. parent makes PID 1's end of its process.
func newNetworkService(s *service.Supervisor, log *kmsg.Logger, name string, spec service.Spec, parent func(*service.Link) service.Parent,
	configure func(context.Context, service.Parent, login.Config, login.TLS, string, *os.File) error) *networkService {
	i := slices.IndexFunc(console.NetworkServices, func(n console.NetworkService) bool { return n.Name == name })
	return &networkService{NetworkService: console.NetworkServices[i], log: log, configure: configure,
		process: s.NewService(spec, service.Options{Parent: parent})}
}

func (s *networkService) Name() string { return s.NetworkService.Name }

// Show has nothing to add: what the console shows is the configuration.
func (*networkService) Show(*console.Live) {}

// Health is nil: a router whose service does not answer does what it is for, and no stranger shall have it
// restarted.
func (*networkService) Health() error { return nil }

// Taken waits for nothing: a process that sleeps has no configuration to take.
func (*networkService) Taken(context.Context) error { return nil }

// Apply has the router listen on the port while somebody can log in.
func (s *networkService) Apply(next console.Config) error {
	config := s.Config(next)
	config.Disabled = !s.Open(next)
	tls, added := s.TLS(next), ""
	if s.extra != nil {
		added = s.extra(next)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return service.ErrStopped
	}
	if reflect.DeepEqual(config, s.config) && tls == s.tls && added == s.added && (s.listener != nil) == !config.Disabled {
		return nil
	}
	if config.Disabled {
		s.config = config
		s.closeListener()
		s.process.Set(nil)
		return nil
	}
	if s.listener == nil || s.config.Port != config.Port {
		// On every address: who may reach it is the firewall's to say.
		l, err := service.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), config.Port))
		if err != nil {
			return err
		}
		s.closeListener()
		s.listener = l
		s.log.Printf(kmsg.Info, "%s accepts on port %d", s.Name(), config.Port)
	}
	s.config, s.tls, s.added = config, tls, added
	listener := s.listener
	s.process.Set(&service.Desired{
		Listeners: []*os.File{listener},
		Configure: func(ctx context.Context, p service.Parent) error {
			return s.configure(ctx, p, config, tls, added, listener)
		},
	})
	return nil
}

// closeListener closes the listening socket, if there is one. The caller holds mu.
func (s *networkService) closeListener() {
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// Stop ends the service for good.
func (s *networkService) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.closeListener()
	s.mu.Unlock()
	s.process.Stop()
}

// newProgramService is a newNetworkService of the name of its process, whose users are programs; attach gives it r's.
func newProgramService(s *service.Supervisor, log *kmsg.Logger, spec service.Spec) *programService {
	v := &programService{}
	v.networkService = newNetworkService(s, log, spec.Name, spec,
		func(l *service.Link) service.Parent { return login.NewProcess(l, v.authority) },
		func(ctx context.Context, p service.Parent, c login.Config, tls login.TLS, extra string, listener *os.File) error {
			return p.(*login.Process).Configure(ctx, c, tls, extra, listener)
		})
	return v
}

// programService is a service whose sessions are those of programs (package program).
type programService struct {
	*networkService
	authority login.Authority
}

// attach has the sessions be those of r. Via is the way in.
func (s *programService) attach(r *Router, via way) {
	s.authority = r.loginAuthority(via)
	s.authority.Serve = func(conn net.Conn, l login.Login) { r.serveProgram(conn, origin(via, l), l.User, l.Number) }
}

// origin is where a login came from.
func origin(via way, l login.Login) session.Origin {
	if via.via == viaWeb && l.REST {
		via.via = viaREST
	}
	return session.Origin{Via: via.via, TLS: via.tls, Address: l.From}
}

// loginAuthority is what is the same for all services: that it is known who is logged in.
func (r *Router) loginAuthority(via way) login.Authority {
	return login.Authority{
		CheckPassword: func(l login.Login, secret string) (proof string) {
			if secret == "" && via.via == viaSSH && r.isFirst(via, l) { // the session asks for a password
				return proofOf(r.snapshot().running, l.User, "")
			}
			if hash, ok := r.judge(r.snapshot().running, origin(via, l), l.User, secret); ok {
				return hash + " "
			}
			return ""
		},
		Failures:    func(l login.Login) int { return r.logins.wrong(origin(via, l)) },
		MaySetFirst: func(l login.Login) bool { return r.isFirst(via, l) },
		SetFirst:    func(l login.Login, new string) string { return r.setFirst(via, l, new) },
		Manages:     func(l login.Login) bool { return r.manages(l.User) },
		LoggedIn: func(l login.Login) {
			u := &activeUser{user: l.User, from: origin(via, l), number: l.Number, proof: l.Proof, end: func() { go l.End() }}
			r.active.enter(u)
			r.logins.forgive(origin(via, l)) // by a key too
			r.logLogin(l.User, origin(via, l), "in")
			// The check took a while.
			r.active.endIf(func(other *activeUser) bool { return other == u && !u.holds(r.snapshot().usersOf(via.via)) })
		},
		LoggedOut: func(l login.Login) {
			r.active.leave(l.User, origin(via, l), l.Number)
			r.logLogin(l.User, origin(via, l), "out")
		},
	}
}

// manages reports whether a user may change users, and so whatever there is: others shall not keep him out.
func (r *Router) manages(user string) bool {
	return r.snapshot().config.May(user)&console.MayPolicy != 0
}

// serveUser holds a session over the network with a user who has logged in, and closes conn when it is
// over.
func (r *Router) serveUser(conn net.Conn, from session.Origin, user string, number uint64, first bool) {
	leave, err := r.enterNetwork(user)
	if err != nil {
		session.Refuse(conn, err.Error())
		return
	}
	defer leave()
	r.serve(conn, from, user, number, first)
}

// enterNetwork takes the place of a session over the network, until leave is called, or returns an error if there is none.
func (r *Router) enterNetwork(user string) (leave func(), err error) {
	room := int32(maxNetworkSessions)
	if r.manages(user) {
		room++
	}
	for {
		there := r.networkSessions.Load()
		if there >= room {
			return nil, fmt.Errorf("failure: %d sessions are there over the network, and there can be no more", there)
		}
		if r.networkSessions.CompareAndSwap(there, there+1) {
			return func() { r.networkSessions.Add(-1) }, nil
		}
	}
}
