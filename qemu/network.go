package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// host is a namespace of the machine that plays one host of the lab.
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

// network is the manual's network, built of namespaces:
//
//	client   192.168.0.2 -+                                    +- stranger 10.1.0.66
//	                      +- 192.168.0.1 ROUTER 10.1.0.104 ----+- gateway 10.1.0.1 --- server 10.5.8.8
//	other    192.168.0.3 -+  (ether2)           (ether1)
//
// The gateway knows no way back to 192.168.0.0/24: what is not masqueraded gets
// no answer. Names begin with this process's id, so that several networks stand
// side by side.
type network struct{ prefix string }

const namePrefix = "postern-"

// newNetwork builds the network. tag tells apart those of one process.
func newNetwork(tag string) (*network, error) {
	n := &network{prefix: namePrefix + strconv.Itoa(os.Getpid()) + tag + "-"}
	var batch strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&batch, format+"\n", args...) }
	for _, h := range []host{switchHost, client, other, gateway, stranger, serverOfSite} {
		line("netns add %s", n.name(h))
		line("-n %s link set lo up", n.name(h))
	}
	sw := n.name(switchHost)
	for _, port := range []string{"ether1", "ether2"} {
		line("-n %s link add br-%s type bridge", sw, port)
		line("-n %s link set br-%s up", sw, port)
		line("-n %s tuntap add %s mode tap", sw, port)
		line("-n %s link set %s master br-%s up", sw, port, port)
	}
	for _, l := range []struct {
		host    host
		port    string
		address string
	}{
		{client, "ether2", clientAddress}, {other, "ether2", otherAddress},
		{gateway, "ether1", gatewayAddress}, {stranger, "ether1", strangerAddress},
	} {
		line("-n %s link add eth0 type veth peer name %s netns %s", n.name(l.host), l.host, sw)
		line("-n %s link set %s master br-%s up", sw, l.host, l.port)
		line("-n %s addr add %s/24 dev eth0", n.name(l.host), l.address)
		line("-n %s link set eth0 up", n.name(l.host))
	}
	line("-n %s route add default via %s", n.name(client), lanAddress)
	line("-n %s route add default via %s", n.name(other), lanAddress)
	line("-n %s link add eth1 type veth peer name eth0 netns %s", n.name(gateway), n.name(serverOfSite))
	line("-n %s addr add 10.5.8.1/24 dev eth1", n.name(gateway))
	line("-n %s link set eth1 up", n.name(gateway))
	line("-n %s addr add %s/24 dev eth0", n.name(serverOfSite), serverAddress)
	line("-n %s link set eth0 up", n.name(serverOfSite))
	line("-n %s route add default via 10.5.8.1", n.name(serverOfSite))

	// `ip -batch` takes no -n within a line, so each line is a command of its own.
	for l := range strings.Lines(batch.String()) {
		if err := runTool("ip", strings.Fields(l)...); err != nil {
			n.close()
			return nil, fmt.Errorf("lab network: %w", err)
		}
	}
	if err := n.run(gateway, "busybox", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"); err != nil {
		n.close()
		return nil, fmt.Errorf("lab network: %w", err)
	}
	return n, nil
}

func (n *network) name(h host) string { return n.prefix + string(h) }

// command prepares a program to run on a host.
//
// It has no Pdeathsig: that signal comes when the thread ends that started the
// program, and threads end in method on. What is left is ended by close or sweep.
func (n *network) command(h host, name string, args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", n.name(h), name}, args...)...)
	// A process group of its own, so that Ctrl-C reaches this program alone and
	// the end is orderly.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// enter is what to type, as root, for a shell on a host.
func (n *network) enter(h host) string { return "ip netns exec " + n.name(h) + " bash" }

// run runs a program on a host to its end; its output is part of the error.
func (n *network) run(h host, name string, args ...string) error {
	out, err := n.command(h, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s on %s: %w: %s", strings.Join(append([]string{name}, args...), " "), h, err, out)
	}
	return nil
}

// on calls f with its sockets on a host: a network namespace belongs to a thread,
// and a socket to the namespace in which it was made, whoever uses it later.
func (n *network) on(h host, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, so that no other
		// finds itself on that host.
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + n.name(h))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", h, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// dial connects a host to an address by TCP.
func (n *network) dial(h host, address string, timeout time.Duration) (conn net.Conn, err error) {
	err = n.on(h, func() error {
		conn, err = net.DialTimeout("tcp4", address, timeout)
		return err
	})
	return conn, err
}

// listen makes a host listen for TCP on a port.
func (n *network) listen(h host, port int) (l net.Listener, err error) {
	err = n.on(h, func() error {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	return l, err
}

// close removes the network, and what still runs in it.
func (n *network) close() {
	names, err := namespaces(n.prefix)
	if err != nil {
		fmt.Fprintln(os.Stderr, "qemu:", err)
	}
	for _, name := range names {
		if err := deleteNamespace(name); err != nil {
			fmt.Fprintln(os.Stderr, "qemu:", err)
		}
	}
}

// killPrograms ends whatever runs on the hosts.
func (n *network) killPrograms() {
	names, _ := namespaces(n.prefix)
	for _, name := range names {
		_ = killIn(name)
	}
}

// deleteNamespace ends the programs in a namespace of ours and removes it.
func deleteNamespace(name string) error {
	if err := killIn(name); err != nil {
		return err
	}
	return runTool("ip", "netns", "delete", name)
}

// killIn ends the programs in a namespace of ours.
func killIn(name string) error {
	pids, err := exec.Command("ip", "netns", "pids", name).Output()
	if err != nil {
		return fmt.Errorf("ip netns pids %s: %w", name, err)
	}
	for _, word := range strings.Fields(string(pids)) {
		if pid, err := strconv.Atoi(word); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return nil
}

// sweep removes what runs left behind that were killed without a chance to clean
// up: networks whose process is gone.
func sweep() error {
	names, err := namespaces(namePrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		digits := strings.TrimPrefix(name, namePrefix)
		if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			digits = digits[:i]
		}
		pid, err := strconv.Atoi(digits)
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := deleteNamespace(name); err != nil {
			return err
		}
	}
	return nil
}

func namespaces(prefix string) ([]string, error) {
	paths, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil {
		return nil, err
	}
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths, nil
}

// runTool runs a program of this machine; its output is part of the error.
func runTool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
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
