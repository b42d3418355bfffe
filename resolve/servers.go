package resolve

import (
	"fmt"
	"net/netip"
	"strings"
)

// port is the port of name servers.
const port = 53

// Servers are name servers, in the order in which they are asked. A *Servers is also the value
// of a command-line flag (flag.Value, and Value of pflag) that is given once for each server.
type Servers []netip.AddrPort

// Flag is the name of that flag in Postern's programs.
const Flag = "name-server"

// ServersAt returns the servers on port 53 of these addresses.
func ServersAt(addresses ...netip.Addr) Servers {
	var s Servers
	for _, a := range addresses {
		s = append(s, netip.AddrPortFrom(a, port))
	}
	return s
}

// ParseServer reads the address of a server: 10.0.0.1, 10.0.0.1:5353, fd00::1 or
// [fd00::1]:5353. The port is 53 if there is none.
func ParseServer(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, port), nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("name server %q: expected ADDRESS or ADDRESS:PORT", text)
	}
	return at, nil
}

// serverText returns the text from which ParseServer reads server.
func serverText(server netip.AddrPort) string {
	if server.Port() == port {
		return server.Addr().String()
	}
	return server.String()
}

// Set appends a server.
func (s *Servers) Set(text string) error {
	server, err := ParseServer(text)
	if err != nil {
		return err
	}
	*s = append(*s, server)
	return nil
}

// String returns the servers as ParseServer reads them, separated by commas.
func (s *Servers) String() string {
	var texts []string
	for _, server := range *s {
		texts = append(texts, serverText(server))
	}
	return strings.Join(texts, ",")
}

// Type is how pflag's help calls a value.
func (s *Servers) Type() string { return "ADDRESS" }

// Arguments returns the command-line flags for the servers, one for each.
func (s Servers) Arguments() []string {
	var arguments []string
	for _, server := range s {
		arguments = append(arguments, "--"+Flag+"="+serverText(server))
	}
	return arguments
}
