//go:build !small

package console

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/certificate"
)

func offerCertificates(l *Live) {
	l.MakeCertificate = func(c certificate.Certificate) (certificate.Certificate, error) {
		return certificate.Make(c, time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC))
	}
}

// run runs lines, each of which must be taken.
func runLines(t *testing.T, cfg Config, lines ...string) Config {
	t.Helper()
	for _, line := range lines {
		result, err := new(Session).Execute(cfg, fullLive(), line)
		require.NoError(t, err, line)
		require.NoError(t, ValidateChange(cfg, result.Config, []string{"ether1", "ether2"}), line)
		cfg = result.Config
	}
	return cfg
}

// A service over TLS that is enabled gets the router's own certificate, which stays.
func TestOwnCertificate(t *testing.T) {
	cfg := runLines(t, Default(), "/system identity set name=gate", "/ip address add address=192.168.0.1/24 interface=ether2", "/ip address add address=198.51.100.7/24 interface=ether1",
		"/ip dns static add name=router.lan address=192.168.0.1", "/user set admin password=secret")
	assert.Empty(t, cfg.Certificates)
	cfg = runLines(t, cfg, "/ip service enable www-ssl")
	require.Len(t, cfg.Certificates, 1)
	// No more names than a line of the configuration has room for.
	many := Default()
	many = runLines(t, many, "/ip address add address=192.168.0.1/24 interface=ether2", "/user set admin password=secret")
	for i := range 10 {
		many = runLines(t, many, fmt.Sprintf("/ip dns static add name=%d.%s.lan address=192.168.0.1", i, strings.Repeat("n", 60)))
	}
	assert.Len(t, runLines(t, many, "/ip service enable www-ssl").Certificates, 1)
	own := cfg.Certificates[0]
	info, err := own.Info()
	require.NoError(t, err)
	assert.Equal(t, "router", own.Name)
	assert.Equal(t, "gate", info.CommonName)
	assert.ElementsMatch(t, []string{"DNS:gate", "DNS:router.lan", "IP:192.168.0.1"}, info.AltNames, "the LAN's, and no address outside")
	assert.Equal(t, "2026-11-28 00:00:00", info.From.Format(time.DateTime), "before the software was built")
	assert.Equal(t, "router", cfg.WWWSSL.Certificate)
	cfg = runLines(t, cfg, "/ip service disable www-ssl", "/ip service enable www-ssl", "/ip service set api-ssl disabled=no", "/system identity set name=other")
	assert.Equal(t, []certificate.Certificate{own}, cfg.Certificates)
	assert.Equal(t, "router", cfg.APISSL.Certificate)

	// A name follows; what is in use stays; enabling names another.
	cfg = runLines(t, cfg, "/certificate set router name=old", "/certificate add name=new common-name=x", "/ip service set api-ssl certificate=new")
	assert.Equal(t, "old", cfg.WWWSSL.Certificate)
	assert.NotEmpty(t, cfg.Certificates[1].Key, "it is made, as the service is enabled")
	result, err := new(Session).Execute(cfg, fullLive(), "/certificate remove old")
	require.NoError(t, err)
	require.EqualError(t, ValidateChange(cfg, result.Config, []string{"ether1", "ether2"}), "failure: certificate old is in use by /ip service www-ssl")
	again := runLines(t, cfg, "/certificate sign old")
	assert.NotEqual(t, own.Chain, again.Certificates[0].Chain)

	// It survives: on flash, and by exports.
	var kept strings.Builder
	kept.WriteString(Export(cfg))
	for line := range strings.Lines(strings.ReplaceAll(kept.String(), "\\\n", "")) {
		assert.LessOrEqual(t, len(line), MaxLine)
	}
	loaded, err := Load("kept", strings.NewReader(kept.String()))
	require.NoError(t, err)
	assert.True(t, loaded.Equal(cfg))
	result, err = new(Session).Execute(cfg, fullLive(), "/export")
	require.NoError(t, err)
	assert.NotContains(t, result.Output, own.Key)
	imported, err := new(Session).ImportBy(ImportArguments{}, cfg, fullLive(), result.Output, nil)
	require.NoError(t, err)
	assert.Equal(t, cfg.Certificates, imported.Config.Certificates, "where they are")
	imported, err = new(Session).ImportBy(ImportArguments{Replace: true}, cfg, fullLive(), result.Output, nil)
	require.NoError(t, err)
	assert.Equal(t, cfg.Certificates, imported.Config.Certificates, "clients go on knowing the router")
	imported, err = new(Session).ImportBy(ImportArguments{}, Default(), fullLive(), result.Output, nil)
	require.NoError(t, err)
	require.Len(t, imported.Config.Certificates, 2)
	assert.NotEmpty(t, imported.Config.Certificates[0].Key, "another router makes its own")
	assert.NotEqual(t, own.Key, imported.Config.Certificates[0].Key)
	live := fullLive()
	live.Denied = MaySensitive
	result, err = new(Session).Execute(cfg, live, "/export show-sensitive")
	assert.True(t, err != nil || !strings.Contains(result.Output, own.Key))
}

