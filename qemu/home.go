package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// pageName is the web server's name, which the provider's name server knows.
	pageName = "www.example.net"
	// pageText is what its page says.
	pageText = "It works.\n"
)

// household is what is around a router on which nothing has been set: a provider, who gives it an
// address by DHCP and answers names, a web server, and a client that asks for an address. It is the
// manual's network, but the hosts of the LAN have no address.
type household struct {
	network
	dir      string
	site     *site
	provider *exec.Cmd
	log      *logBuffer // the provider's
}

// startHousehold starts the provider and the web server, with their files below dir.
func startHousehold(n network, dir string) (*household, error) {
	h := &household{network: n, dir: dir, log: &logBuffer{}}
	if err := errors.Join(n[client].IP("addr flush dev eth0"), n[other].IP("addr flush dev eth0"), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	script := `#!/bin/sh
case "$1" in
deconfig) ip addr flush dev "$interface" ;;
bound|renew)
	ip addr replace "$ip/$mask" dev "$interface"
	ip route replace default via "$router"
	echo "address $ip/$mask, gateway $router, name server $dns" | tee ` + h.leaseFile() + ` ;;
esac
`
	if err := os.WriteFile(h.script(), []byte(script), 0o755); err != nil {
		return nil, err
	}
	var err error
	if h.site, err = startSite(n, filepath.Join(dir, "site")); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(h.site.dir, "ftp", "index.html"), []byte(pageText), 0o644); err != nil {
		h.close()
		return nil, err
	}
	if err := h.startProvider("10.1.0.100", "10.1.0.150", renewalTime); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// renewalTime is after how long the provider has its leases renewed: the router's DHCP client sleeps
// for most of it.
const renewalTime = 170 * time.Second

// startProvider starts the provider's servers on the gateway. The addresses that they give are of
// this range, and are to be renewed after that time; the time is to be asked of serverOfSite, where a server is
// that a test starts.
func (h *household) startProvider(first, last string, renewal time.Duration) error {
	h.provider = h.command(gateway, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--group=root",
		"--no-resolv", "--no-hosts", "--interface=eth0", "--except-interface=lo", "--bind-interfaces",
		"--dhcp-range="+first+","+last+",255.255.255.0,1h", "--dhcp-authoritative", "--no-ping",
		"--dhcp-option=option:T1,"+strconv.Itoa(int(renewal/time.Second)), "--dhcp-option=option:ntp-server,"+serverAddress,
		"--dhcp-leasefile="+h.providerLeases(), "--log-dhcp", "--log-facility=-",
		"--address=/"+pageName+"/"+serverAddress)
	h.provider.Stdout, h.provider.Stderr = h.log, h.log
	if err := h.provider.Start(); err != nil {
		return fmt.Errorf("start dnsmasq (Debian package dnsmasq-base): %w", err)
	}
	return nil
}

func (h *household) close() {
	if h.provider != nil {
		kill(h.provider)
	}
	if h.site != nil {
		h.site.close()
	}
}

func (h *household) script() string    { return filepath.Join(h.dir, "lease.sh") }
func (h *household) leaseFile() string { return filepath.Join(h.dir, "lease") }

// lease is what the client got by DHCP.
type lease struct{ address, gateway, nameServer string }

var leaseLine = regexp.MustCompile(`^address (\S+)/24, gateway (\S+), name server (\S+)\n$`)

// connect has a host ask for an address by DHCP, as a computer does that is plugged in. Its
// programs ask the name server that it is told of. prepare makes the command.
func (h *household) connect(from host, prepare func(host, string, ...string) *exec.Cmd) (lease, error) {
	var l lease
	err := retry(func() error {
		out, err := prepare(from, "busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-x", "hostname:laptop", "-s", h.script()).Output()
		if err != nil {
			return fmt.Errorf("udhcpc: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	text, err := os.ReadFile(h.leaseFile())
	if err != nil {
		return l, err
	}
	found := leaseLine.FindStringSubmatch(string(text))
	if found == nil {
		return l, fmt.Errorf("udhcpc got %q", text)
	}
	l = lease{found[1], found[2], found[3]}
	return l, h.network[from].Overlay("/etc/resolv.conf", "nameserver "+l.nameServer+"\n")
}

func (h *household) providerLeases() string { return filepath.Join(h.dir, "provider.leases") }

// awaitOwnAddress waits until the provider has given the router an address that begins in one of
// these ways.
func awaitOwnAddress(m *machine, beginnings ...string) error {
	return retry(func() error {
		shown, err := m.command("/ip dhcp-client print")
		if err != nil {
			return err
		}
		for _, b := range beginnings {
			if regexp.MustCompile(`bound +` + regexp.QuoteMeta(b)).MatchString(shown) {
				return nil
			}
		}
		return fmt.Errorf("no address %s...:\n%s", strings.Join(beginnings, " or "), shown)
	})
}

// page fetches the page by its name, from the client.
func (h *household) page() error { return h.pageFrom(client) }

// pageFrom does so from a host.
func (h *household) pageFrom(from host) error {
	out, err := h.command(from, "curl", "--silent", "--show-error", "--max-time", "20", "http://"+pageName+"/").CombinedOutput()
	if err == nil && string(out) != pageText {
		err = errors.New("not the page")
	}
	if err != nil {
		return fmt.Errorf("http://%s/: %w: %s", pageName, err, out)
	}
	return nil
}

// example shows what the user of a household sees.
func (h *household) example(m *machine) error {
	if _, err := m.expect("> "); err != nil {
		return err
	}
	m.showLog()
	if err := awaitOwnAddress(m, "10.1.0."); err != nil {
		return err
	}
	say("The router has an address of its provider")
	if err := m.show("/ip dhcp-client print", "/ip route print"); err != nil {
		return err
	}
	say("A computer is plugged in, and asks for an address; from then on the router answers its name")
	l, err := h.connect(client, func(from host, name string, args ...string) *exec.Cmd {
		fmt.Printf("%s$ %s %s\n", from, name, strings.Join(args, " "))
		return h.command(from, name, args...)
	})
	if err != nil {
		return err
	}
	fmt.Printf("address %s, gateway %s, name server %s\n", l.address, l.gateway, l.nameServer)
	// The DHCP server tells the router of leases a moment later.
	if err := retry(func() error {
		shown, err := m.command("/ip dhcp-server lease print")
		if err == nil && !strings.Contains(shown, " bound ") {
			err = fmt.Errorf("the router shows no lease:\n%s", shown)
		}
		return err
	}); err != nil {
		return err
	}
	if err := m.show("/ip dhcp-server lease print", "/ip dns cache print"); err != nil {
		return err
	}
	say("It fetches a page by its name: the router asks the provider's name server, and masquerades")
	if err := retry(h.page); err != nil { // the router may still wait for its own address
		return err
	}
	if err := h.show(client, "curl", "--silent", "--show-error", "http://"+pageName+"/").Run(); err != nil {
		return err
	}
	fmt.Println("web server:", lastLine(h.site.httpLog.String()))
	if err := m.show("/ip firewall connection print where protocol=tcp"); err != nil {
		return err
	}
	say("A stranger outside asks the router for its page: nobody answers")
	address, err := m.wanAddress()
	if err != nil {
		return err
	}
	if err := h.showDropped(stranger, "http://"+address+"/"); err != nil {
		return err
	}
	return m.show("/ip firewall filter print")
}

// wanAddress is what the provider has given the router.
func (m *machine) wanAddress() (string, error) {
	shown, err := m.command("/ip dhcp-client print")
	if err != nil {
		return "", err
	}
	return find(shown, `bound +([0-9.]+)`)
}
