package testnet

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
)

const (
	// firstPort is the first that is not for privileged programs (ip(7)).
	firstPort = 1024
	// portRange has the first and the last of the ports that the kernel chooses by itself
	// (Documentation/networking/ip-sysctl.rst).
	portRange = "/proc/sys/net/ipv4/ip_local_port_range"
)

// tried is how many ports FreePort has looked at, from a random one on, so that other processes
// look elsewhere.
var tried = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32N(1 << 16))
	return &n
}()

// FreePort returns a TCP port on which nothing listens, at any IPv4 address of this network, for
// a program that cannot choose by itself. No two calls of a process return the same soon.
//
// It is none of those that the kernel chooses for connections: one of these may be taken, by a
// connection from any address, before the program listens.
func FreePort() (uint16, error) {
	end, err := firstChosenPort()
	if err != nil {
		return 0, err
	}
	for range 1000 {
		port := firstPort + tried.Add(1)%(end-firstPort)
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			continue
		}
		return uint16(port), l.Close()
	}
	return 0, fmt.Errorf("no free port among 1000 from %d to %d", firstPort, end-1)
}

// firstChosenPort returns the first port that the kernel chooses by itself.
func firstChosenPort() (uint32, error) {
	text, err := os.ReadFile(portRange)
	if err != nil {
		return 0, err
	}
	var first, last uint32
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil || first <= firstPort {
		return 0, fmt.Errorf("%s has %q: no port from %d on is left", portRange, strings.TrimSpace(string(text)), firstPort)
	}
	return first, nil
}
