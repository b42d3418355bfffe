package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/postern-router/postern/resolve"
)

// An address is its own answer, and nobody is asked.
func Example() {
	r := resolve.New(resolve.Options{})
	addrs, err := r.Lookup(context.Background(), "192.0.2.1", nil)
	fmt.Println(addrs, err)
	// Output: [192.0.2.1] <nil>
}

// Errors say whether it is the name or the configuration that is wrong.
func ExampleResolver_Lookup() {
	r := resolve.New(resolve.Options{Limit: 4})
	_, err := r.Lookup(context.Background(), "www.example.org", nil)
	fmt.Println(err)
	fmt.Println(errors.Is(err, resolve.ErrNoServers), errors.Is(err, resolve.ErrNotFound))
	// Output:
	// address of www.example.org: no name server is set
	// true false
}

// Programs take one flag for each server.
func ExampleServers() {
	var servers resolve.Servers
	for _, text := range []string{"192.0.2.53", "192.0.2.54:5353"} {
		if err := servers.Set(text); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(servers.Arguments())
	fmt.Println(resolve.ServersAt(netip.MustParseAddr("192.0.2.53")).Arguments())
	// Output:
	// [--name-server=192.0.2.53 --name-server=192.0.2.54:5353]
	// [--name-server=192.0.2.53]
}
