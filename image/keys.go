package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// The files in a folder of keys. All are PEM: private keys in PKCS #8, the public key in PKIX,
// the certificate in X.509.
const (
	// upgradeKey signs upgrade images by Ed25519; routers have upgradePublic.
	upgradeKey, upgradePublic = "upgrade.key", "upgrade.pub"
	// fitKey signs what U-Boot starts, by RSA with 2048 bits. mkimage takes the public key from
	// the certificate; U-Boot uses nothing else of it.
	fitKey, fitCertificate = "fit.key", "fit.crt"
	// fitKeyName is mkimage's name for the pair.
	fitKeyName = "fit"
)

var keyFiles = []string{upgradeKey, upgradePublic, fitKey, fitCertificate}

// keyFolder returns POSTERN_KEYS, or else a folder in the user's configuration folder: private
// keys belong neither into a checkout nor into a cache.
func keyFolder() (string, error) {
	dir := os.Getenv("POSTERN_KEYS")
	if dir == "" {
		user, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("where to keep keys: %w (or set POSTERN_KEYS)", err)
		}
		dir = filepath.Join(user, "postern", "keys")
	}
	return filepath.Abs(dir)
}

// openKeys returns the folder of keys for a build. If there is none it makes one and tells the
// user: whoever has the private keys can make images that the routers accept.
func openKeys() (string, error) {
	dir, err := keyFolder()
	if err != nil {
		return "", err
	}
	if !exists(dir) {
		switch err := makeKeys(dir); {
		case errors.Is(err, fs.ErrExist): // another build was quicker
		case err != nil:
			return "", err
		default:
			say("NEW KEYS in %s. Keep them, and keep them secret: routers with images that these keys signed accept only upgrades that they signed.", dir)
		}
	}
	for _, name := range keyFiles {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("a folder of keys must have %v: %w", keyFiles, err)
		}
	}
	return dir, nil
}

// makeKeys makes the folder dir with new keys, complete or not at all. A dir that exists and is
// not empty is an error, and is left as it is.
func makeKeys(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".keys-") // with mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make an Ed25519 key: %w", err)
	}
	if err := writePrivate(filepath.Join(temp, upgradeKey), private); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(temp, upgradePublic), "PUBLIC KEY", der, 0o644); err != nil {
		return err
	}

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make an RSA key: %w", err)
	}
	if err := writePrivate(filepath.Join(temp, fitKey), rsaKey); err != nil {
		return err
	}
	// U-Boot does not check the dates.
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Postern " + fitKeyName},
		NotBefore:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err = x509.CreateCertificate(rand.Reader, &template, &template, rsaKey.Public(), rsaKey)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	if err := writePEM(filepath.Join(temp, fitCertificate), "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	// Rename replaces an empty folder, but no other.
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("keys are never overwritten: %w", err)
	}
	return nil
}

func writePrivate(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
