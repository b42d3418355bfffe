// Package dhcptest has the DHCP servers and clients that people use, for tests: how each is
// started on a host (package testnet), the same way in the tests of one package and in those of a whole
// router. They are the programs of Debian's packages dnsmasq-base, isc-dhcp-server, busybox,
// kea-dhcp4-server, isc-dhcp-client, dhcpcd-base and systemd.
package dhcptest

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-router/postern/dhcp"
)

// Offer is what a server gives.
type Offer struct {
	Interface   string // the server's
	Network     netip.Prefix
	First, Last netip.Addr
	Gateway     netip.Addr
	NameServers []netip.Addr
	TimeServer  netip.Addr
	// Routes are those of option 121, if there are any.
	Routes []dhcp.Route
	Time   time.Duration // of a lease, whole seconds
}

// Server is a program that gives addresses.
type Server struct {
	Name, Program string
	line          func(o Offer, folder string) ([]string, error)
}

// Line is the program with its arguments, to run in the foreground as root of the host. Its files are
// in folder, with the leases: a server that is started again with the same folder knows them.
func (s Server) Line(o Offer, folder string) ([]string, error) { return s.line(o, folder) }

// Servers are all of them.
var Servers = []Server{
	{"dnsmasq", "dnsmasq", dnsmasq},
	{"ISC dhcpd", "dhcpd", dhcpd},
	{"udhcpd", "busybox", udhcpd},
	{"kea", "kea-dhcp4", kea},
}

func seconds(o Offer) int { return int(o.Time / time.Second) }

// join writes the addresses with a text between them.
func join(all []netip.Addr, between string) string {
	var words []string
	for _, a := range all {
		words = append(words, a.String())
	}
	return strings.Join(words, between)
}

// mask is the network's, as 255.255.255.0.
func (o Offer) mask() string {
	var m [4]byte
	for i := range o.Network.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(m).String()
}

// routes are the bytes of option 121.
func (o Offer) routes() []byte {
	var options dhcp.Options
	options.SetClasslessRoutes(o.Routes)
	value, _ := options.Get(dhcp.OptionClasslessRoutes) // none if there are no routes
	return value
}

// ensure writes a file if it is not there.
func ensure(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func dnsmasq(o Offer, folder string) ([]string, error) {
	args := []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--interface=" + o.Interface, "--no-ping",
		fmt.Sprintf("--dhcp-range=%s,%s,%d", o.First, o.Last, seconds(o)), "--dhcp-authoritative",
		"--dhcp-option=option:router," + o.Gateway.String(), "--dhcp-option=option:dns-server," + join(o.NameServers, ","),
		"--dhcp-option=option:ntp-server," + o.TimeServer.String(), "--log-dhcp", "--log-facility=-", "--pid-file=",
		"--dhcp-leasefile=" + filepath.Join(folder, "leases")}
	if o.Routes != nil {
		option := "--dhcp-option=121"
		for _, r := range o.Routes {
			option += "," + r.Destination.String() + "," + r.Gateway.String()
		}
		args = append(args, option)
	}
	return args, nil
}

func dhcpd(o Offer, folder string) ([]string, error) {
	text := fmt.Sprintf(`authoritative; ddns-update-style none; ping-check false; dhcp-cache-threshold 0; default-lease-time %[1]d; max-lease-time %[1]d;
option classless code 121 = array of integer 8;
subnet %[2]s netmask %[3]s { range %[4]s %[5]s; option routers %[6]s;
option domain-name-servers %[7]s; option ntp-servers %[8]s;
`, seconds(o), o.Network.Addr(), o.mask(), o.First, o.Last, o.Gateway, join(o.NameServers, ", "), o.TimeServer)
	if o.Routes != nil {
		text += "option classless " + strings.ReplaceAll(strings.Trim(fmt.Sprint(o.routes()), "[]"), " ", ",") + ";\n"
	}
	configuration, leases := filepath.Join(folder, "dhcpd.conf"), filepath.Join(folder, "dhcpd.leases")
	if err := ensure(leases, ""); err != nil {
		return nil, err
	}
	return []string{"dhcpd", "-4", "-f", "-d", "-cf", configuration, "-lf", leases, "--no-pid", o.Interface},
		os.WriteFile(configuration, []byte(text+"}\n"), 0o644)
}

func udhcpd(o Offer, folder string) ([]string, error) {
	configuration, leases := filepath.Join(folder, "udhcpd.conf"), filepath.Join(folder, "udhcpd.leases")
	text := fmt.Sprintf("start %s\nend %s\ninterface %s\nlease_file %s\npidfile %s\nmax_leases 254\nmin_lease 60\n"+
		"opt lease %d\nopt subnet %s\nopt router %s\nopt dns %s\nopt ntpsrv %s\n", o.First, o.Last, o.Interface, leases, filepath.Join(folder, "udhcpd.pid"),
		seconds(o), o.mask(), o.Gateway, join(o.NameServers, " "), o.TimeServer)
	var routes []string
	for _, r := range o.Routes {
		routes = append(routes, r.Destination.String()+" "+r.Gateway.String())
	}
	if routes != nil {
		text += "opt staticroutes " + strings.Join(routes, ", ") + "\n"
	}
	if err := ensure(leases, ""); err != nil {
		return nil, err
	}
	return []string{"busybox", "udhcpd", "-f", configuration}, os.WriteFile(configuration, []byte(text), 0o644)
}

func kea(o Offer, folder string) ([]string, error) {
	options := fmt.Sprintf(`{"name": "routers", "data": "%s"}, {"name": "domain-name-servers", "data": "%s"}, {"name": "ntp-servers", "data": "%s"}`,
		o.Gateway, join(o.NameServers, ", "), o.TimeServer)
	if o.Routes != nil {
		options += fmt.Sprintf(`, {"code": 121, "csv-format": false, "data": "%s"}`, hex.EncodeToString(o.routes()))
	}
	path := filepath.Join(folder, "kea.json")
	text := fmt.Sprintf(`{"Dhcp4": {"interfaces-config": {"interfaces": ["%s"]}, "authoritative": true,
"lease-database": {"type": "memfile", "persist": true, "lfc-interval": 0, "name": "%s"},
"valid-lifetime": %d, "subnet4": [{"subnet": "%s", "pools": [{"pool": "%s - %s"}], "option-data": [%s]}],
"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}
`, o.Interface, filepath.Join(folder, "kea.csv"), seconds(o), o.Network, o.First, o.Last, options)
	return []string{"env", "KEA_PIDFILE_DIR=" + folder, "KEA_LOCKFILE_DIR=" + folder, "kea-dhcp4", "-c", path}, os.WriteFile(path, []byte(text), 0o644)
}
