// Package resolve finds the IPv4 addresses of host names by asking name servers (RFC 1035).
// It replaces the resolver of package net, which is larger, and which goes on with a lookup
// that was cancelled.
//
// # What it promises
//
// When Lookup returns, the lookup has ended: it has no goroutine and no socket left, also
// if its context was cancelled. So whoever limits the calls of Lookup limits what lookups
// cost. A lookup that runs has one socket, two timers and less than 20 kB of memory. At most
// Options.Limit lookups of a Resolver run at a time; the others wait.
//
// Servers are asked in their order, over UDP, and then over TCP if the answer was truncated
// (RFC 2181, section 9). The next server is asked if one is silent, cannot be reached, or
// fails. An answer that the name does not exist, or has no address, is final. Servers that
// were silent are asked again, twice by default, with longer waits. Each question has a
// random id and a new socket, and so a random port. An answer must come from the server to
// that port, with the same id and question (RFC 5452).
//
// By default a lookup waits for at most 20 s in all. Time in which the process or the
// machine stood still is not counted.
//
// # What it does not do
//
// It does not look up IPv6 addresses, does not validate signatures (DNSSEC) and does not
// encrypt. The servers must be recursive. Only with Options.Cache it keeps answers.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Errors of Lookup, which wraps them.
var (
	// ErrNoServers means that there is no name server to ask.
	ErrNoServers = errors.New("no name server is set")
	// ErrNotFound means that the name does not exist (NXDOMAIN).
	ErrNotFound = errors.New("no such name")
	// ErrNoAddress means that the name exists, but has no IPv4 address.
	ErrNoAddress = errors.New("it has no IPv4 address")
)

// errName means that no server is asked, because the text cannot be the name of a host.
var errName = errors.New("not a host name")

// Options are the bounds of a Resolver. The zero value has the defaults.
type Options struct {
	// Limit is how many lookups run at a time, 8 if it is 0.
	Limit int
	// Wait is how long the first answer of a server is waited for, 2 s if it is 0. It
	// doubles each time that the server is asked again.
	Wait time.Duration
	// Rounds is how many times a silent server is asked, 3 if it is 0.
	Rounds int
	// Total is how long a lookup waits for answers in all, 20 s if it is 0.
	Total time.Duration
	// Cache keeps answers for as long as they say, failures for 10 s, and 256 of both; and
	// nothing that other servers said than were asked last.
	Cache bool
}

// Resolver looks up names. Its methods may be called from any goroutine.
type Resolver struct {
	options Options
	places  chan struct{} // one for each lookup that runs
	system  files
	ask     func(ctx context.Context, server netip.AddrPort, name string, wait time.Duration) (answer, error)
	cache   cache
}

// New returns a Resolver.
func New(o Options) *Resolver {
	if o.Limit == 0 {
		o.Limit = 8
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	if o.Rounds == 0 {
		o.Rounds = 3
	}
	if o.Total == 0 {
		o.Total = 20 * time.Second
	}
	return &Resolver{
		options: o, places: make(chan struct{}, o.Limit),
		system: files{hosts: "/etc/hosts", resolv: "/etc/resolv.conf"}, ask: ask,
		cache: cache{now: time.Now},
	}
}

// Lookup asks servers for the IPv4 addresses of host, and returns at least one and at most
// 32. host is a name of letters, digits, "-", "_" and ".", or an IPv4 address, which is
// returned as it is.
//
// The error names each server that was asked and what was wrong with it; not a server on this machine
// that found no answer, if others were asked too. Or it wraps ErrNoServers, also if a server on this
// machine has none to ask, ErrNotFound, ErrNoAddress, or the cause of the end of ctx.
func (r *Resolver) Lookup(ctx context.Context, host string, servers Servers) ([]netip.Addr, error) {
	return r.lookup(ctx, host, func() (plan, error) {
		if len(servers) == 0 {
			return plan{}, ErrNoServers
		}
		return plan{names: []string{host}, servers: servers}, nil
	})
}

// Known returns what Lookup would return without a question: of an address, of what cannot be the name
// of a host, and, with Options.Cache, what servers have answered. ok says that it is so.
func (r *Resolver) Known(host string, servers Servers) (addrs []netip.Addr, err error, ok bool) {
	if addrs, err, ok = plain(host); ok {
		return addrs, err, ok
	}
	if addrs, err, ok = r.cache.get(host, servers); err != nil {
		err = failed(host, err)
	}
	return addrs, err, ok
}

// KnownSystem is to LookupSystem what Known is to Lookup. It reads the files.
func (r *Resolver) KnownSystem(host string) (addrs []netip.Addr, err error, ok bool) {
	if addrs, err, ok = plain(host); ok {
		return addrs, err, ok
	}
	p, err := r.system.plan(host)
	if err != nil {
		return nil, failed(host, err), true
	}
	if len(p.known) > 0 {
		return p.known, nil, true
	}
	for _, name := range p.names {
		if addrs, err, ok = r.cache.get(name, p.servers); !ok {
			return nil, nil, false
		}
		if !isFinal(err) {
			break
		}
	}
	if err != nil {
		err = failed(host, err)
	}
	return addrs, err, true
}

// plain returns the result for what no server is asked about: an IPv4 address, and what cannot be the
// name of a host. Otherwise ok is false.
func plain(host string) (addrs []netip.Addr, err error, ok bool) {
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().Is4() {
		return []netip.Addr{a.Unmap()}, nil, true
	}
	if !ValidName(host) {
		return nil, fmt.Errorf("address of %q: %w", host, errName), true
	}
	return nil, nil, false
}

// isFinal reports whether err is the answer of a server that a name has no address.
func isFinal(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoAddress) }

