//go:build !small

package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxChain is how many certificates a chain has at most, minRSA and maxRSA how many bits a key of RSA: more are seconds of a router's
// processor for each client.
const (
	maxChain       = 4
	minRSA, maxRSA = 2048, 4096
)

// Make returns c with a new key and a certificate that it has signed itself. now is the router's clock, which may never have been set,
// and built the day on which the software was built: the certificate is valid from the day before that, and for c.Days from the
// later of both.
func Make(c Certificate, now, built time.Time) (Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, fmt.Errorf("make a key: %w", err)
	}
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	serial[0] = serial[0]&0x7f | 0x40
	if now.Before(built) {
		now = built
	}
	template := x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: c.CommonName},
		NotBefore:    built.AddDate(0, 0, -1).UTC().Truncate(24 * time.Hour),
		NotAfter:     now.AddDate(0, 0, c.Days).UTC().Truncate(time.Second),
		KeyUsage:     x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	// A serial number says which one it is, where there is no name.
	if template.Subject.CommonName == "" && len(c.AltNames) == 0 {
		template.Subject.CommonName = c.Name
	}
	for _, name := range c.AltNames {
		switch kind, value, _ := strings.Cut(name, ":"); kind {
		case "IP":
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(value))
		case "DNS":
			template.DNSNames = append(template.DNSNames, value)
		}
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return c, fmt.Errorf("make a certificate: %w", err)
	}
	sum := sha256.Sum256(public)
	template.SubjectKeyId = sum[:20] // any hash will do (RFC 5280, section 4.2.1.2)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return c, fmt.Errorf("make a certificate: %w", err)
	}
	kept, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, fmt.Errorf("make a certificate: %w", err)
	}
	c.Chain, c.Key = base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(kept)
	return c, nil
}

// ParseAltName checks one of Certificate.AltNames.
func ParseAltName(text string) (string, error) {
	kind, value, _ := strings.Cut(text, ":")
	switch kind {
	case "IP":
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return "", errors.New("behind IP: there is no address")
		}
		return kind + ":" + a.String(), nil
	case "DNS":
		if !isDNSName(value) {
			return "", errors.New("behind DNS: there is no name")
		}
		return kind + ":" + value, nil
	}
	return "", errors.New("expected IP: or DNS: before it")
}

// DNSName is the one of AltNames for a name, "" if it can be none in DNS.
func DNSName(name string) string {
	if !isDNSName(name) {
		return ""
	}
	return "DNS:" + name
}

// isDNSName reports whether a name is one of letters, digits and hyphens, as clients have them compared. The first label may be *.
func isDNSName(name string) bool {
	if len(name) > 64 {
		return false
	}
	for i, label := range strings.Split(name, ".") {
		if i == 0 && label == "*" && strings.Contains(name, ".") {
			continue
		}
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
		if label == "" || strings.Trim(label, letters) != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// ParseChain reads Certificate.Chain: as it is kept, or as PEM. It returns the form that is kept.
func ParseChain(text string) (string, error) {
	ders, err := blocks(text, "CERTIFICATE")
	if err != nil {
		return "", err
	}
	if len(ders) > maxChain {
		return "", fmt.Errorf("more than %d certificates", maxChain)
	}
	var all []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return "", errors.New("it is no certificate of X.509 that is understood here")
		}
		all = append(all, c)
	}
	if all, err = ordered(all); err != nil {
		return "", err
	}
	var kept []string
	for _, c := range all {
		kept = append(kept, base64.StdEncoding.EncodeToString(c.Raw))
	}
	return strings.Join(kept, ","), nil
}

// ordered puts certificates into the order in which clients want them: that of the service first, and behind each the authority that has
// signed it. Files of authorities have any order, and some clients take no other.
func ordered(all []*x509.Certificate) ([]*x509.Certificate, error) {
	if len(all) < 2 {
		return all, nil
	}
	signs := func(by, c *x509.Certificate) bool {
		return by != c && bytes.Equal(c.RawIssuer, by.RawSubject) && c.CheckSignatureFrom(by) == nil
	}
	// That of the service signs no other.
	first := slices.IndexFunc(all, func(c *x509.Certificate) bool {
		return !slices.ContainsFunc(all, func(o *x509.Certificate) bool { return signs(c, o) })
	})
	var chain []*x509.Certificate
	for next := first; next >= 0 && len(chain) < len(all); {
		chain = append(chain, all[next])
		next = slices.IndexFunc(all, func(c *x509.Certificate) bool { return !slices.Contains(chain, c) && signs(c, chain[len(chain)-1]) })
	}
	if len(chain) < len(all) {
		return nil, errors.New("its certificates have not signed one another; expected that of the service, and those of the authorities between")
	}
	return chain, nil
}

// ParseKey reads Certificate.Key: as it is kept, or as PEM. It returns the form that is kept. The error shows nothing of the key.
func ParseKey(text string) (string, error) {
	ders, err := blocks(text, "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
	if err != nil || len(ders) != 1 {
		return "", errors.New("expected one key, without a passphrase")
	}
	key, err := parseKey(ders[0])
	if err != nil {
		return "", err
	}
	kept, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", errors.New("it is no key that is understood here")
	}
	return base64.StdEncoding.EncodeToString(kept), nil
}

