package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestDocuments writes the documents of an image of the real program, twice.
func TestDocuments(t *testing.T) {
	e2e.Builds(t)
	for _, name := range []string{"malta", "pc"} {
		t.Run(name, func(t *testing.T) {
			b, err := board.ByName(name)
			require.NoError(t, err)
			program := filepath.Join(t.TempDir(), "postern")
			require.NoError(t, buildProgram(b, t.TempDir(), program))
			v := version{name: "v1-test", date: time.Unix(1_700_000_000, 0)}
			var first map[string]string
			for range 2 {
				dir := t.TempDir()
				for _, f := range []string{"kernel", "kernel.config", "xtables", slotImage} {
					require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644))
				}
				names, err := writeDocuments(b, v, dir, program, filepath.Join(dir, "xtables"), []string{slotImage})
				require.NoError(t, err)
				texts := map[string]string{}
				for _, n := range names {
					text, err := os.ReadFile(filepath.Join(dir, n))
					require.NoError(t, err)
					texts[n] = string(text)
				}
				if first != nil {
					assert.Equal(t, first, texts, "the same from the same")
				}
				first = texts
			}

			var bill spdx.Document
			require.NoError(t, json.ReadInto(strings.NewReader(first[sbomFile]), &bill))
			assert.Equal(t, "2023-11-14T22:13:20Z", bill.CreationInfo.Created)
			parts := map[string]*spdx.Package{}
			ids := map[common.ElementID]bool{}
			for _, p := range bill.Packages {
				assert.False(t, ids[p.PackageSPDXIdentifier], p.PackageSPDXIdentifier)
				ids[p.PackageSPDXIdentifier] = true
				assert.NotEmpty(t, p.PackageVersion, p.PackageName)
				parts[p.PackageName] = p
			}
			for _, r := range bill.Relationships {
				assert.True(t, ids[r.RefB.ElementRefID], r.RefB)
			}
			assert.Equal(t, "BSD-3-Clause", parts["postern"].PackageLicenseDeclared)
			assert.Equal(t, "v1-test", parts["postern"].PackageVersion)
			assert.Equal(t, "Apache-2.0", parts["github.com/vishvananda/netlink"].PackageLicenseDeclared)
			assert.Contains(t, parts["Go standard library"].PackageVersion, "go1.")
			assert.Equal(t, "GPL-2.0-only", parts["iptables"].PackageLicenseDeclared)
			assert.Contains(t, parts["musl"].PackageLicenseDeclared, "MIT")
			kernel, ok := parts["linux-6.12"]
			if !ok {
				kernel = parts["linux"]
			}
			assert.Equal(t, "GPL-2.0-only WITH Linux-syscall-note", kernel.PackageLicenseDeclared, "%v", parts)
			assert.Equal(t, hashOf(t, program), parts["postern"].PackageChecksums[0].Value)
			_, grub := parts["grub2"]
			assert.Equal(t, name == "pc", grub)

			licences := first[licencesFile]
			for _, has := range []string{"GNU GENERAL PUBLIC LICENSE", "Version 2, June 1991", "Rich Felker",
				"Apache License", "The Go Authors", "apt-get source iptables=", "apt-get source musl="} {
				assert.True(t, strings.Contains(licences, has), has)
			}
			assert.Equal(t, 1, strings.Count(licences, "Version 2, June 1991"), "each text once")
			assert.Equal(t, name == "pc", strings.Contains(licences, "Version 3, 29 June 2007"))
			assert.Contains(t, first[buildInfoFile], "GOARCH: "+b.CPU.GOARCH)
			assert.Contains(t, first[buildInfoFile], "compiler: "+b.CPU.Cross+"gcc")
		})
	}
}

func TestReadLicence(t *testing.T) {
	e2e.Needs(t, "/usr/share/common-licenses/Apache-2.0")
	goroot, err := output("go", "env", "GOROOT")
	require.NoError(t, err)
	bsd, err := os.ReadFile(filepath.Join(goroot, "LICENSE"))
	require.NoError(t, err)
	apache, err := os.ReadFile("/usr/share/common-licenses/Apache-2.0")
	require.NoError(t, err)
	// A third clause, as BSD-3-Clause has one, but with another meaning.
	reworded := strings.Replace(string(bsd), "Neither the name of Google LLC nor the names of its\ncontributors may be used to endorse or promote products derived from\nthis software without specific prior written permission.",
		"Neither the name of Google LLC nor those of its sellers may be\nchanged, and each copy of this work, in whatever form, and of whatever is\nmade of it, is to be paid for with a fee that is to be asked for in writing.", 1)
	require.NotEqual(t, string(bsd), reworded)
	for _, c := range []struct {
		name    string
		files   map[string]string
		licence string
		err     string
	}{
		{"none", map[string]string{"README": "Apache License, Version 2.0"}, "", "there is no file LICENSE or COPYING"},
		{"no licence", map[string]string{"LICENSE.md": "All rights reserved."}, "", "0 % of"},
		{"begins as one", map[string]string{"COPYING": "Permission is hereby granted, free of charge, to any"}, "", "expected at least 75 %"},
		{"another clause", map[string]string{"LICENSE": reworded}, "", "expected at least 75 %"},
		{"one", map[string]string{"LICENSE": string(bsd)}, "BSD-3-Clause", ""},
		{"with a notice", map[string]string{"LICENSE.txt": string(apache), "NOTICE": "Written by somebody."}, "Apache-2.0", ""},
		{"two", map[string]string{"LICENSE": string(bsd), "LICENSE.apache": string(apache)}, "Apache-2.0 AND BSD-3-Clause", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			}
			part := component{name: "thing"}
			err := part.readLicence(dir)
			if c.err != "" {
				require.ErrorContains(t, err, "licence of thing: ")
				assert.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.licence, part.licence)
			assert.Len(t, part.texts, len(c.files), "every text travels with the image")
		})
	}
}
