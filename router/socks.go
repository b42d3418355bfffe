package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/socks"
	"github.com/postern-router/postern/socks/daemon"
)

// socksService keeps socksd running while it is enabled. The listening socket is
// PID 1's: while socksd is away, callers wait in its queue instead of being refused.
type socksService struct {
	log      *kmsg.Logger
	firewall *firewall.Firewall

	mu sync.Mutex
	// applied says that a configuration was applied before.
	applied  bool
	config   socks.Config
	listener *os.File
	port     uint16 // of listener
	process  *socksProcess
	pause    backoff
	stopped  bool
}

// socksProcess is one life of socksd.
type socksProcess struct {
	cmd    *exec.Cmd
	client *daemon.Client
	start  time.Time
	// silent is how many questions in a row it has not answered, guarded by the service's mu.
	silent int
	// ended is closed when the process is gone and was waited for.
	ended chan struct{}
}

const (
	// configureTimeout covers the start of the process on the slowest board.
	configureTimeout = 10 * time.Second
	callTimeout      = 5 * time.Second
	listTimeout      = 20 * time.Second // of all connections, a page after the other
	stopTimeout      = 5 * time.Second
	// maxSilent is the question that socksd has to answer at the latest. One by itself says
	// little: a machine that stood still for a while has the answer and the timeout at once.
	maxSilent = 3
)

func newSocksService(log *kmsg.Logger, fw *firewall.Firewall) *socksService {
	return &socksService{log: log, firewall: fw}
}

func (*socksService) Name() string { return "socks" }

func (s *socksService) Show(live *console.Live) { live.Connections, live.Hits = s.connections, s.hits }

// Health asks the process, if there should be one.
func (s *socksService) Health() error {
	s.mu.Lock()
	enabled := s.config.Enabled
	s.mu.Unlock()
	if !enabled {
		return nil
	}
	return s.answers()
}

// Apply brings the service to next, or leaves it as it was.
func (s *socksService) Apply(next console.Config) error {
	config := next.Socks
	config.NameServers = next.DNS // socksd cannot read resolv.conf
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("socks: the service was stopped")
	}
	// What is shown while the router starts would later run across the screen of whoever
	// opens the port.
	level := kmsg.Info
	if !s.applied {
		level = kmsg.Notice
	}
	s.applied = true
	if !config.Enabled {
		// Nobody new; a process that is there serves what it has to its end.
		if s.process != nil {
			if err := s.configure(config, nil); err != nil {
				return err
			}
		}
		s.config = config
		s.closeListener()
		return nil
	}
	listener, port := s.listener, s.port
	if listener == nil || port != config.Port {
		// On every address: who may reach it is the firewall's to say.
		l, err := daemon.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), config.Port))
		if err != nil {
			return err
		}
		listener, port = l, config.Port
	}
	if err := s.configure(config, listener); err != nil {
		if listener != s.listener {
			listener.Close()
		}
		return err
	}
	if listener != s.listener {
		s.closeListener()
		s.listener, s.port = listener, port
		s.log.Printf(level, "socks accepts on port %d after %s", port, kmsg.Uptime())
	}
	s.config = config
	return nil
}

// configure tells the process, which it starts if there is none. The caller
// holds mu.
func (s *socksService) configure(config socks.Config, listener *os.File) error {
	fresh := s.process == nil
	if fresh {
		p, err := s.startProcess()
		if err != nil {
			return err
		}
		s.process = p
		go s.watch(p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), configureTimeout)
	defer cancel()
	err := s.process.client.Configure(ctx, config, listener)
	if err == nil {
		return nil
	}
	if fresh || errors.Is(err, context.DeadlineExceeded) {
		// It serves nothing, or hangs: watch starts another.
		_ = s.process.cmd.Process.Kill()
	}
	return fmt.Errorf("configure socksd: %w", err)
}

// startProcess starts socksd with one end of a pair of sockets, as a user who
// has nothing.
func (s *socksService) startProcess() (*socksProcess, error) {
	conn, child, err := daemon.Socketpair()
	if err != nil {
		return nil, fmt.Errorf("start socksd: %w", err)
	}
	defer child.Close()
	cmd := exec.Command(socksdProgram, "--control-fd=3")
	cmd.Args[0] = "socksd"
	cmd.ExtraFiles = []*os.File{child}
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: socksdRoot, Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start socksd: %w", err)
	}
	p := &socksProcess{cmd: cmd, start: time.Now(), ended: make(chan struct{})}
	p.client = daemon.NewClient(conn, s.openFirewall, s.closeFirewall)
	return p, nil
}

// watch waits for the end of a process and starts the next.
func (s *socksService) watch(p *socksProcess) {
	err := p.cmd.Wait()
	close(p.ended)
	s.mu.Lock()
	if s.process != p {
		s.mu.Unlock()
		return // ended by us
	}
	s.process = nil
	pause := s.pause.next(time.Since(p.start))
	s.mu.Unlock()
	s.log.Printf(kmsg.Warning, "socksd ended (%v); starting it again in %v", err, pause)
	for {
		time.Sleep(pause)
		s.mu.Lock()
		if s.stopped || s.process != nil || s.listener == nil {
			s.mu.Unlock()
			return
		}
		err := s.configure(s.config, s.listener)
		if err == nil {
			s.log.Printf(kmsg.Notice, "socksd is back")
			s.mu.Unlock()
			return
		}
		started := s.process != nil
		pause = s.pause.next(0)
		s.mu.Unlock()
		s.log.Printf(kmsg.Error, "%v", err)
		if started {
			return // its own watch goes on
		}
	}
}

// end stops the process in order. The caller holds mu.
func (s *socksService) end() {
	p := s.process
	s.process = nil
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (s *socksService) closeListener() {
	if s.listener != nil {
		s.listener.Close()
		s.listener, s.port = nil, 0
	}
}

// Stop ends the service for good: first nobody can connect, then the
// connections are closed.
func (s *socksService) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.closeListener()
	s.end()
}

func (s *socksService) connections() ([]socks.Connection, error) {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	if p == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	return p.client.Connections(ctx)
}

// answers is why socksd, which is enabled, does not serve anybody, or nil. One that hangs is
// ended, and watch starts another, well before the watchdog resets the router for it.
func (s *socksService) answers() error {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	if p == nil {
		return errors.New("socksd does not run")
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := p.client.Hits(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		p.silent = 0
		return nil
	}
	if p.silent++; p.silent == maxSilent {
		s.log.Printf(kmsg.Error, "socksd hangs: it is ended")
		_ = p.cmd.Process.Kill()
	}
	return fmt.Errorf("socksd does not answer: %w", err)
}

// hits returns how often each rule of the access list has decided.
func (s *socksService) hits() ([]uint64, error) {
	s.mu.Lock()
	p, rules := s.process, len(s.config.Access)
	s.mu.Unlock()
	if p == nil {
		return make([]uint64, rules), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return p.client.Hits(ctx)
}

// openFirewall lets a peer call the port that a BIND waits on.
func (s *socksService) openFirewall(o socks.Opening) error {
	return s.firewall.Open(firewall.Opening{Peer: o.Peer, Local: o.Local.Addr(), Port: o.Local.Port()})
}

func (s *socksService) closeFirewall(o socks.Opening) error {
	err := s.firewall.Close(firewall.Opening{Peer: o.Peer, Local: o.Local.Addr(), Port: o.Local.Port()})
	if err != nil {
		s.log.Printf(kmsg.Error, "%v", err)
	}
	return err
}
