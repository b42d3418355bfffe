package router

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"sync"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
	"github.com/postern-router/postern/ssh/sshd"
)

// viaSSH is the session.Origin.Via of SSH.
const viaSSH = "ssh"

// maxNetworkSessions is how many sessions there may be over the network. They are counted apart, so that
// they never keep a serial line from having one.
const maxNetworkSessions = 8

// sshService is SSH on this router. The listening socket is PID 1's, and the process sleeps until
// somebody connects.
type sshService struct {
	log     *kmsg.Logger
	process *service.Service
	// authority is what only the router can do; the key is added for each process.
	authority sshd.Authority

	// getKey and putKey keep the seed of the host key (RFC 8032), in base64; "" is none.
	getKey  func() string
	putKey  func(string) error
	keyOnce sync.Once
	key     ed25519.PrivateKey

	mu       sync.Mutex
	config   ssh.Config
	listener *os.File // nil while nobody can connect
	stopped  bool
}

func newSSHService(s *service.Supervisor, log *kmsg.Logger) *sshService {
	v := &sshService{log: log}
	v.process = s.NewService(sshd.Spec, service.Options{Parent: func(l *service.Link) service.Parent {
		key := v.hostKey()
		a := v.authority
		a.HostKey = [ssh.KeySize]byte(key.Public().(ed25519.PublicKey))
		a.Sign = func(data []byte) []byte { return ed25519.Sign(key, data) }
		return sshd.NewProcess(l, a)
	}})
	return v
}

// attach has the sessions of SSH be those of r, whose flash keeps the host key.
func (s *sshService) attach(r *Router) {
	s.getKey, s.putKey = r.kept.getHostKey, r.kept.putHostKey
	if r.state.kept() {
		s.getKey = func() string { return r.state.get(stateHostKey) }
		s.putKey = func(key string) error { return r.state.put(map[string]string{stateHostKey: key}) }
	}
	s.authority.CheckPassword = r.sshPassword
	s.authority.Known = r.sshKnown
	s.authority.LoggedIn = func(l sshd.Login) { r.logLogin(origin(l), "in") }
	s.authority.LoggedOut = func(l sshd.Login) { r.logLogin(origin(l), "out") }
	s.authority.Serve = func(conn net.Conn, l sshd.Login) { r.serveUser(conn, origin(l), l.User) }
}

func (*sshService) Name() string { return "ssh" }

// Show has nothing to add: what the console shows is the configuration.
func (*sshService) Show(*console.Live) {}

// Health is nil: a router whose SSH does not answer does what it is for, and no stranger shall have it
// restarted.
func (*sshService) Health() error { return nil }

// Taken waits for nothing: a process that sleeps has no configuration to take.
func (*sshService) Taken(context.Context) error { return nil }

// Apply has the router listen on the port while somebody can log in.
func (s *sshService) Apply(next console.Config) error {
	config := next.SSH
	config.Disabled = !next.SSHOpen()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return service.ErrStopped
	}
	if reflect.DeepEqual(config, s.config) && (s.listener != nil) == !config.Disabled {
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
		s.log.Printf(kmsg.Info, "ssh accepts on port %d", config.Port)
	}
	s.config = config
	listener := s.listener
	s.process.Set(&service.Desired{
		Listeners: []*os.File{listener},
		Configure: func(ctx context.Context, p service.Parent) error {
			return p.(*sshd.Process).Configure(ctx, config, listener)
		},
	})
	return nil
}

// closeListener closes the listening socket, if there is one. The caller holds mu.
func (s *sshService) closeListener() {
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// Stop ends the service for good.
func (s *sshService) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.closeListener()
	s.mu.Unlock()
	s.process.Stop()
}

// hostKey returns the router's key, which is made when somebody connects for the first time.
func (s *sshService) hostKey() ed25519.PrivateKey {
	s.keyOnce.Do(func() {
		if seed, err := base64.StdEncoding.DecodeString(s.getKey()); err == nil && len(seed) == ed25519.SeedSize {
			s.key = ed25519.NewKeyFromSeed(seed)
			return
		}
		_, s.key, _ = ed25519.GenerateKey(nil) // the kernel's random numbers do not fail
		if err := s.putKey(base64.StdEncoding.EncodeToString(s.key.Seed())); err != nil {
			s.log.Printf(kmsg.Warning, "the host key of SSH is another after the next start: %v", err)
		}
		public := ssh.PublicKey{Key: string(s.key.Public().(ed25519.PublicKey))}
		s.log.Printf(kmsg.Info, "a host key was made: %s", public.Fingerprint())
	})
	return s.key
}

// origin is where a login came from.
func origin(l sshd.Login) session.Origin { return session.Origin{Via: viaSSH, Address: l.From} }

// sshPassword reports whether a password lets a user in by SSH: as in RouterOS, not if the user has a
// key, for which the password is asked for in vain.
func (r *Router) sshPassword(l sshd.Login, secret string) bool {
	config := r.snapshot().running
	hash := config.AdminPassword
	if len(config.SSHKeys) > 0 {
		hash = ""
	}
	return r.judge(origin(l), hash, l.User, secret)
}

// sshKnown reports whether a key is one of the user's.
func (r *Router) sshKnown(l sshd.Login, key [ssh.KeySize]byte) bool {
	for _, k := range r.snapshot().running.SSHKeys {
		if k.User == l.User && k.Public.Key == string(key[:]) {
			return true
		}
	}
	return false
}

// serveUser holds a session over the network with a user who has logged in, and closes conn when it is
// over.
func (r *Router) serveUser(conn net.Conn, from session.Origin, user string) {
	select {
	case r.networkSessions <- struct{}{}:
		defer func() { <-r.networkSessions }()
	default:
		session.Refuse(conn, fmt.Sprintf("failure: %d sessions are there over the network, and there can be no more", maxNetworkSessions))
		return
	}
	r.serve(conn, from, user)
}
