package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-router/postern/internal/testnet"
)

// Addresses of the manual's example.
const (
	clientAddress   = "192.168.0.2"
	otherAddress    = "192.168.0.3"
	lanAddress      = "192.168.0.1"
	wanAddress      = "10.1.0.104"
	gatewayAddress  = "10.1.0.1"
	strangerAddress = "10.1.0.66"
	serverAddress   = "10.5.8.8"
)

// host names one host of the lab.
type host string

// Hosts of the lab: the switch holds the router's two links and QEMU itself; the
// others are a client that the access list knows, another in the same LAN, the
// router's gateway, a stranger on the link before the router, and the FTP server.
const (
	switchHost   host = "switch"
	client       host = "client"
	other        host = "other"
	gateway      host = "gateway"
	stranger     host = "stranger"
	serverOfSite host = "server"
)

// network is the manual's network, of hosts of testnet:
//
//	client   192.168.0.2 -+                                    +- stranger 10.1.0.66
//	                      +- 192.168.0.1 ROUTER 10.1.0.104 ----+- gateway 10.1.0.1 --- server 10.5.8.8
//	other    192.168.0.3 -+  (ether2)           (ether1)
//
// The gateway knows no way back to 192.168.0.0/24: what is not masqueraded gets
// no answer. Several networks may stand side by side.
type network map[host]*testnet.Host

// newNetwork builds the network.
func newNetwork() (n network, err error) {
	n = network{}
	defer func() {
		if err != nil {
			n.close()
			err = fmt.Errorf("lab network: %w", err)
		}
	}()
	for _, h := range []host{switchHost, client, other, gateway, stranger, serverOfSite} {
		if n[h], err = testnet.NewHost(string(h)); err != nil {
			delete(n, h)
			return n, err
		}
	}
	for _, port := range ports {
		if err = n[switchHost].IP("link add br-"+port+" type bridge", "link set br-"+port+" up"); err != nil {
			return n, err
		}
	}
	if err = n.addRouter(0); err != nil {
		return n, err
	}
	for _, l := range []struct {
		host          host
		port, address string
	}{
		{client, "ether2", clientAddress}, {other, "ether2", otherAddress},
		{gateway, "ether1", gatewayAddress}, {stranger, "ether1", strangerAddress},
	} {
		if err = testnet.Link(n[l.host], "eth0", n[switchHost], string(l.host)); err != nil {
			return n, err
		}
		if err = n[switchHost].IP("link set " + string(l.host) + " master br-" + l.port); err != nil {
			return n, err
		}
		if err = n[l.host].IP("addr add " + l.address + "/24 dev eth0"); err != nil {
			return n, err
		}
	}
	if err = testnet.Link(n[gateway], "eth1", n[serverOfSite], "eth0"); err != nil {
		return n, err
	}
	for h, line := range map[host]string{
		client: "route add default via " + lanAddress, other: "route add default via " + lanAddress,
		gateway: "addr add 10.5.8.1/24 dev eth1", serverOfSite: "addr add " + serverAddress + "/24 dev eth0",
	} {
		if err = n[h].IP(line); err != nil {
			return n, err
		}
	}
	if err = n[serverOfSite].IP("route add default via 10.5.8.1"); err != nil {
		return n, err
	}
	return n, n[gateway].Set("net.ipv4.ip_forward", "1")
}

// ports are the two links of a router.
var ports = []string{"ether1", "ether2"}

// tapName names the end of a router's link at the switch. The network comes with router 0.
func tapName(port string, router int) string {
	if router == 0 {
		return port
	}
	return fmt.Sprintf("%s-%d", port, router)
}

// addRouter makes the links of one more router, side by side with those that are there.
func (n network) addRouter(router int) error {
	for _, port := range ports {
		name := tapName(port, router)
		if err := n[switchHost].IP("tuntap add "+name+" mode tap", "link set "+name+" master br-"+port+" up"); err != nil {
			return err
		}
	}
	return nil
}

// addLink makes one more link, to a port of router 0 in its LAN, and plugs a host into it.
func (n network) addLink(port string, h host) error {
	return n[switchHost].IP("link add br-"+port+" type bridge", "link set br-"+port+" up",
		"tuntap add "+port+" mode tap", "link set "+port+" master br-"+port+" up", "link set "+string(h)+" master br-"+port)
}

// ownerVariable of the environment is the process id of whoever has started a program on a
// host, so that sweep finds what nobody owns any more.
const ownerVariable = "POSTERN_LAB_OWNER"

// command prepares a program to run on a host.
//
// It has no Pdeathsig: that signal comes when the thread ends that started the
// program, and threads end in method on. What is left is ended by close or sweep.
func (n network) command(h host, name string, args ...string) *exec.Cmd {
	cmd := n[h].Command(name, args...)
	cmd.Env = append(os.Environ(), ownedBy(os.Getpid()))
	return cmd
}

func ownedBy(pid int) string { return fmt.Sprintf("%s=%d", ownerVariable, pid) }

// enter is what to type, as root, for a shell on a host.
func (n network) enter(h host) string { return "nsenter --net=" + n[h].Path() + " bash" }

// run runs a program on a host to its end; its output is part of the error.
func (n network) run(h host, name string, args ...string) error { return n[h].Run(name, args...) }

// on calls f with its sockets on a host.
func (n network) on(h host, f func() error) error { return n[h].Do(f) }

// dial connects a host to an address by TCP.
func (n network) dial(h host, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := n[h].Dial(&net.Dialer{Timeout: timeout}, address)
	if err != nil {
		return nil, err // not a nil connection in the interface
	}
	return conn, nil
}

// listen makes a host listen for TCP on a port.
func (n network) listen(h host, port int) (*net.TCPListener, error) {
	return n[h].Listen(fmt.Sprintf("0.0.0.0:%d", port))
}

// close removes the network, and what still runs in it.
func (n network) close() {
	for _, h := range n {
		if err := h.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "qemu:", err)
		}
	}
}

// killPrograms ends whatever runs on the hosts.
func (n network) killPrograms() {
	for _, h := range n {
		_ = h.Kill()
	}
}

// sweep ends the programs that runs left behind which were killed without a chance to
// clean up. Their hosts and links go with them.
func sweep() error {
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return err
	}
	for _, path := range paths {
		environment, err := os.ReadFile(path)
		if err != nil {
			continue // the process is gone
		}
		for word := range strings.SplitSeq(string(environment), "\x00") {
			owner, ok := strings.CutPrefix(word, ownerVariable+"=")
			if !ok {
				continue
			}
			id, err := strconv.Atoi(owner)
			if err != nil || syscall.Kill(id, 0) == nil {
				continue
			}
			if id, err = strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
				_ = syscall.Kill(id, syscall.SIGKILL)
			}
		}
	}
	return nil
}

// kill ends a program that command prepared, with all its children, and waits
// for it.
func kill(cmd *exec.Cmd) {
	if cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
}
