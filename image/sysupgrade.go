package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/upgrade"
)

// upgradeImage is the file for /system upgrade: a signed header and the slot image.
const upgradeImage = "sysupgrade.img"

// version is the version of an image.
type version struct {
	name string
	// date is the date of the commit, so that one commit always gives the same image.
	date time.Time
}

// readVersion asks git for the version of the source in the current folder. Outside of a git
// repository the version is "unknown", of 1970, which is older than any other.
func readVersion() (version, error) {
	name, err := output("git", "describe", "--always", "--dirty", "--abbrev=12")
	if err != nil {
		say("the version is unknown, since this folder is in no git repository: %v", err)
		return version{name: "unknown", date: time.Unix(0, 0).UTC()}, nil
	}
	text, err := output("git", "log", "-1", "--format=%ct")
	if err != nil {
		return version{}, fmt.Errorf("date of the commit: %w", err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return version{}, fmt.Errorf("date of the commit: %w", err)
	}
	return version{name: strings.TrimSpace(name), date: time.Unix(seconds, 0).UTC()}, nil
}

// file returns the text of /etc/version in the initramfs: name, and date in seconds since 1970.
func (v version) file() string { return fmt.Sprintf("%s %d\n", v.name, v.date.Unix()) }

// publicKeyFile returns the text of the initramfs's file with the public key, in hexadecimal:
// a router has no X.509.
func publicKeyFile(keys string) (string, error) {
	path := filepath.Join(keys, upgradePublic)
	der, err := readPEM(path)
	if err != nil {
		return "", err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return "", fmt.Errorf("public key %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("public key %s: a %T, expected one of Ed25519", path, parsed)
	}
	return fmt.Sprintf("%x\n", []byte(key)), nil
}

// readPEM returns the contents of a file's first PEM block.
func readPEM(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: expected PEM", path)
	}
	return block.Bytes, nil
}

// signingKey returns the private key that upgrade images are signed with.
func signingKey(keys string) (ed25519.PrivateKey, error) {
	path := filepath.Join(keys, upgradeKey)
	der, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key %s: a %T, expected one of Ed25519", path, parsed)
	}
	return key, nil
}

// sysupgrade makes the upgrade image of a slot image, with a signed header (package upgrade) by
// which the router can refuse it before it writes a byte. slot and path are the files' paths.
func sysupgrade(b board.Board, v version, keys, slot, path string) error {
	key, err := signingKey(keys)
	if err != nil {
		return fmt.Errorf("sign the upgrade image for %s: %w", b.Name, err)
	}
	image, err := os.ReadFile(slot)
	if err != nil {
		return err
	}
	if room, ok := slotRoom(b); ok && int64(len(image)) > room {
		return fmt.Errorf("the slot image for %s has %d bytes, its slot takes %d", b.Name, len(image), room)
	}
	head, err := upgrade.Header{
		Board: b.Name, Version: v.name, Date: v.date, Length: int64(len(image)), Sum: sha256.Sum256(image),
	}.Sign(key)
	if err != nil {
		return fmt.Errorf("upgrade image for %s: %w", b.Name, err)
	}
	return replaceFile(path, func(f *os.File) error {
		_, err := f.Write(append(head, image...))
		return err
	})
}

// slotRoom returns the maximal length of a slot image in bytes, and whether the board has one.
func slotRoom(b board.Board) (int64, bool) {
	if b.ImageLimit > 0 {
		return b.ImageLimit, true
	}
	p, ok := b.Flash.Partition(board.Slots[0])
	return p.Size, ok
}

// pack makes a board's images from a folder with a kernel and an initramfs that were changed.
// args are the folder and the board's name.
func pack(args []string) error {
	if len(args) != 2 {
		return errors.New("pack: want a folder and a board")
	}
	dir := args[0]
	b, err := board.ByName(args[1])
	if err != nil {
		return err
	}
	v, err := packVersion(filepath.Join(dir, "version"))
	if err != nil {
		return err
	}
	keys, err := openKeys()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "postern-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	made, err := makeImages(b, v, keys, dir, work)
	if err != nil {
		return err
	}
	if !slices.Contains(made, slotImage) {
		return fmt.Errorf("board %s has no slot image", b.Name)
	}
	return sysupgrade(b, v, keys, filepath.Join(dir, slotImage), filepath.Join(dir, upgradeImage))
}

// packVersion reads a file of the form of version.file, or asks git if there is none.
func packVersion(path string) (version, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return readVersion()
	}
	if err != nil {
		return version{}, err
	}
	name, date, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	seconds, err := strconv.ParseInt(date, 10, 64)
	if err != nil {
		return version{}, fmt.Errorf("%s: expected a name and seconds since 1970: %w", path, err)
	}
	return version{name: name, date: time.Unix(seconds, 0).UTC()}, nil
}