// failed returns the error of a lookup.
func failed(host string, err error) error { return fmt.Errorf("address of %s: %w", host, err) }

// LookupSystem is Lookup as the files of a Linux system say, hosts(5) and resolv.conf(5), of
// which it takes the name servers and the search list.
func (r *Resolver) LookupSystem(ctx context.Context, host string) ([]netip.Addr, error) {
	return r.lookup(ctx, host, func() (plan, error) { return r.system.plan(host) })
}

// LookupOne returns the first of the addresses that Lookup returns.
func (r *Resolver) LookupOne(ctx context.Context, host string, servers Servers) (netip.Addr, error) {
	addrs, err := r.Lookup(ctx, host, servers)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0], nil
}

// plan is what to do for a lookup: nothing if addresses are known, or else to ask servers
// for names, one after the other, until one has an address.
type plan struct {
	known   []netip.Addr
	names   []string
	servers Servers
}

// lookup looks host up. makePlan is called when it is its turn.
func (r *Resolver) lookup(ctx context.Context, host string, makePlan func() (plan, error)) ([]netip.Addr, error) {
	if addrs, err, ok := plain(host); ok {
		return addrs, err
	}
	addrs, err := r.carryOut(ctx, makePlan)
	if err != nil {
		return nil, failed(host, err)
	}
	return addrs, nil
}

// carryOut waits for a place, makes a plan and does what it says.
func (r *Resolver) carryOut(ctx context.Context, makePlan func() (plan, error)) ([]netip.Addr, error) {
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p, err := makePlan()
	if err != nil || len(p.known) > 0 {
		return p.known, err
	}
	limited, cancel := withTimeout(ctx, r.options.Total)
	defer cancel()
	var addrs []netip.Addr
	for _, name := range p.names {
		known := false
		if addrs, err, known = r.cache.get(name, p.servers); !known {
			var a answer
			a, err = r.askAll(limited, name, p.servers)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if addrs = a.addrs; r.options.Cache {
				r.cache.put(name, p.servers, a, err)
			}
		}
		if !isFinal(err) {
			break
		}
	}
	return addrs, err
}

// askAll asks the servers in turn until one knows the answer.
func (r *Resolver) askAll(ctx context.Context, name string, servers Servers) (answer, error) {
	failures := make(failures, len(servers))
	for round := range r.options.Rounds {
		for i, server := range servers {
			if round > 0 && !errors.Is(failures[i], errSilent) {
				continue // it has answered
			}
			a, err := r.ask(ctx, server, name, r.options.Wait<<round)
			if err == nil || isFinal(err) {
				return a, err
			}
			if failures[i] = err; !errors.Is(err, ErrNoServers) {
				failures[i] = fmt.Errorf("name server %s %w", serverText(server), err)
			}
			if ctx.Err() != nil {
				return answer{keep: failureTime}, failures.withoutOwn(servers)
			}
		}
	}
	return answer{keep: failureTime}, failures.withoutOwn(servers)
}

// failures are the errors of the servers, nil for one that was not asked.
type failures []error

func (f failures) Error() string {
	var texts []string
	for _, err := range f {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	return strings.Join(texts, "; ")
}

// withoutOwn leaves out that a server of this machine has no answer, if others were asked besides: it only asks them too, and it
// is they who tell what is wrong.
func (f failures) withoutOwn(servers Servers) failures {
	own := func(i int) bool { return servers[i].Addr().IsLoopback() }
	others := false
	for i, err := range f {
		others = others || err != nil && !own(i)
	}
	for i, err := range f {
		if others && own(i) && (errors.Is(err, errSilent) || errors.Is(err, errFailed) || errors.Is(err, ErrNoServers)) {
			f[i] = nil
		}
	}
	return f
}

// Unwrap is for errors.Is.
func (f failures) Unwrap() []error { return f }

// ValidName reports whether host can be the name of a host in the DNS: labels of 1 to 63
// letters, digits, "-" and "_", with dots between them, 253 bytes at most. One more dot at
// the end is allowed. Digits and dots alone are not a name, but a mistyped address.
func ValidName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 {
		return false
	}
	numeric := true
	for label := range strings.SplitSeq(host, ".") {
		if len(label) < 1 || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_':
				numeric = false
			default:
				return false
			}
		}
	}
	return !numeric
}
