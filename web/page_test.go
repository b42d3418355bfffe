package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// between is the part of text between two tags.
func between(t *testing.T, text, open, end string) string {
	_, rest, ok := strings.Cut(text, open)
	require.True(t, ok, open)
	part, rest, ok := strings.Cut(rest, end)
	require.True(t, ok, end)
	require.NotContains(t, rest, open, "the policy allows one")
	return part
}

// The packed page is the page, is small, and its policy allows its own script and style alone.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("page.html")
	require.NoError(t, err)
	hash := func(open, end string) string {
		sum := sha256.Sum256([]byte(between(t, string(page), open, end)))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	policy := "default-src 'none'; script-src " + hash("<script>", "</script>") + "; style-src " + hash("<style>", "</style>") +
		"; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
	if os.Getenv("POSTERN_GOLDEN") == "write" {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		require.NoError(t, err)
		_, err = z.Write(page)
		require.NoError(t, err)
		require.NoError(t, z.Close())
		require.NoError(t, os.WriteFile("page.html.gz", b.Bytes(), 0o644))
		require.NoError(t, os.WriteFile("page.policy", []byte(policy), 0o644))
		packedPage, pagePolicy = b.String(), policy
	}
	z, err := gzip.NewReader(strings.NewReader(packedPage))
	require.NoError(t, err)
	unpacked, err := io.ReadAll(z)
	require.NoError(t, err)
	assert.Equal(t, string(page), string(unpacked), "write it anew: POSTERN_GOLDEN=write go test ./web -run TestPage")
	assert.Equal(t, policy, pagePolicy)
	assert.Less(t, len(packedPage), 20<<10)
	assert.NotContains(t, string(page), "innerHTML", "what the router tells is text")
	for _, word := range []string{"http://", "https://", "//cdn"} {
		rest := strings.ReplaceAll(string(page), "http://www.w3.org/2000/svg", "")
		assert.NotContains(t, rest, word, "the page needs nothing from outside")
	}
	t.Logf("%d bytes, %d packed", len(page), len(packedPage))
}
