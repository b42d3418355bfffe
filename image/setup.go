package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/postern-router/postern/board"
)

// linuxSource is the Debian package that the kernel is built from.
const linuxSource = "linux-source-6.12"

// buildPackages are the Debian packages that any image is built with.
// iptables is there for its version, which names the source to build, and for
// the tests of package firewall.
var buildPackages = []string{
	"make", "gcc", "libc6-dev", "bc", "bison", "flex", "libelf-dev", "xz-utils",
	"dpkg-dev", "pkg-config", "iptables", linuxSource,
}

// labPackages are the Debian packages of the lab's and the tests' network: the
// programs that a router's users run, what joins them, and the servers that socksd
// is compared with, and those that look into a disk image.
var labPackages = []string{
	"busybox", "connect-proxy", "cpio", "curl", "dante-client", "dante-server", "gdisk", "iproute2", "iputils-ping",
	"microsocks", "ncat", "netcat-openbsd", "openssh-client", "openssh-server", "proxychains4",
	"python3-socks", "socat", "tnftp", "vsftpd",
}

// services are those that packages of the lab would have this machine run.
var services = map[string]string{
	"dante-server": "danted", "openssh-server": "ssh", "vsftpd": "vsftpd",
}

// setup installs the Debian packages that are missing for the boards, and with
// lab also those to run them.
func setup(boards []board.Board, lab bool) error {
	host, err := output("dpkg", "--print-architecture")
	if err != nil {
		return fmt.Errorf("what Debian this is: %w", err)
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
	want = slices.Compact(want)

	var missing []string
	for _, p := range want {
		status, err := output("dpkg-query", "--show", "--showformat=${db:Status-Status}", p)
		if err != nil || status != "installed" {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Println("Set-up: installing Debian packages:", strings.Join(missing, " "))
	if err := asRoot("apt-get", "-q", "update"); err != nil {
		return err
	}
	// They are wanted as programs to start in a namespace, not as services of this
	// machine: a policy that forbids starting services lasts as long as apt.
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

// asRoot runs a command with this program's output, by sudo if need be.
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

// output runs a command and returns what it printed, without the line's end.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// packageVersion returns the version of the source of an installed package.
func packageVersion(name string) (string, error) {
	v, err := output("dpkg-query", "--show", "--showformat=${source:Version}", name)
	if err != nil {
		return "", fmt.Errorf("package %s of Debian is not installed; `make setup` installs it: %w", name, err)
	}
	return v, nil
}
