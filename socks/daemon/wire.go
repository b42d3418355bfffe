package daemon

import (
	"fmt"
	"math"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// The requests, see the documentation of the package.
const (
	opConfigure   = 1
	opConnections = 2
	opHits        = 3
	opFirewall    = 4
	opRemove      = 6
	opLeave       = 7
)

const (
	maxNumber  = math.MaxUint64 // of a connection
	maxListed  = 2 * socks.MaxMaxConnections
	maxRules   = 10_000
	maxServers = 64
	maxGone    = 64
	maxMatcher = 16 << 10 // the text of one
	maxUserID  = 255
	maxHash    = 256 // the text of a password's hash
	maxFailure = 1 << 10
	// openingsAtOnce is how many openings socksd asks for in one request, each with its socket, and
	// closingsAtOnce how many it takes back.
	openingsAtOnce = 8
	closingsAtOnce = maxListed
)

// encodeConfig leaves comments out: they decide nothing, and may be long.
func encodeConfig(e *service.Encoder, c socks.Config) {
	e.Bool(c.Enabled)
	e.Uint(uint64(c.Port))
	e.Int(int64(c.ConnectionIdleTimeout))
	e.Int(int64(c.MaxConnections))
	e.Addrs(c.NameServers)
	e.Uint(uint64(c.Version))
	e.String(string(c.AuthMethod))
	e.Bool(c.UDP)
	e.Uint(uint64(len(c.Users)))
	for _, u := range c.Users {
		e.String(u.Name)
		e.String(u.Password)
		e.Bool(u.OnlyOne)
		e.Uint(u.RateLimit)
		e.Bool(u.Disabled)
	}
	e.Uint(uint64(len(c.Access)))
	for _, r := range c.Access {
		e.Uint(uint64(r.ID))
		e.String(string(r.Action))
		e.Bool(r.Disabled)
		e.String(r.SrcAddress.String())
		e.String(r.DstAddress.String())
		e.String(r.SrcPort.String())
		e.String(r.DstPort.String())
	}
}

func decodeConfig(d *service.Decoder) socks.Config {
	c := socks.Config{
		Enabled: d.Bool(), Port: uint16(d.Uint(math.MaxUint16)), ConnectionIdleTimeout: d.Duration(),
		MaxConnections: int(d.Int()), NameServers: d.Addrs(maxServers),
		Version: int(d.Uint(math.MaxUint8)), AuthMethod: socks.AuthMethod(d.String(10)), UDP: d.Bool(),
	}
	for range d.Count(socks.MaxUsers) {
		c.Users = append(c.Users, socks.User{
			Name: d.String(maxUserID), Password: d.String(maxHash), OnlyOne: d.Bool(), RateLimit: d.Uint(math.MaxUint64), Disabled: d.Bool(),
		})
	}
	for range d.Count(maxRules) {
		c.Access = append(c.Access, socks.Rule{
			ID: uint32(d.Uint(math.MaxUint32)), Action: socks.Action(d.String(10)), Disabled: d.Bool(),
			SrcAddress: matcher(d, match.ParseAddresses), DstAddress: matcher(d, match.ParseAddresses),
			SrcPort: matcher(d, match.ParsePorts), DstPort: matcher(d, match.ParsePorts),
		})
	}
	return c
}

// matcher reads a matcher as people write it; "" matches all.
func matcher[T any](d *service.Decoder, parse func(string) (T, error)) T {
	var all T
	text := d.String(maxMatcher)
	if text == "" {
		return all
	}
	m, err := parse(text)
	if err != nil {
		d.Fail(fmt.Errorf("matcher: %w", err))
	}
	return m
}

func encodeConnections(e *service.Encoder, list []socks.Connection) {
	e.Uint(uint64(len(list)))
	for _, c := range list {
		e.Uint(c.Number)
		e.AddrPort(c.Src)
		e.AddrPort(c.Dst)
		e.Uint(c.Tx)
		e.Uint(c.Rx)
		e.String(string(c.Type))
		e.Int(int64(c.Age))
		e.Int(int64(c.Idle))
		e.String(c.UserID)
	}
}

func decodeConnections(d *service.Decoder) []socks.Connection {
	var list []socks.Connection
	for range d.Count(connectionsAtOnce) {
		c := socks.Connection{
			Number: d.Uint(maxNumber), Src: d.AddrPort(), Dst: d.AddrPort(), Tx: d.Uint(math.MaxUint64), Rx: d.Uint(math.MaxUint64),
			Type: socks.Type(d.String(10)), Age: d.Duration(), Idle: d.Duration(), UserID: d.String(maxUserID),
		}
		if c.Type != socks.Unknown && c.Type != socks.Out && c.Type != socks.In {
			d.Fail(fmt.Errorf("a connection of type %q", c.Type))
		}
		list = append(list, c)
	}
	return list
}

func encodeNumbers(e *service.Encoder, numbers []uint64) {
	e.Uint(uint64(len(numbers)))
	for _, n := range numbers {
		e.Uint(n)
	}
}

// decodeNumbers reads at most that many.
func decodeNumbers(d *service.Decoder, most int) []uint64 {
	var numbers []uint64
	for range d.Count(most) {
		numbers = append(numbers, d.Uint(math.MaxUint64))
	}
	return numbers
}

func encodeOpenings(e *service.Encoder, openings []socks.Opening) {
	e.Uint(uint64(len(openings)))
	for _, o := range openings {
		e.Addr(o.Peer)
		e.AddrPort(o.Local)
		e.Bool(o.UDP)
	}
}

// decodeOpenings reads at most that many.
func decodeOpenings(d *service.Decoder, most int) []socks.Opening {
	var openings []socks.Opening
	for range d.Count(most) {
		openings = append(openings, socks.Opening{Peer: d.Addr(), Local: d.AddrPort(), UDP: d.Bool()})
	}
	return openings
}

// encodeFailures writes for each opening that was asked for why it is not there, "" if it is.
func encodeFailures(e *service.Encoder, failures []error) {
	e.Uint(uint64(len(failures)))
	for _, err := range failures {
		text := ""
		if err != nil {
			text = err.Error()
		}
		e.String(text[:min(len(text), maxFailure)])
	}
}

func decodeFailures(d *service.Decoder) []error {
	var failures []error
	for range d.Count(openingsAtOnce) {
		var err error
		if text := d.String(maxFailure); text != "" {
			err = service.RemoteError(text)
		}
		failures = append(failures, err)
	}
	return failures
}