// A certificate from elsewhere is taken with its key, as PEM or as base64, and nothing that does not work.
func TestForeignCertificate(t *testing.T) {
	made, err := certificate.Make(certificate.Certificate{Name: "x", CommonName: "far", Days: 10}, time.Now(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	other := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	keyPEM := "-----BEGIN PRIVATE KEY-----\n" + made.Key + "\n-----END PRIVATE KEY-----\n"
	for _, test := range []struct{ name, chain, key, err string }{
		{"PEM", made.PEM(), keyPEM, ""},
		{"base64", made.Chain, made.Key, ""},
		{"another's key", made.PEM(), other, "/certificate 0: failure: key is not that of the certificate"},
		{"no key", made.PEM(), "", "/certificate 0: failure: certificate and key belong together"},
		{"no certificate", "", keyPEM, "/certificate 0: failure: certificate and key belong together"},
		{"a key for a certificate", keyPEM, keyPEM, "invalid value for argument certificate; expected PEM, or base64: it has no block CERTIFICATE of PEM"},
		{"garbage", "AAAA", made.Key, "invalid value for argument certificate; expected PEM, or base64: it is no certificate of X.509 that is understood here"},
		{"a secret in the wrong place", made.PEM(), "hush", "invalid value for argument key; expected PEM without a passphrase, or base64: it is no key that is understood here"},
		{"too long", strings.Repeat(made.PEM(), 50), keyPEM, "invalid value for argument certificate; expected PEM, or base64: it has more than 24000 bytes"},
		{"one twice", made.PEM() + made.PEM(), keyPEM, "invalid value for argument certificate; expected PEM, or base64: its certificates have not signed one another; " +
			"expected that of the service, and those of the authorities between"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := Do(Default(), fullLive(), "certificate", "add", Argument{Name: "name", Value: "far"}, Argument{Name: "certificate", Value: test.chain}, Argument{Name: "key", Value: test.key})
			if err == nil {
				err = ValidateChange(Default(), result.Config, nil)
			}
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, made.Key, result.Config.Certificates[0].Key)
			rows, err := Query(result.Config, fullLive(), "certificate", nil, nil)
			require.NoError(t, err)
			for _, p := range rows[0].Pairs {
				assert.NotContains(t, p.Value.String(), made.Key)
			}
			shown, err := new(Session).Execute(result.Config, fullLive(), "/certificate export-certificate far")
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(shown.Output, made.PEM()))
		})
	}
	_, err = new(Session).Execute(Default(), fullLive(), "/certificate add name=a subject-alt-name=IP:foo")
	require.ErrorContains(t, err, "behind IP: there is no address")
	_, err = new(Session).Execute(Default(), fullLive(), "/certificate add name=a; /certificate sign a ca=root")
	require.ErrorContains(t, err, "there is no authority here, and a certificate signs itself; one that another has signed is given by certificate= and key=")
	result, err := new(Session).Execute(Default(), fullLive(), "/ip service set www certificate=none; /certificate add name=web; /ip service set www certificate=web")
	require.NoError(t, err)
	require.EqualError(t, ValidateChange(Default(), result.Config, nil), "/ip service www: failure: it has no TLS, and so no certificate; expected one of api-ssl | www-ssl")
}

// A chain that is longer than what anybody types comes over the API or by an import, and is kept and exported.
func TestLongCertificate(t *testing.T) {
	chain, text := longChain()
	require.Greater(t, len(chain)+len(text), 2*MaxLine)
	result, err := Do(Default(), fullLive(), "certificate", "add", Argument{Name: "name", Value: "far"}, Argument{Name: "certificate", Value: chain}, Argument{Name: "key", Value: text})
	require.NoError(t, err)
	cfg := runLines(t, result.Config, "/user set admin password=secret", "/ip service set www-ssl certificate=far disabled=no")
	info, err := cfg.Certificates[0].Info()
	require.NoError(t, err)
	assert.Equal(t, "number 2", info.CommonName, "that of the service is the first")
	loaded, err := Load("kept", strings.NewReader(Export(cfg)))
	require.NoError(t, err)
	assert.True(t, loaded.Equal(cfg))
	shown, err := new(Session).Execute(cfg, fullLive(), "/export show-sensitive")
	require.NoError(t, err)
	imported, err := new(Session).ImportBy(ImportArguments{Replace: true}, Default(), fullLive(), shown.Output, nil)
	require.NoError(t, err)
	assert.Equal(t, cfg.Certificates, imported.Config.Certificates)
	_, err = new(Session).Execute(cfg, fullLive(), "/certificate add name=x certificate="+strings.Repeat("x", MaxLine))
	require.EqualError(t, err, "line longer than 4096 bytes (line 1 column 1)")
	_, err = Load("kept", strings.NewReader("/certificate add name=x certificate="+strings.Repeat("x", maxFileLine)))
	require.ErrorContains(t, err, "line longer than 16384 bytes")
}

// A service without a certificate does not listen, as when a file says that it is enabled.
func TestNoCertificate(t *testing.T) {
	cfg, err := Load("kept", strings.NewReader("/user set admin password-hash=x\n/ip service set www-ssl disabled=no\n"))
	require.NoError(t, err)
	ssl := NetworkServices[len(NetworkServices)-1]
	assert.False(t, ssl.Open(cfg))
	result, err := new(Session).Execute(cfg, Live{}, "/ip service print")
	require.NoError(t, err)
	assert.Regexp(t, `4 I +www-ssl`, result.Output)
	cfg = runLines(t, cfg, "/system identity set name=y")
	assert.True(t, ssl.Open(cfg), "the next change gives it one")
}

// longChain is a certificate of the longest key, with two authorities behind it, and the key, as PEM. The root is the first, as no client
// wants it.
var longChain = sync.OnceValues(func() (chain, text string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	var parent *x509.Certificate
	for i := range 3 {
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprint("number ", i)}, NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
			BasicConstraintsValid: true, IsCA: i < 2}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
		must(err)
		parent, err = x509.ParseCertificate(der)
		must(err)
		chain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return chain, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
})

// longCertificate has the longest values of a certificate's properties that go together.
func longCertificate() []string {
	chain, key := longChain()
	return []string{chain, key, "DNS:" + strings.Repeat("x", 60) + ",IP:255.255.255.255"}
}
