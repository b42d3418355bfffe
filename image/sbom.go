package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// The documents that accompany an image: what it is made of, the licences, where the source
// is, and what built it. None contains the time of the build, so that two builds of one commit
// have the same bytes.
const (
	sbomFile      = "sbom.spdx.json"
	licencesFile  = "LICENSES"
	buildInfoFile = "BUILDINFO"
)

// component is a part of an image with a publisher and a licence of its own.
type component struct {
	name, version string
	// licence is an SPDX licence expression.
	licence string
	// source says where its source code is.
	source string
	// url is a package URL (github.com/package-url/purl-spec).
	url string
	// sum is the SHA-256 of the file in the image, if there is one.
	sum string
	// texts are files with the licence, and with notices that it requires to be passed on.
	texts []string
}

// writeDocuments writes the documents that accompany the image in dir, and returns their
// names. program and xtables are the programs in the image, made the names of the files that
// are flashed.
func writeDocuments(b board.Board, v version, dir, program, xtables string, made []string) ([]string, error) {
	parts, err := components(b, v, dir, program, xtables)
	if err != nil {
		return nil, fmt.Errorf("components of the image for %s: %w", b.Name, err)
	}
	licences, err := licenceTexts(b, parts)
	if err != nil {
		return nil, fmt.Errorf("licences for %s: %w", b.Name, err)
	}
	bill, err := sbom(b, v, dir, parts, made)
	if err != nil {
		return nil, fmt.Errorf("SBOM for %s: %w", b.Name, err)
	}
	inputs, err := buildInputs(b, v, dir, program)
	if err != nil {
		return nil, fmt.Errorf("inputs of the build for %s: %w", b.Name, err)
	}
	names := []string{sbomFile, licencesFile, buildInfoFile}
	for i, text := range []string{bill, licences, inputs} {
		if err := os.WriteFile(filepath.Join(dir, names[i]), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// components lists what the image is made of.
func components(b board.Board, v version, dir, program, xtables string) ([]component, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	paths := []string{info.Main.Path}
	for _, m := range info.Deps {
		paths = append(paths, m.Path)
	}
	list, err := output("go", append([]string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}, paths...)...)
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for line := range strings.Lines(list) {
		path, folder, _ := strings.Cut(strings.TrimSpace(line), " ")
		folders[path] = folder
	}
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	programSum, err := fileHash(program)
	if err != nil {
		return nil, err
	}
	own := component{name: "postern", version: v.name, source: "https://" + info.Main.Path, url: "pkg:golang/" + info.Main.Path, sum: programSum}
	if err := own.readLicence(folders[info.Main.Path]); err != nil {
		return nil, err
	}
	library := component{name: "Go standard library", version: info.GoVersion, source: "https://go.dev/dl/",
		url: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}
	if err := library.readLicence(goroot); err != nil {
		return nil, err
	}
	parts := []component{own, library}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("module %s is replaced by %s: an SBOM needs one that is published", m.Path, m.Replace.Path)
		}
		c := component{name: m.Path, version: m.Version, source: "Go's module proxy, " + m.Sum, url: "pkg:golang/" + m.Path + "@" + m.Version}
		if err := c.readLicence(folders[m.Path]); err != nil {
			return nil, err
		}
		parts = append(parts, c)
	}

	kernelSum, err := fileHash(filepath.Join(dir, "kernel"))
	if err != nil {
		return nil, err
	}
	xtablesSum, err := fileHash(xtables)
	if err != nil {
		return nil, err
	}
	debian := []struct {
		of, licence, sum, text string
	}{
		{linuxSource, "GPL-2.0-only WITH Linux-syscall-note", kernelSum, "GPL-2"},
		{"iptables", "GPL-2.0-only", xtablesSum, "GPL-2"},
		// The C library, linked into iptables.
		// Its memcpy for ARM is BSD-2-Clause.
		{"musl", "MIT AND BSD-2-Clause", "", "/usr/share/doc/musl/copyright"},
	}
	for _, p := range bootLoaderPackages(b) {
		licence, text := "GPL-2.0-or-later", "GPL-2" // U-Boot
		if strings.HasPrefix(p, "grub") {
			licence, text = "GPL-3.0-or-later", "GPL-3"
		}
		debian = append(debian, struct{ of, licence, sum, text string }{p, licence, "", text})
	}
	for _, p := range debian {
		part, err := debianComponent(p.of, p.licence)
		if err != nil {
			return nil, err
		}
		part.sum = p.sum
		part.texts = []string{filepath.Join("/usr/share/common-licenses", p.text)}
		if filepath.IsAbs(p.text) {
			part.texts = []string{p.text}
		}
		// Two packages may have one source, as those of GRUB.
		if !slices.ContainsFunc(parts, func(c component) bool { return c.url == part.url }) {
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// bootLoaderPackages are the Debian packages of the boot loader in the factory image.
func bootLoaderPackages(b board.Board) []string {
	if b.Image.Form == board.Archive {
		return []string{"grub-pc-bin", "grub-efi-amd64-bin"}
	}
	if p := b.Image.BootLoader.Package; p != "" {
		return []string{p}
	}
	return nil
}

// hostArchitecture is the Debian architecture of this machine. Its own compiler builds for
// boards of the same one.
func hostArchitecture() string {
	host, err := output("dpkg", "--print-architecture")
	if err != nil {
		return runtime.GOARCH
	}
	return host
}

// debianComponent returns the source package of an installed Debian package.
func debianComponent(name, licence string) (component, error) {
	out, err := output("dpkg-query", "--show", "--showformat=${source:Package} ${source:Version}", name)
	if err != nil {
		return component{}, fmt.Errorf("package %s of Debian: %w", name, err)
	}
	source, version, _ := strings.Cut(out, " ")
	return component{name: source, version: version, licence: licence,
		source: fmt.Sprintf("Debian source package %s, version %s (apt-get source %s=%s)", source, version, source, version),
		url:    fmt.Sprintf("pkg:deb/debian/%s@%s?arch=source", source, version)}, nil
}

// licenceFile matches the names of files with a licence or a notice.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)(\.|$)`)

// leastKnown is how much of a licence's file, in percent, must be text of known licences:
// what pkg.go.dev asks for.
const leastKnown = 75

// readLicence finds the texts of a component's licences in its folder, and sets licence to
// the SPDX expression of all of them. A file of whose text less than leastKnown is that of
// a known licence is an error: somebody has to read it.
func (c *component) readLicence(folder string) error {
	files, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("licence of %s: %w", c.name, err)
	}
	var licences []string
	for _, f := range files {
		if f.IsDir() || !licenceFile.MatchString(f.Name()) {
			continue
		}
		path := filepath.Join(folder, f.Name())
		c.texts = append(c.texts, path)
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("licence of %s: %w", c.name, err)
		}
		if strings.HasPrefix(strings.ToLower(f.Name()), "notice") {
			continue // names the authors, and is no licence
		}
		known := licensecheck.Scan(text)
		if known.Percent < leastKnown {
			return fmt.Errorf("licence of %s: %.0f %% of %s is text of known licences: expected at least %d %%", c.name, known.Percent, path, leastKnown)
		}
		for _, m := range known.Match {
			licences = append(licences, m.ID)
		}
	}
	if licences == nil {
		return fmt.Errorf("licence of %s: there is no file LICENSE or COPYING in %s", c.name, folder)
	}
	slices.Sort(licences)
	c.licence = strings.Join(slices.Compact(licences), " AND ")
	return nil
}

// licenceTexts returns a list of the components with their licences and sources, followed by
// the licence texts, each once.
func licenceTexts(b board.Board, parts []component) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "The image for %s consists of the works below, each under its own licence. The texts of the\n"+
		"licences follow. Each work is listed with the place of its source. The configuration of the\n"+
		"kernel is in the file kernel.config. Postern's source, at the version below, contains the\n"+
		"program that builds kernel, iptables and musl from their sources: `go run ./image build %s`.\n", b.Name, b.Name)
	var texts []string
	users := map[string][]string{}
	for _, c := range parts {
		fmt.Fprintf(&text, "\n%s %s\n    licence: %s\n    source:  %s\n", c.name, c.version, c.licence, c.source)
		for _, path := range c.texts {
			data, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			if users[string(data)] == nil {
				texts = append(texts, string(data))
			}
			users[string(data)] = append(users[string(data)], c.name)
		}
	}
	for _, t := range texts {
		rule := strings.Repeat("=", 80)
		fmt.Fprintf(&text, "\n%s\n%s\n%s\n\n%s", rule, strings.Join(users[t], ", "), rule, t)
	}
	return text.String(), nil
}

