package router

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ping"
	"github.com/postern-router/postern/service"
)

const (
	// gatewayPause is how often a gateway is asked, and how long it has to answer.
	gatewayPause = 10 * time.Second
	// gatewayMisses is after how many requests without an answer its routes are inactive.
	gatewayMisses = 2
)

// gateway is a router by which routes lead: its address, and its interface if a route names that.
type gateway struct {
	address netip.Addr
	link    string
}

func gatewayOf(r netcfg.Route) gateway { return gateway{r.Gateway, r.Interface} }

func (g gateway) String() string {
	if g.link == "" {
		return g.address.String()
	}
	return g.address.String() + "%" + g.link
}

// question is how a gateway is asked: on which link of the kernel's, "" if that is not known, and whether by ARP alone. With several it
// is in networks of more links, and link is for while none of them is up.
type question struct {
	link         string
	several, arp bool
}

// gatewayService asks the gateways of routes with check-gateway whether they are there: every 10 seconds, as RouterOS does. All
// routes by one that has not answered twice are inactive together, until it answers.
type gatewayService struct {
	log *kmsg.Logger
	// probe reports whether a gateway answers a question before ctx ends.
	probe func(ctx context.Context, g gateway, q question) bool
	// linkTo is the link by which routes by a gateway lead now, "" if there is none: Network.LinkTo.
	linkTo func(gateway netip.Addr) string
	// setDown is Router.setDown. It waits for changes that are under way, so Apply does not call it.
	setDown func(down map[gateway]bool) error
	stop    context.CancelFunc
	stopped context.Context
	done    sync.WaitGroup
	start   sync.Once
	change  signal // holds an element when asks has changed

	// refused is why the router did not take who is down when it was told last. Only watch uses it.
	refused string

	mu   sync.Mutex
	asks map[gateway]question // those to be asked
}