// parseKey returns a key of P-256, P-384, P-521, Ed25519 or RSA.
func parseKey(der []byte) (any, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		key, err = x509.ParseECPrivateKey(der)
	}
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(der)
	}
	if err != nil {
		return nil, errors.New("it is no key that is understood here")
	}
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		if k.Curve.Params().BitSize < 256 { // TLS has no signatures for P-224
			return nil, errors.New("a key on an elliptic curve is of P-256, P-384 or P-521 here")
		}
		return key, nil
	case *rsa.PrivateKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("a key of RSA has %d..%d bits here", minRSA, maxRSA)
		}
		return key, nil
	}
	return nil, errors.New("it is a key for something else")
}

// blocks are the parts of a text of PEM that have one of the types, or those of base64 that commas separate.
func blocks(text string, types ...string) (all [][]byte, err error) {
	if len(text) > 2*MaxText {
		return nil, fmt.Errorf("it has more than %d bytes", 2*MaxText)
	}
	if !strings.Contains(text, "-----BEGIN ") {
		for part := range strings.SplitSeq(text, ",") {
			der, err := base64.StdEncoding.Strict().DecodeString(part)
			if err != nil || len(der) == 0 {
				return nil, errors.New("it is neither PEM nor base64")
			}
			all = append(all, der)
		}
		return all, nil
	}
	rest := []byte(text)
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		for _, t := range types {
			if block.Type == t && len(block.Headers) == 0 {
				all = append(all, block.Bytes)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("it has no block %s of PEM", types[0])
	}
	return all, nil
}

// Check reports what is wrong with a certificate, with what is in it: there is a key if there is a certificate, and it is that of the
// certificate.
func (c Certificate) Check() error {
	switch {
	case len(c.Chain)+len(c.Key) > MaxText:
		return fmt.Errorf("certificate and key have more than %d bytes in base64 together", MaxText)
	case c.Chain == "" && c.Key == "":
		return nil
	case c.Chain == "" || c.Key == "":
		return errors.New("certificate and key belong together")
	}
	_, err := c.KeyPair()
	return err
}

// KeyPair is a certificate with its key, as crypto/tls takes them.
type KeyPair struct {
	Chain [][]byte // DER
	Key   any
}

// KeyPair reads Chain and Key.
func (c Certificate) KeyPair() (KeyPair, error) {
	chain, err := blocks(c.Chain, "CERTIFICATE")
	if err != nil {
		return KeyPair{}, err
	}
	ders, err := blocks(c.Key, "PRIVATE KEY")
	if err != nil || len(ders) != 1 {
		return KeyPair{}, errors.New("expected one key")
	}
	key, err := parseKey(ders[0])
	if err != nil {
		return KeyPair{}, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return KeyPair{}, errors.New("it is no certificate of X.509 that is understood here")
	}
	if !isKeyOf(key, leaf) {
		return KeyPair{}, errors.New("key is not that of the certificate")
	}
	return KeyPair{chain, key}, nil
}

// isKeyOf reports whether key is the private key of a certificate.
func isKeyOf(key any, leaf *x509.Certificate) bool {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		return k.PublicKey.Equal(leaf.PublicKey)
	case *rsa.PrivateKey:
		return k.PublicKey.Equal(leaf.PublicKey)
	case ed25519.PrivateKey:
		return k.Public().(ed25519.PublicKey).Equal(leaf.PublicKey)
	}
	return false
}

// Info is what people want to know of a certificate.
type Info struct {
	CommonName string
	AltNames   []string
	Issuer     string
	KeyType    string // ec, rsa or ed25519
	KeySize    string
	From, To   time.Time
	// Fingerprint is the SHA-256 of the certificate, in hexadecimal, as RouterOS shows it and openssl x509 -fingerprint -sha256 with
	// colons.
	Fingerprint string
	SelfSigned  bool
}

// Info reads the first certificate of Chain.
func (c Certificate) Info() (Info, error) {
	chain, err := blocks(c.Chain, "CERTIFICATE")
	if err != nil {
		return Info{}, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return Info{}, errors.New("it is no certificate of X.509 that is understood here")
	}
	sum := sha256.Sum256(chain[0])
	i := Info{CommonName: leaf.Subject.CommonName, Issuer: leaf.Issuer.CommonName, From: leaf.NotBefore, To: leaf.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]), SelfSigned: string(leaf.RawIssuer) == string(leaf.RawSubject)}
	for _, a := range leaf.IPAddresses {
		i.AltNames = append(i.AltNames, "IP:"+a.String())
	}
	for _, n := range leaf.DNSNames {
		i.AltNames = append(i.AltNames, "DNS:"+n)
	}
	switch k := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		// As OpenSSL and RouterOS call it.
		i.KeyType, i.KeySize = "ec", map[string]string{"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}[k.Curve.Params().Name]
	case *rsa.PublicKey:
		i.KeyType, i.KeySize = "rsa", fmt.Sprint(k.N.BitLen())
	case ed25519.PublicKey:
		i.KeyType, i.KeySize = "ed25519", "256"
	}
	return i, nil
}

// PEM is the chain as text, for who shall trust it.
func (c Certificate) PEM() string {
	var b strings.Builder
	chain, _ := blocks(c.Chain, "CERTIFICATE") // checked before
	for _, der := range chain {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.String()
}
