package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/postern-router/postern/board"
)

const (
	// iptablesRecipe is for iptables what kernelRecipe is for the kernel.
	iptablesRecipe = "1"

	iptablesCFLAGS  = "-Os -ffunction-sections -fdata-sections"
	iptablesLDFLAGS = "-all-static -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noexecstack"
)

// extensions matches the sources of the iptables extensions that package firewall uses. The
// others are left out of the build, since a static program contains all of them: without them
// it has half the size, the C library not counted.
var extensions = regexp.MustCompile(`^lib(xt|ipt)_(standard|tcp|udp|icmp|comment|conntrack|iprange|multiport|LOG|REJECT|NAT|SNAT|DNAT|MASQUERADE|REDIRECT)\.c$`)

// iptables returns a folder with the static program xtables-legacy-multi for the board's CPU.
// again is that of kernel.
func iptables(c cache, b board.Board, again string) (string, error) {
	version, err := packageVersion("iptables")
	if err != nil {
		return "", err
	}
	compiler, err := compilerVersion(b)
	if err != nil {
		return "", err
	}
	inputs := []string{iptablesRecipe, iptablesCFLAGS, iptablesLDFLAGS, version, compiler, extensions.String(), again}
	return c.get("iptables", b.CPU.GOARCH, inputs, func(result, work string) error {
		source, err := debianSource(c, "iptables", version)
		if err != nil {
			return err
		}
		say("building iptables %s for %s", version, b.CPU.GOARCH)
		if err := buildIptables(b, source, work); err != nil {
			return fmt.Errorf("iptables for %s: %w", b.CPU.GOARCH, err)
		}
		program := filepath.Join(work, "iptables", "iptables", "xtables-legacy-multi")
		if err := run(work, nil, b.CPU.Cross+"strip", program); err != nil {
			return err
		}
		return copyFile(filepath.Join(result, "xtables-legacy-multi"), program, 0o755)
	})
}

func buildIptables(b board.Board, source, work string) error {
	dir := filepath.Join(work, "iptables")
	if err := run(work, nil, "cp", "--archive", source, dir); err != nil {
		return err
	}
	files, err := os.ReadDir(filepath.Join(dir, "extensions"))
	if err != nil {
		return err
	}
	for _, f := range files {
		name := f.Name()
		if strings.HasPrefix(name, "lib") && strings.HasSuffix(name, ".c") && !extensions.MatchString(name) {
			if err := os.Remove(filepath.Join(dir, "extensions", name)); err != nil {
				return err
			}
		}
	}
	if err := run(dir, nil, "./configure", "--host="+b.CPU.Host(), "--prefix=/", "--sysconfdir=/etc",
		"--enable-static", "--disable-shared", "--disable-nftables", "--disable-ipv6", "--disable-devel",
		"--disable-libipq", "--disable-bpf-compiler", "--disable-nfsynproxy", "--disable-connlabel",
		"CFLAGS="+iptablesCFLAGS); err != nil {
		return err
	}
	return run(dir, nil, "make", fmt.Sprintf("-j%d", runtime.NumCPU()),
		"LDFLAGS="+iptablesLDFLAGS)
}

// debianKeys is a file of the package debian-archive-keyring, which every Debian has.
const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// debianSource returns a folder with the patched source of a Debian source package. It takes
// the archive's address from the machine's apt configuration, and does not change that.
func debianSource(c cache, name, version string) (string, error) {
	dir, err := c.get("source", name, []string{version}, func(result, work string) error {
		say("fetching the source of %s %s", name, version)
		list, err := sourceList()
		if err != nil {
			return err
		}
		listFile := filepath.Join(work, "sources.list")
		if err := os.WriteFile(listFile, []byte(list), 0o644); err != nil {
			return err
		}
		lists := filepath.Join(work, "lists")
		if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
			return err
		}
		options := []string{
			"-q", "-o", "Dir::Etc::sourcelist=" + listFile, "-o", "Dir::Etc::sourceparts=-",
			"-o", "Dir::State::lists=" + lists, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
			// Only this user can write to the work folder, not apt's own.
			"-o", "APT::Sandbox::User=root",
		}
		if err := run(work, nil, "apt-get", append(options, "update")...); err != nil {
			return err
		}
		if err := run(work, nil, "apt-get", append(options, "--download-only", "source", name+"="+version)...); err != nil {
			return err
		}
		descriptions, err := filepath.Glob(filepath.Join(work, "*.dsc"))
		if err != nil || len(descriptions) != 1 {
			return fmt.Errorf("apt-get source %s left %d .dsc files, not one", name, len(descriptions))
		}
		tree := filepath.Join(result, name)
		return run(work, nil, "dpkg-source", "--no-check", "-x", descriptions[0], tree)
	})
	if err != nil {
		return "", fmt.Errorf("source of %s: %w", name, err)
	}
	return filepath.Join(dir, name), nil
}

// sourceList returns a deb-src line for each Debian archive that this machine takes packages
// from.
func sourceList() (string, error) {
	targets, err := output("apt-get", "indextargets", "--format", "$(REPO_URI) $(SUITE) $(COMPONENT) $(ORIGIN)",
		"Identifier: Packages")
	if err != nil {
		return "", err
	}
	var list bytes.Buffer
	seen := map[string]bool{}
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "Debian" {
			continue
		}
		entry := fmt.Sprintf("deb-src [signed-by=%s] %s %s %s\n", debianKeys, f[0], f[1], f[2])
		if !seen[entry] {
			seen[entry] = true
			list.WriteString(entry)
		}
	}
	if list.Len() == 0 {
		return "", fmt.Errorf("apt knows no archive of Debian: run apt-get update, or look at /etc/apt/sources.list*")
	}
	return list.String(), nil
}