// sbom returns the bill of materials of an image, a document of SPDX 2.3 in JSON
// (spdx.github.io/spdx-spec/v2.3).
func sbom(b board.Board, v version, dir string, parts []component, made []string) (string, error) {
	const none = "NOASSERTION"
	sum := func(value string) []common.Checksum {
		if value == "" {
			return nil
		}
		return []common.Checksum{{Algorithm: common.SHA256, Value: value}}
	}
	config, err := fileHash(filepath.Join(dir, "kernel.config"))
	if err != nil {
		return "", err
	}
	image := &spdx.Package{PackageSPDXIdentifier: "image", PackageName: "postern-" + b.Name, PackageVersion: v.name,
		PackageDownloadLocation: none, PackageLicenseDeclared: none, PackageCopyrightText: none}
	var licences []string
	for _, c := range parts {
		if !slices.Contains(licences, c.licence) {
			licences = append(licences, c.licence)
		}
	}
	slices.Sort(licences)
	image.PackageLicenseConcluded = "(" + strings.Join(licences, ") AND (") + ")"
	if slices.Contains(made, slotImage) {
		value, err := fileHash(filepath.Join(dir, slotImage))
		if err != nil {
			return "", err
		}
		image.PackageFileName, image.PackageChecksums = slotImage, sum(value)
	}
	relation := func(from common.ElementID, kind string, to common.ElementID) *spdx.Relationship {
		return &spdx.Relationship{RefA: common.MakeDocElementID("", string(from)), Relationship: kind, RefB: common.MakeDocElementID("", string(to))}
	}
	doc := spdx.Document{SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: image.PackageName,
		CreationInfo: &spdx.CreationInfo{Created: v.date.UTC().Format("2006-01-02T15:04:05Z"),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "postern-image-" + v.name}}},
		Packages:      []*spdx.Package{image},
		Relationships: []*spdx.Relationship{relation("DOCUMENT", common.TypeRelationshipDescribe, image.PackageSPDXIdentifier)}}
	var hashed []string
	for i, c := range parts {
		p := &spdx.Package{PackageSPDXIdentifier: common.ElementID(fmt.Sprintf("part-%d", i+1)), PackageName: c.name, PackageVersion: c.version,
			PackageDownloadLocation: none, PackageChecksums: sum(c.sum), PackageSourceInfo: c.source,
			PackageLicenseConcluded: c.licence, PackageLicenseDeclared: c.licence, PackageCopyrightText: none,
			PackageExternalReferences: []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: c.url}}}
		if strings.HasPrefix(c.name, "linux") {
			p.PackageComment = "kernel.config has SHA-256 " + config
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation(image.PackageSPDXIdentifier, common.TypeRelationshipContains, p.PackageSPDXIdentifier))
		hashed = append(hashed, c.url, c.version, c.sum)
	}
	// Unique to this document, as SPDX requires.
	doc.DocumentNamespace = fmt.Sprintf("https://github.com/postern-router/postern/spdx/%s/%s", b.Name, cache.Key(append(hashed, v.name, config)...))
	var text strings.Builder
	if err := json.Write(doc, &text, json.Indent("  ")); err != nil {
		return "", err
	}
	return text.String(), nil
}

