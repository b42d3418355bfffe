package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/npm"
)

// linuxSource is the Debian package that the kernel is built from.
const linuxSource = "linux-source-6.12"

// buildPackages are the Debian packages that every image is built with. The version of
// iptables is the version of the source that is built, and the tests of package firewall run
// its program.
var buildPackages = []string{
	"make", "gcc", "libc6-dev", "bc", "bison", "flex", "libelf-dev", "xz-utils",
	"dpkg-dev", "pkg-config", "iptables", "musl", linuxSource,
}

// labPackages are the Debian packages of the lab and the tests: the programs that a router's
// users run, the network between them, the servers that socksd and dnsd are compared with, and
// programs that read disk images.
var labPackages = []string{
	"ansible", "bind9-dnsutils", "busybox", "chromium", "connect-proxy", "cpio", "curl", "dante-client", "dante-server", "dhcpcd-base", "dnsmasq-base", "dnsperf", "dropbear-bin", "gdisk", "iproute2", "iputils-ping",
	"isc-dhcp-client", "isc-dhcp-relay", "isc-dhcp-server", "kea-admin", "kea-dhcp4-server", "microsocks", "ncat", "netcat-openbsd", "nodejs", "npm", "openssh-client", "openssh-server", "ppp", "pppoe", "prometheus", "proxychains4",
	"putty-tools", "python3-asyncssh", "python3-librouteros", "python3-netmiko", "python3-paramiko", "python3-socks", "rancid", "socat", "sshfs", "strace", "systemd", "tnftp", "tsocks", "vsftpd",
}

// services are the system services that packages of the lab would start on this machine.
var services = map[string]string{
	"dante-server": "danted", "isc-dhcp-relay": "isc-dhcp-relay", "isc-dhcp-server": "isc-dhcp-server", "kea-dhcp4-server": "kea-dhcp4-server", "openssh-server": "ssh", "prometheus": "prometheus", "vsftpd": "vsftpd",
}

// setup installs the missing Debian packages that are needed to build for the boards, and with
// lab also those to run them, and what tests take from npm's registry.
func setup(boards []board.Board, lab bool) error {
	host, err := output("dpkg", "--print-architecture")
	if err != nil {
		return fmt.Errorf("architecture of this machine's Debian: %w", err)
	}
	want := slices.Clone(buildPackages)
	if lab {
		want = append(want, labPackages...)
	}
	for _, b := range boards {
		want = append(want, b.CPU.CompilerPackages(host)...)
		switch b.Image.Form {
		case board.UImage, board.FlatUImage, board.FIT:
			want = append(want, ubootPackages...)
		}
		if b.Image.DeviceTrees != nil {
			want = append(want, deviceTreePackage)
		}
		if p := b.Image.BootLoader.Package; p != "" {
			want = append(want, p)
		}
		if b.Image.Form == board.Archive {
			want = append(want, diskPackages...)
			if lab {
				want = append(want, "ovmf")
			}
		}
		if b.Flash.Chip == "" && b.Flash.Partitions != nil {
			want = append(want, fatPackages...)
		}
		if b.Image.BootLoader.Source != "" {
			want = append(want, ubootBuildPackages...)
		}
		if lab && b.QEMU.Package != "" {
			want = append(want, b.QEMU.Package)
		}
	}
	slices.Sort(want)
	if err := installPackages(slices.Compact(want)); err != nil || !lab {
		return err
	}
	return npm.Install()
}

// installPackages installs those of the Debian packages that are missing.
func installPackages(want []string) error {
	present, err := output("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}, ${Provides}\n")
	if err != nil {
		return err
	}
	have := installed(present)
	missing := slices.DeleteFunc(want, func(p string) bool { return have[p] })
	if len(missing) == 0 {
		return nil
	}
	fmt.Println("Set-up: installing Debian packages:", strings.Join(missing, " "))
	if err := asRoot("apt-get", "-q", "update"); err != nil {
		return err
	}
	// The lab starts these programs in namespaces; they must not run as services of this
	// machine. While apt runs, a policy forbids it to start services.
	install := append([]string{"sh", "-c", `
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
	trap 'rm -f $policy' EXIT
fi
DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@"
`, "install"}, missing...)
	if err := asRoot(install...); err != nil {
		return err
	}
	if !exists("/run/systemd/system") {
		return nil
	}
	for _, p := range missing {
		if service, ok := services[p]; ok {
			if err := asRoot("systemctl", "disable", "--now", service); err != nil {
				return err
			}
		}
	}
	return nil
}

// installed returns the names of installed packages and of those that they are instead of, as a nodejs that brings its own npm. A line
// of text is a package's state, its name, and with commas what it provides, with versions.
func installed(text string) map[string]bool {
	have := map[string]bool{}
	for line := range strings.Lines(text) {
		names, ok := strings.CutPrefix(line, "installed ")
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(names, ",") {
			if name, _, _ = strings.Cut(strings.TrimSpace(name), " "); name != "" {
				have[name] = true
			}
		}
	}
	return have
}

// asRoot runs a command as root, by sudo if needed. Its output is this program's.
func asRoot(args ...string) error {
	if os.Geteuid() != 0 {
		args = append([]string{"sudo"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args[:min(len(args), 3)], " "), err)
	}
	return nil
}

// output runs a command and returns its standard output without the last newline.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// packageVersion returns the version of the source package of an installed Debian package.
func packageVersion(name string) (string, error) {
	v, err := output("dpkg-query", "--show", "--showformat=${source:Version}", name)
	if err != nil {
		return "", fmt.Errorf("package %s of Debian is not installed; `make setup` installs it: %w", name, err)
	}
	return v, nil
}
