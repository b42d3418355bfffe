//go:build !small

package certificate

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var built = time.Date(2026, time.November, 29, 17, 0, 0, 0, time.UTC)

func leafOf(t *testing.T, c Certificate) *x509.Certificate {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(c.Chain)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return leaf
}

// What is made is valid for clients whose clocks are right, whatever the router's clock says.
func TestMake(t *testing.T) {
	for name, test := range map[string]struct {
		now, to time.Time
	}{
		"a clock that was never set":  {time.Unix(100, 0), built.AddDate(0, 0, 365)},
		"a clock that is right":       {built.AddDate(3, 0, 0), built.AddDate(3, 0, 365)},
		"a clock at the end of time":  {time.Date(2037, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2038, 12, 31, 0, 0, 0, 0, time.UTC)},
		"a clock in another century":  {time.Date(2106, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC)},
		"a clock of before the image": {built.AddDate(-1, 0, 0), built.AddDate(0, 0, 365)},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Make(Certificate{Name: "x", CommonName: "gate", AltNames: []string{"DNS:gate.lan", "IP:192.168.0.1"}, Days: 365}, test.now, built)
			require.NoError(t, err)
			require.NoError(t, c.Check())
			assert.LessOrEqual(t, len(c.Chain)+len(c.Key), MaxText/3)
			leaf := leafOf(t, c)
			assert.Equal(t, "2026-11-28 00:00:00", leaf.NotBefore.Format(time.DateTime))
			assert.Equal(t, test.to.Unix(), leaf.NotAfter.Unix())
			assert.Equal(t, []string{"gate.lan"}, leaf.DNSNames)
			assert.True(t, leaf.IPAddresses[0].Equal(net.IPv4(192, 168, 0, 1)))
			assert.False(t, leaf.IsCA)
			assert.Positive(t, leaf.SerialNumber.Sign())
			roots := x509.NewCertPool()
			require.True(t, roots.AppendCertsFromPEM([]byte(c.PEM())))
			for _, name := range []string{"gate.lan", "192.168.0.1"} {
				_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: built})
				require.NoError(t, err, name)
			}
			info, err := c.Info()
			require.NoError(t, err)
			assert.Equal(t, "ec prime256v1", info.KeyType+" "+info.KeySize)
			again, err := Make(c, test.now, built)
			require.NoError(t, err)
			assert.NotEqual(t, c.Key, again.Key)
			assert.NotEqual(t, leaf.SerialNumber, leafOf(t, again).SerialNumber)
		})
	}
	c, err := Make(Certificate{Name: "bare", Days: 1}, built, built)
	require.NoError(t, err)
	assert.Equal(t, "bare", leafOf(t, c).Subject.CommonName, "a certificate of nobody is none")
}

// foreign is a certificate of somebody else's, of a kind of key.
func foreign(t testing.TB, key any, public any) (chain, kept string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: built.AddDate(1, 0, 0), DNSNames: []string{"far"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func TestForeign(t *testing.T) {
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	take := func(chain, key string) (Certificate, error) {
		c := Certificate{Name: "x"}
		if c.Chain, err = ParseChain(chain); err != nil {
			return c, err
		}
		if c.Key, err = ParseKey(key); err != nil {
			return c, err
		}
		return c, c.Check()
	}
	chain, key := foreign(t, rsa2048, &rsa2048.PublicKey)
	c, err := take(chain, key)
	require.NoError(t, err)
	info, err := c.Info()
	require.NoError(t, err)
	assert.Equal(t, "rsa 2048", info.KeyType+" "+info.KeySize)
	assert.Equal(t, chain, c.PEM())
	old := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsa2048)}))
	_, err = take("some text\n"+chain, old)
	require.NoError(t, err, "as older programs write it, with text before it")
	_, err = take(chain+chain, key)
	require.EqualError(t, err, "its certificates have not signed one another; expected that of the service, and those of the authorities between")
	many, manyKey := authorities(t, 4, 1000)
	_, err = take(strings.Join(many, ""), manyKey)
	require.EqualError(t, err, "certificate and key have more than 12000 bytes in base64 together")
	_, err = take(strings.Join(many[:3], ""), manyKey)
	require.NoError(t, err)
	_, err = take(strings.Repeat(chain, 5), key)
	require.EqualError(t, err, "more than 4 certificates")
	other, otherKey := foreign(t, private, public)
	_, err = take(other, otherKey)
	require.NoError(t, err)
	_, err = take(other, key)
	require.EqualError(t, err, "key is not that of the certificate")
	_, err = ParseKey(key + otherKey)
	require.EqualError(t, err, "expected one key, without a passphrase")
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	_, err = take(foreign(t, p224, &p224.PublicKey))
	require.EqualError(t, err, "a key on an elliptic curve is of P-256, P-384 or P-521 here")
	locked := strings.Replace(key, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1)
	_, err = ParseKey(locked)
	require.EqualError(t, err, "expected one key, without a passphrase")
}