// buildInputs lists the versions of the tools and sources that the image was built with.
func buildInputs(b board.Board, v version, dir, program string) (string, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "", err
	}
	compiler, err := compilerVersion(b)
	if err != nil {
		return "", err
	}
	config, err := fileHash(filepath.Join(dir, "kernel.config"))
	if err != nil {
		return "", err
	}
	debian, err := os.ReadFile("/etc/debian_version")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var text strings.Builder
	line := func(name, value string) { fmt.Fprintf(&text, "%s: %s\n", name, value) }
	line("board", b.Name)
	line("postern", fmt.Sprintf("%s, of %s", v.name, v.date.UTC().Format("2006-01-02 15:04:05 UTC")))
	line("go", info.GoVersion)
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "GO") || s.Key == "CGO_ENABLED" {
			line("  "+s.Key, s.Value)
		}
	}
	line("debian", strings.TrimSpace(string(debian)))
	line("compiler", compiler)
	for _, p := range append([]string{linuxSource, "iptables", "musl", "xz-utils", headerPackage(b)}, bootLoaderPackages(b)...) {
		version, err := output("dpkg-query", "--show", "--showformat=${Version}", p)
		if err != nil {
			return "", fmt.Errorf("package %s of Debian: %w", p, err)
		}
		line(p, version)
	}
	line("kernel", fmt.Sprintf("%s: fragments %s; target %s; %s; recipe %s", b.Kernel.Name, strings.Join(b.Kernel.Fragments, " "), b.Kernel.Target, strings.Join(kernelMakeFlags, " "), kernelRecipe))
	if b.Kernel.Unreserved != "" {
		line("kernel, in its device tree", fmt.Sprintf("/memreserve/ %s instead of %s", b.Kernel.Reserved, b.Kernel.Unreserved))
	}
	line("kernel.config", "SHA-256 "+config)
	line("kernel's command line", b.Kernel.CommandLine)
	line("iptables", fmt.Sprintf("%s; %s; recipe %s; musl: %s", iptablesCFLAGS, iptablesLDFLAGS, iptablesRecipe, muslCFLAGS))
	return text.String(), nil
}
