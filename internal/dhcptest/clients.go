package dhcptest

import (
	"os"
	"path/filepath"
	"syscall"
)

// Client is a program that takes an address for the interface eth0 of its host.
type Client struct {
	Name, Program string
	// Renew is the signal that has it ask for more time at once. It is 0 if there is none: such a
	// client asks when half of its lease is over.
	Renew syscall.Signal
	// Release is the signal that has it give its address back; 0 if a command does so.
	Release syscall.Signal

	line, release func(folder string) ([]string, error)
}

// Line is the program with its arguments, to run in the foreground as root of the host, until it is
// killed. Its files are in folder.
func (c Client) Line(folder string) ([]string, error) { return c.line(folder) }

// ReleaseLine is the command that has the client of the same folder give its address back. It is for
// those without Release.
func (c Client) ReleaseLine(folder string) ([]string, error) { return c.release(folder) }

// Clients are all of them.
var Clients = []Client{
	{Name: "udhcpc", Program: "busybox", Renew: syscall.SIGUSR1, Release: syscall.SIGUSR2, line: udhcpc},
	{Name: "dhclient", Program: "dhclient", line: func(folder string) ([]string, error) { return dhclient(folder, "-d") },
		release: func(folder string) ([]string, error) { return dhclient(folder, "-r") }},
	{Name: "dhcpcd", Program: "dhcpcd", Renew: syscall.SIGUSR1, Release: syscall.SIGALRM, line: dhcpcd},
	{Name: "systemd-networkd", Program: networkd, Release: syscall.SIGTERM, line: systemdNetworkd},
}

const networkd = "/lib/systemd/systemd-networkd" // Debian's systemd

// script writes a program of a shell and returns its path.
func script(folder, text string) (string, error) {
	path := filepath.Join(folder, "script")
	return path, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"exit 0\n"), 0o755)
}

func udhcpc(folder string) ([]string, error) {
	path, err := script(folder, `case $1 in
deconfig) ip addr flush dev $interface ;;
bound | renew) ip addr replace $ip/$mask dev $interface; ip route replace default via $router; echo dns $dns ;;
esac
`)
	return []string{"busybox", "udhcpc", "-f", "-t", "20", "-T", "3", "-i", "eth0", "-x", "hostname:udhcpc", "-s", path}, err
}

func dhclient(folder, mode string) ([]string, error) {
	path, err := script(folder, `case $reason in
BOUND | RENEW | REBIND | REBOOT) ip addr replace $new_ip_address/$new_subnet_mask dev $interface; ip route replace default via $new_routers; echo dns $new_domain_name_servers ;;
EXPIRE | FAIL | RELEASE | STOP) ip addr flush dev $interface ;;
esac
`)
	if err != nil {
		return nil, err
	}
	configuration := filepath.Join(folder, "dhclient.conf")
	return []string{"dhclient", "-v", mode, "-sf", path, "-lf", filepath.Join(folder, "leases"), "-pf", filepath.Join(folder, "pid"), "-cf", configuration, "eth0"},
		os.WriteFile(configuration, []byte("send host-name \"dhclient\";\nrequest subnet-mask, routers, domain-name-servers;\n"), 0o644)
}

// alone has a program run with mounts of its own: what it keeps in /run and knows of users is nobody
// else's, and it becomes no other user.
const alone = `set -e
mount -t tmpfs tmpfs /run
printf 'root:x:0:0:root:/root:/bin/sh\nsystemd-network:x:0:0::/:/bin/false\n' >/run/passwd
mount --bind /run/passwd /etc/passwd
`

func dhcpcd(string) ([]string, error) {
	return []string{"unshare", "--mount", "sh", "-c", alone + `mount -t tmpfs tmpfs /var/lib/dhcpcd
exec dhcpcd -4 -B -d --noipv4ll --noarp -h dhcpcd -f /dev/null -c /bin/true eth0`}, nil
}

func systemdNetworkd(string) ([]string, error) {
	// Where /sys cannot be written, as in a container, it does not wait for udev.
	return []string{"unshare", "--mount", "sh", "-c", alone + `mount -t sysfs -o ro sysfs /sys
mkdir -p /run/systemd/network /run/systemd/netif
cat >/run/systemd/network/eth0.network <<'END'
[Match]
Name=eth0
[Network]
DHCP=ipv4
IPv6AcceptRA=no
LinkLocalAddressing=no
[DHCPv4]
Hostname=systemd-networkd
END
exec ` + networkd}, nil
}