func newGatewayService(log *kmsg.Logger, network Network) *gatewayService {
	s := &gatewayService{log: log, change: newSignal(), linkTo: network.LinkTo}
	s.probe = func(ctx context.Context, g gateway, q question) bool {
		if q.arp {
			return network.AskNeighbor(ctx, g.address, q.link)
		}
		return answers(ctx, g, q.link)
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	return s
}

func (*gatewayService) Name() string { return "gateways" }

func (s *gatewayService) Apply(next console.Config) error {
	var asks map[gateway]question
	network := next.Network()
	for _, r := range network.Routes {
		if r.Disabled || r.CheckGateway == "" || r.Type != "" {
			continue
		}
		if asks == nil {
			asks = map[gateway]question{}
		}
		// One that some routes ask by an echo request is not asked besides by ARP, which says less.
		g := gatewayOf(r)
		before, other := asks[g]
		q := question{arp: r.CheckGateway == netcfg.CheckARP && (!other || before.arp)}
		if q.link, q.several = linkOf(network, g.address); g.link != "" {
			q.link, q.several = network.Actual(g.link), false
		}
		asks[g] = q
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if maps.Equal(asks, s.asks) {
		return nil
	}
	s.asks = asks
	s.change.send()
	s.start.Do(func() { s.done.Go(s.watch) })
	return nil
}

// linkOf is the link of the network that has an address, "" if there is none, and whether networks of several links have it. Without it a
// gateway whose link is down would be asked by another, behind which somebody may have the same address.
func linkOf(network netcfg.Config, a netip.Addr) (link string, several bool) {
	bits := -1
	for _, n := range network.Addresses {
		if n.Disabled || !n.Address.Contains(a) {
			continue
		}
		on := network.Actual(n.Interface)
		several = several || link != "" && on != link
		if n.Address.Bits() > bits {
			link, bits = on, n.Address.Bits()
		}
	}
	return link, several
}

func (*gatewayService) Taken(context.Context) error { return nil }

func (*gatewayService) Health() error { return nil }

func (*gatewayService) Show(*console.Live) {}

// Stop ends the watch.
func (s *gatewayService) Stop() {
	s.stop()
	s.start.Do(func() {}) // none begins from here on
	s.done.Wait()
}

// watch asks the gateways until the service is stopped.
func (s *gatewayService) watch() {
	misses := map[gateway]int{}
	told := map[gateway]bool{} // that are down
	for {
		select {
		case <-s.change:
		default:
		}
		s.mu.Lock()
		asks := s.asks
		s.mu.Unlock()
		maps.DeleteFunc(misses, func(g gateway, _ int) bool { _, asked := asks[g]; return !asked })
		s.tell(told, misses)
		var next <-chan time.Time
		if len(asks) > 0 {
			next = time.After(gatewayPause)
			s.ask(asks, misses, told)
			s.tell(told, misses)
		}
		select {
		case <-s.stopped.Done():
			return
		case <-s.change:
			continue
		case <-next:
		}
	}
}

// ask asks all gateways once, and counts who has not answered. Routes by one that answers are active at once.
func (s *gatewayService) ask(asks map[gateway]question, misses map[gateway]int, told map[gateway]bool) {
	// Time in which the machine stood still does not count.
	ctx, cancel := service.WithTimeout(s.stopped, gatewayPause)
	defer cancel()
	type answer struct {
		of gateway
		ok bool
	}
	answers := make(chan answer)
	for g, q := range asks {
		if q.several { // by the one that the routes take: another may be down
			q.link = cmp.Or(s.linkTo(g.address), q.link)
		}
		s.done.Go(func() { answers <- answer{g, s.probe(ctx, g, q)} })
	}
	for range asks {
		switch a := <-answers; {
		case s.stopped.Err() != nil:
		case !a.ok:
			misses[a.of]++
		default:
			if delete(misses, a.of); told[a.of] {
				s.tell(told, misses)
			}
		}
	}
}

// tell tells the router and the log who is down of those who are still to be asked, if that is news. What the router refuses is told
// again.
func (s *gatewayService) tell(told map[gateway]bool, misses map[gateway]int) {
	s.mu.Lock()
	asks := s.asks
	s.mu.Unlock()
	down := map[gateway]bool{}
	for g, n := range misses {
		if _, asked := asks[g]; asked && n >= gatewayMisses {
			down[g] = true
		}
	}
	if maps.Equal(down, told) || s.stopped.Err() != nil {
		return
	}
	if err := s.setDown(maps.Clone(down)); err != nil {
		if err.Error() != s.refused && !errors.Is(err, errStopped) { // it is told again every 10 seconds
			s.refused = err.Error()
			s.log.Printf(kmsg.Warning, "%v", err)
		}
		return
	}
	s.refused = ""
	for _, g := range sortedGateways(down) {
		if !told[g] {
			s.log.Printf(kmsg.Warning, "gateway %v does not answer: its routes are inactive", g)
		}
	}
	for _, g := range sortedGateways(told) {
		if !down[g] {
			s.log.Printf(kmsg.Info, "gateway %v answers, or is not asked any more: its routes are active", g)
		}
	}
	clear(told)
	maps.Copy(told, down)
}

func sortedGateways(all map[gateway]bool) []gateway {
	return slices.SortedFunc(maps.Keys(all), func(a, b gateway) int { return a.address.Compare(b.address) })
}

// answers sends an echo request to a gateway, and reports whether its answer comes before ctx ends.
func answers(ctx context.Context, g gateway, link string) bool {
	socket, err := ping.Open(ping.From{Interface: link})
	if err != nil {
		return false
	}
	defer socket.Close()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return exchange(socket, g.address) == nil
}

// exchange sends a request and waits for its answer. The kernel gives the socket answers to its number alone, which is easily guessed,
// from whomever: what counts comes from the host that was asked and has the data that were sent. Nothing else of it is looked at.
func exchange(socket *os.File, to netip.Addr) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	host := unix.SockaddrInet4{Addr: to.As4()}
	if e := raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), &host) }); e != nil || err != nil {
		return fmt.Errorf("connect: %w", cmp.Or(err, e))
	}
	request := [24]byte{0: 8} // an echo request (RFC 792): the kernel sets the rest of its header
	data := request[8:]
	if _, err := unix.Getrandom(data, 0); err != nil {
		return err
	}
	if _, err := socket.Write(request[:]); err != nil {
		return err
	}
	for {
		var answer [len(request) + 1]byte
		var n int
		var from unix.Sockaddr
		if e := raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), answer[:], 0)
			return err != unix.EAGAIN
		}); e != nil || err != nil {
			return cmp.Or(e, err)
		}
		if by, ok := from.(*unix.SockaddrInet4); ok && by.Addr == host.Addr && n == len(request) && bytes.Equal(answer[8:n], data) {
			return nil
		}
	}
}

// setDown makes the routes by these gateways inactive, and all others active. The system has it when setDown returns.
func (r *Router) setDown(down map[gateway]bool) error {
	if err := r.beginChange(); err != nil {
		return err
	}
	defer r.endChange()
	next := r.now
	if next.down = down; !next.applied {
		r.set(next) // the start applies it
		return nil
	}
	if err := r.apply(next); err != nil {
		return fmt.Errorf("routes by gateways that do not answer: %w", err)
	}
	return nil
}
