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

// The files of a folder of keys. All are PEM: private keys as PKCS #8, the public
// key as PKIX, the certificate as X.509.
const (
	// upgradeKey signs upgrade images, by Ed25519; routers hold upgradePublic.
	upgradeKey, upgradePublic = "upgrade.key", "upgrade.pub"
	// fitKey signs what U-Boot starts, by RSA with 2048 bits; mkimage takes the public
	// half from the certificate, of which U-Boot looks at nothing else.
	fitKey, fitCertificate = "fit.key", "fit.crt"
	// fitKeyName is how mkimage names the pair.
	fitKeyName = "fit"
)

var keyFiles = []string{upgradeKey, upgradePublic, fitKey, fitCertificate}

// keyFolder is POSTERN_KEYS, or else a folder of the user's configuration: private
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

// openKeys returns the folder of keys for a build. Where there is none it is made,
// which the user is told: whoever has its private keys can make images that the
// routers with these images take.
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
			say("NEW KEYS in %s. Keep them, and keep them secret: routers with the images that are signed now take no upgrade that is signed by others.", dir)
		}
	}
	for _, name := range keyFiles {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("a folder of keys has %v: %w", keyFiles, err)
		}
	}
	return dir, nil
}

// makeKeys makes a folder with new keys, whole or not at all. One that exists and
// is not empty is an error and stays as it is.
func makeKeys(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".keys-") // only the user may enter
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
	// Nobody checks its dates.
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
	// Rename takes the place of an empty folder and of no other.
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
