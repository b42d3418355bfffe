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
	"github.com/postern-router/postern/internal/cache"
)

const (
	// iptablesRecipe is for iptables what kernelRecipe is for the kernel.
	iptablesRecipe = "2"

	iptablesCFLAGS  = "-Os -ffunction-sections -fdata-sections -fno-pie"
	iptablesLDFLAGS = "-all-static -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noexecstack"
)

// The C library of iptables is musl: with glibc the program is more than three times as large.
const muslCFLAGS = "-Os -fno-pie"

// extensions matches the sources of the iptables extensions that package firewall uses. The
// others are left out of the build, since a static program contains all of them: without them
// it has half the size, the C library not counted.
var extensions = regexp.MustCompile(`^lib(xt|ipt)_(standard|tcp|udp|icmp|bpf|comment|conntrack|hashlimit|iprange|multiport|addrtype|connlimit|connmark|dscp|length|limit|mac|mark|set|statistic|time|ttl|CLASSIFY|CONNMARK|CT|DSCP|LOG|MARK|NAT|NETMAP|SNAT|DNAT|MASQUERADE|REDIRECT|REJECT|SET|TCPMSS|TTL)\.c$`)

// iptables returns a folder with the static program xtables-legacy-multi for the board's CPU.
// again is that of kernel.
func iptables(c cache.Cache, b board.Board, again string) (string, error) {
	version, err := packageVersion("iptables")
	if err != nil {
		return "", err
	}
	muslVersion, err := packageVersion("musl")
	if err != nil {
		return "", err
	}
	compiler, err := compilerVersion(b)
	if err != nil {
		return "", err
	}
	headers, err := packageVersion(headerPackage(b))
	if err != nil {
		return "", err
	}
	inputs := []string{iptablesRecipe, iptablesCFLAGS, iptablesLDFLAGS, muslCFLAGS, version, muslVersion, headers, compiler, extensions.String(), again}
	return c.Get("iptables", b.CPU.GOARCH, inputs, func(result, work string) error {
		source, err := debianSource(c, "iptables", version)
		if err != nil {
			return err
		}
		library, err := debianSource(c, "musl", muslVersion)
		if err != nil {
			return err
		}
		say("building iptables %s with musl %s for %s", version, muslVersion, b.CPU.GOARCH)
		gcc, err := buildMusl(b, library, work)
		if err != nil {
			return fmt.Errorf("musl for %s: %w", b.CPU.GOARCH, err)
		}
		if err := buildIptables(b, source, work, gcc); err != nil {
			return fmt.Errorf("iptables for %s: %w", b.CPU.GOARCH, err)
		}
		program := filepath.Join(work, "iptables", "iptables", "xtables-legacy-multi")
		if err := run(work, nil, b.CPU.Cross+"strip", program); err != nil {
			return err
		}
		return copyFile(filepath.Join(result, "xtables-legacy-multi"), program, 0o755)
	})
}

// headerFolder matches where a compiler's preprocessor found linux/types.h.
var headerFolder = regexp.MustCompile(`(?m)^# 1 "(.+)/types\.h"`)

// headerPackage is the Debian package of the kernel's headers for the board's CPU, which comes with the
// C library of the compiler.
func headerPackage(b board.Board) string {
	return strings.Replace(b.CPU.CompilerPackages(hostArchitecture())[1], "libc6-dev", "linux-libc-dev", 1)
}

// buildMusl builds the C library of iptables, and returns a compiler that uses it.
func buildMusl(b board.Board, source, work string) (gcc string, err error) {
	dir, system := filepath.Join(work, "musl"), filepath.Join(work, "system")
	if err := run(work, nil, "cp", "--archive", source, dir); err != nil {
		return "", err
	}
	if err := run(dir, nil, "./configure", "--host="+b.CPU.Host(), "CROSS_COMPILE="+b.CPU.Cross, "CC="+b.CPU.Cross+"gcc", "--prefix="+system,
		"--syslibdir="+filepath.Join(system, "lib"), "--disable-shared", "--enable-gcc-wrapper", "CFLAGS="+muslCFLAGS); err != nil {
		return "", err
	}
	for _, target := range [][]string{{fmt.Sprintf("-j%d", runtime.NumCPU())}, {"install"}} {
		if err := run(dir, nil, "make", target...); err != nil {
			return "", err
		}
	}
	// The kernel's headers are those of the compiler's own C library; nothing else of that is seen.
	for _, name := range []string{"linux", "asm", "asm-generic"} {
		header := filepath.Join(work, "header.c")
		if err := os.WriteFile(header, []byte("#include <"+name+"/types.h>\n"), 0o644); err != nil {
			return "", err
		}
		text, err := output(b.CPU.Cross+"gcc", "-E", header)
		if err != nil {
			return "", err
		}
		found := ""
		for _, m := range headerFolder.FindAllStringSubmatch(text, -1) {
			if found == "" && filepath.Base(m[1]) == name {
				found = m[1]
			}
		}
		if found == "" {
			return "", fmt.Errorf("%sgcc finds no %s/types.h", b.CPU.Cross, name)
		}
		if err := os.Symlink(found, filepath.Join(system, "include", name)); err != nil {
			return "", err
		}
	}
	return filepath.Join(system, "bin", "musl-gcc"), nil
}

// buildIptables builds iptables by the compiler gcc.
func buildIptables(b board.Board, source, work, gcc string) error {
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
	if err := run(dir, nil, "./configure", "--host="+b.CPU.Host(), "CC="+gcc, "--prefix=/", "--sysconfdir=/etc",
		"--enable-static", "--disable-shared", "--disable-nftables", "--disable-ipv6", "--disable-devel",
		"--disable-libipq", "--disable-bpf-compiler", "--disable-nfsynproxy", "--disable-connlabel",
		// What configure links to try the compiler is no static program.
		"CFLAGS="+iptablesCFLAGS, "LDFLAGS=-no-pie"); err != nil {
		return err
	}
	return run(dir, nil, "make", fmt.Sprintf("-j%d", runtime.NumCPU()),
		"LDFLAGS="+iptablesLDFLAGS)
}

// debianKeys is a file of the package debian-archive-keyring, which every Debian has.
const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// debianSource returns a folder with the patched source of a Debian source package. It takes
// the archive's address from the machine's apt configuration, and does not change that.
func debianSource(c cache.Cache, name, version string) (string, error) {
	dir, err := c.Get("source", name, []string{version}, func(result, work string) error {
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