// authorities are a chain of that many certificates, that of the service first, and its key. Each has a name of that many bytes more.
func authorities(t *testing.T, n, more int) (chain []string, key string) {
	t.Helper()
	var signer *ecdsa.PrivateKey
	var parent *x509.Certificate
	for i := n - 1; i >= 0; i-- {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprint("number ", i), Organization: []string{strings.Repeat("x", more)}},
			NotBefore: built, NotAfter: built.AddDate(1, 0, 0), BasicConstraintsValid: true, IsCA: i > 0}
		if parent == nil {
			parent, signer = template, own
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, signer)
		require.NoError(t, err)
		parent, err = x509.ParseCertificate(der)
		require.NoError(t, err)
		signer = own
		chain = append([]string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}, chain...)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	require.NoError(t, err)
	return chain, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// Certificates of a chain are put into order, whatever order a file has them in; what is no chain is refused.
func TestOrder(t *testing.T) {
	chain, key := authorities(t, 3, 0)
	private, err := ParseKey(key)
	require.NoError(t, err)
	want, err := ParseChain(strings.Join(chain, ""))
	require.NoError(t, err)
	require.NoError(t, Certificate{Chain: want, Key: private}.Check())
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		got, err := ParseChain(chain[order[0]] + chain[order[1]] + chain[order[2]])
		require.NoError(t, err, order)
		assert.Equal(t, want, got, order)
	}
	part, err := ParseChain(chain[1] + chain[0]) // without the root, as is usual
	require.NoError(t, err)
	assert.Equal(t, want[:len(part)], part)
	other, _ := authorities(t, 2, 0)
	for name, text := range map[string]string{"a gap": chain[0] + chain[2], "one of others": chain[0] + chain[1] + other[0], "two chains": chain[0] + chain[1] + other[0] + other[1],
		"one twice": chain[0] + chain[1] + chain[1], "the other of the same name": chain[0] + other[1],
		"two that have signed each other, and one of others": other[0] + other[1] + other[1] + chain[0]} {
		_, err = ParseChain(text)
		require.EqualError(t, err, "its certificates have not signed one another; expected that of the service, and those of the authorities between", name)
	}
}

func TestAltNames(t *testing.T) {
	for text, want := range map[string]string{
		"DNS:router.lan": "DNS:router.lan", "DNS:*.lan": "DNS:*.lan", "IP:192.168.0.1": "IP:192.168.0.1", "IP:2001:DB8::1": "IP:2001:db8::1",
		"DNS:": "", "DNS:a b": "", "DNS:-a": "", "DNS:a..b": "", "DNS:*": "", "IP:1.2.3": "", "IP:fe80::1%eth0": "", "email:a@b": "", "router.lan": "", "DNS:" + strings.Repeat("x", 65): "",
	} {
		got, err := ParseAltName(text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, want == "", err != nil, text)
	}
	assert.Empty(t, DNSName("my router"))
	assert.Equal(t, "DNS:gate", DNSName("gate"))
}

// Whatever is given, what is kept reads as itself, and nothing panics.
func FuzzParse(f *testing.F) {
	c, err := Make(Certificate{Name: "x", Days: 1}, built, built)
	require.NoError(f, err)
	f.Add(c.PEM(), c.Key)
	f.Add(c.Chain+","+c.Chain, "-----BEGIN PRIVATE KEY-----\n"+c.Key+"\n-----END PRIVATE KEY-----\n")
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "MAA=")
	f.Fuzz(func(t *testing.T, chain, key string) {
		c := Certificate{Name: "x"}
		var err error
		if c.Chain, err = ParseChain(chain); err == nil {
			again, err := ParseChain(c.Chain)
			require.NoError(t, err)
			require.Equal(t, c.Chain, again)
			_, err = c.Info()
			require.NoError(t, err)
			require.NotEmpty(t, c.PEM())
		}
		if c.Key, err = ParseKey(key); err == nil {
			again, err := ParseKey(c.Key)
			require.NoError(t, err)
			require.Equal(t, c.Key, again)
		}
		_ = c.Check()
	})
}
