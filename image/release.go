package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
	"github.com/postern-router/postern/upgrade"
)

// A release is a folder for a web server: a folder for each board with its images, sums, bill of
// materials and licences; the changelog; the public key of the images; and an index, for people and
// for programs. Routers ask for BOARD/sysupgrade.img alone (/system package update), and believe its signature and no index.

const (
	releaseFolder = "release"
	changelogFile = "CHANGELOG.md"
	releaseKey    = "upgrade.pub"
	// indexText has a line for each board, of these words separated by tabs: board, version, date (RFC 3339, UTC), length in
	// bytes and SHA-256 of sysupgrade.img, its path.
	indexText = "index.txt"
	indexHTML = "index.html"
)

// released are the files of a board that a release has, if the build made them.
var released = []string{upgradeImage, factoryImage, slotImage, sbomFile, licencesFile, buildInfoFile}

// release builds the boards' images and makes a release of them in out/release, of which it returns the path. What was there
// is replaced when all is done.
func release(c cache.Cache, boards []board.Board, out string) (string, error) {
	v, err := readVersion()
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(v.name, "-dirty") {
		return "", fmt.Errorf("version %s: a release is of a commit, and there are changes that are not committed", v.name)
	}
	if _, err := buildAll(c, boards, out, false, false); err != nil {
		return "", err
	}
	keys, err := openKeys()
	if err != nil {
		return "", err
	}
	key, err := publicKeyFile(keys)
	if err != nil {
		return "", err
	}
	return assemble(boards, out, v, key, changelogFile)
}

// assemble makes a release of what is built in out.
func assemble(boards []board.Board, out string, v version, key, changelog string) (string, error) {
	public, err := hex.DecodeString(strings.TrimSpace(key))
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	final := filepath.Join(out, releaseFolder)
	dir := final + ".new"
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	var rows []releaseRow
	for _, b := range boards {
		row, err := releaseBoard(b, filepath.Join(out, b.Name), filepath.Join(dir, b.Name), v, public)
		if err != nil {
			return "", fmt.Errorf("release for %s: %w", b.Name, err)
		}
		rows = append(rows, row)
	}
	if err := copyFile(filepath.Join(dir, changelogFile), changelog, 0o644); err != nil {
		return "", err
	}
	var text strings.Builder
	for _, r := range rows {
		if r.sum != "" {
			fmt.Fprintf(&text, "%s\t%s\t%s\t%d\t%s\t%s\n", r.board.Name, v.name, v.date.UTC().Format(time.RFC3339), r.length, r.sum, r.board.Name+"/"+upgradeImage)
		}
	}
	for name, content := range map[string]string{releaseKey: key, indexText: text.String(), indexHTML: releasePage(rows, v)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	old := final + ".old"
	if err := os.RemoveAll(old); err != nil {
		return "", err
	}
	if err := os.Rename(final, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.Rename(dir, final); err != nil {
		return "", err
	}
	return final, os.RemoveAll(old)
}

// releaseRow is what an index says of a board.
type releaseRow struct {
	board board.Board
	files []string
	// length and sum are of sysupgrade.img; a board that takes none has "".
	length int64
	sum    string
}

// releaseBoard copies a board's files to the folder to, with their sums.
func releaseBoard(b board.Board, from, to string, v version, key []byte) (releaseRow, error) {
	row := releaseRow{board: b}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return row, err
	}
	var sums strings.Builder
	for _, name := range released {
		if !exists(filepath.Join(from, name)) {
			if name == upgradeImage {
				if _, ok := slotRoom(b); ok {
					return row, fmt.Errorf("%s is not there", filepath.Join(from, name))
				}
			}
			continue
		}
		if err := copyFile(filepath.Join(to, name), filepath.Join(from, name), 0o644); err != nil {
			return row, err
		}
		sum, err := fileHash(filepath.Join(to, name))
		if err != nil {
			return row, err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, name)
		row.files = append(row.files, name)
		if name == upgradeImage {
			row.sum = sum
		}
	}
	if row.sum != "" {
		// As a router sees it: an image of another commit or key shall not be in a release.
		image, err := os.ReadFile(filepath.Join(to, upgradeImage))
		if err != nil {
			return row, err
		}
		h, err := upgrade.ParseHeader(image[:min(len(image), upgrade.HeaderSize)], key)
		if err == nil && (h.Version != v.name || h.Board != b.Name) {
			err = fmt.Errorf("it is version %s for %s, expected %s for %s", h.Version, h.Board, v.name, b.Name)
		}
		if err != nil {
			return row, fmt.Errorf("%s: %w", upgradeImage, err)
		}
		row.length = int64(len(image))
	}
	row.files = append(row.files, "SHA256SUMS")
	return row, os.WriteFile(filepath.Join(to, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// releasePage is the index for people.
func releasePage(rows []releaseRow, v version) string {
	var b strings.Builder
	title := html.EscapeString("Postern " + v.name)
	fmt.Fprintf(&b, `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%[1]s</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}</style>
<h1>%[1]s</h1>
<p>Of %[2]s UTC. <a href="%[3]s">Changes</a>. A router takes newer versions from here:
<code>/system package update set url=http://…</code>, then <code>install</code>.
<table>
<tr><th>board<th>machine<th>files
`, title, v.date.UTC().Format(time.DateTime), changelogFile)
	for _, r := range rows {
		links := slices.Clone(r.files)
		for i, name := range links {
			links[i] = fmt.Sprintf(`<a href="%s/%s">%s</a>`, r.board.Name, name, name)
		}
		fmt.Fprintf(&b, "<tr><td>%s<td>%s<td>%s\n", html.EscapeString(r.board.Name), html.EscapeString(r.board.Description), strings.Join(links, ", "))
	}
	b.WriteString("</table>\n</html>\n")
	return b.String()
}
