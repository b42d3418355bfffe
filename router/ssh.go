package router

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net"
	"os"
	"sync"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
	"github.com/postern-router/postern/ssh/sshd"
)

// viaSSH is the session.Origin.Via of SSH.
const viaSSH = "ssh"

// sshService is SSH on this router.
type sshService struct {
	*networkService
	// authority is what only the router can do; the key is added for each process.
	authority sshd.Authority

	// getKey and putKey keep the seed of the host key (RFC 8032), in base64; "" is none.
	getKey  func() string
	putKey  func(string) error
	keyOnce sync.Once
	key     ed25519.PrivateKey
}

func newSSHService(s *service.Supervisor, log *kmsg.Logger) *sshService {
	v := &sshService{}
	v.networkService = newNetworkService(s, log, "ssh", sshd.Spec,
		func(l *service.Link) service.Parent {
			key := v.hostKey()
			a := v.authority
			a.HostKey = [ssh.KeySize]byte(key.Public().(ed25519.PublicKey))
			a.Sign = func(data []byte) []byte { return ed25519.Sign(key, data) }
			return sshd.NewProcess(l, a)
		},
		func(ctx context.Context, p service.Parent, c login.Config, _ login.TLS, _ string, listener *os.File) error {
			return p.(*sshd.Process).Configure(ctx, c, listener)
		})
	return v
}

// attach has the sessions of SSH be those of r, whose flash keeps the host key.
func (s *sshService) attach(r *Router) {
	values := values(r.state, r.kept)
	s.getKey = func() string { return values.get(stateHostKey) }
	s.putKey = func(key string) error { return values.put(map[string]string{stateHostKey: key}) }
	s.authority.Authority = r.loginAuthority(way{via: viaSSH})
	s.authority.Known = r.sshKnown
	s.authority.Serve = func(conn net.Conn, l login.Login) {
		r.serveUser(conn, origin(way{via: viaSSH}, l), l.User, l.Number, l.Proof == " ")
	}
	s.authority.ServeFiles = func(conn net.Conn, l login.Login) {
		r.serveFiles(conn, origin(way{via: viaSSH}, l), l.User, l.Number, l.Proof == " ")
	}
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

// sshKnown is the proof of a key that is one of the user's, else "".
func (r *Router) sshKnown(l login.Login, key string) (proof string) {
	c := r.snapshot().running
	if !c.AllowsFrom(l.From, console.MaySSH, false) || !c.MayLogIn(l.User, console.MaySSH, l.From) || !hasKey(c, l.User, key) {
		return ""
	}
	return proofOf(c, l.User, key)
}
