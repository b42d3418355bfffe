//go:build small

package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func offerCertificates(*Live) {}

// A board without TLS says so. Lines of an export that switch it off, or would switch it on, are told and left out.
func TestNoTLS(t *testing.T) {
	for line, want := range map[string]string{
		"/ip service enable www-ssl":                  "Postern has no /ip service www-ssl (line 1 column 20): this board has no room for TLS",
		"/ip service set api-ssl disabled=no":         "Postern has no /ip service api-ssl (line 1 column 17): this board has no room for TLS",
		"/ip service set www certificate=web":         "Postern has no certificate=web (line 1 column 21); expected certificate=none",
		"/certificate add name=web common-name=web":   "Postern has no /certificate (line 1 column 2): this board has no room for TLS",
		"/ip service set www-ssl,ftp certificate=web": "",
	} {
		_, err := new(Session).Execute(Default(), fullLive(), line)
		require.Error(t, err, line)
		if want != "" {
			assert.EqualError(t, err, want)
		}
	}
	result, err := new(Session).Execute(Default(), fullLive(), "/ip service print")
	require.NoError(t, err)
	assert.NotContains(t, strings.ToLower(result.Output), "ssl")
	assert.NotContains(t, strings.ToLower(result.Output), "certificate")
}

func longCertificate() []string { return nil }
