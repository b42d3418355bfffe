package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// otherFTPPort is where the site's FTP server is too.
const otherFTPPort = 2121

// TestServicePort has clients behind masquerade use FTP's active mode without SOCKS, which needs the kernel's helper.
func TestServicePort(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		if !thorough(b) {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			r := startRouter(t, b.Name, nil)
			r.awaitService(t)
			r.awaitLinks(t)
			r.secondFTP(t)
			r.command(t, "/ip firewall filter print")
			assert.Empty(t, r.command(t, "/ip firewall filter disable 6")) // the manual's, that nobody reaches FTP but by SOCKS
			r.servicePort(t)
		})
	}
}

// secondFTP starts the site's FTP server once more, at otherFTPPort.
func (r *router) secondFTP(t *testing.T) {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(r.site.dir, "vsftpd.conf"))
	require.NoError(t, err)
	second := filepath.Join(r.site.dir, "second.conf")
	require.NoError(t, os.WriteFile(second, fmt.Appendf(config, "listen_port=%d\n", otherFTPPort), 0o644))
	cmd := r.n.command(serverOfSite, "vsftpd", second)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.NoError(t, retry(func() error {
		conn, err := r.n.dial(gateway, fmt.Sprintf("%s:%d", serverAddress, otherFTPPort), patience)
		if err == nil {
			conn.Close()
		}
		return err
	}))
}

// active gets the file in FTP's active mode from a port of the server, by masquerade alone.
func (r *router) active(t *testing.T, port int) error {
	t.Helper()
	to := filepath.Join(r.dir, "active")
	require.NoError(t, os.RemoveAll(to))
	out, err := r.n.command(client, "curl", "--silent", "--show-error", "--disable-eprt", "--ftp-port", "-", "--output", to,
		fmt.Sprintf("ftp://%s:%d/%s", serverAddress, port, fileName)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(r.site.file, got), "the file that arrived has %d bytes and is another", len(got))
	return nil
}

func (r *router) servicePort(t *testing.T) {
	assert.Equal(t, "Flags: X - disabled\n #   NAME       PORTS\n 0 X ftp        21\n", r.command(t, "/ip firewall service-port print"))
	r.run(t, client, "curl", "--silent", "--show-error", "--output", os.DevNull, ftpURL) // its passive mode
	assert.Error(t, r.active(t, 21), "the server was told an address of the LAN")

	before, _ := r.freeMemory(t)
	assert.Empty(t, r.command(t, "/ip firewall service-port set ftp disabled=no"))
	after, _ := r.freeMemory(t)
	t.Logf("free memory %.1f MiB before, %.1f MiB with the helper in use", before, after)
	require.NoError(t, r.active(t, 21))
	upload := filepath.Join(r.dir, "upload")
	require.NoError(t, os.WriteFile(upload, r.site.file, 0o644))
	r.run(t, client, "curl", "--silent", "--show-error", "--ftp-port", "-", "--upload-file", upload, "ftp://"+serverAddress+"/incoming/extended") // by EPRT
	assertSameFile(t, r.site.file, filepath.Join(r.site.uploadDir(), "extended"))
	r.run(t, client, "tnftp", "-A", "-V", "-o", filepath.Join(r.dir, "tnftp"), ftpURL)
	r.run(t, client, "curl", "--silent", "--show-error", "--output", os.DevNull, ftpURL)
	assert.Error(t, r.active(t, otherFTPPort))

	assert.Empty(t, r.command(t, "/ip firewall service-port set ftp ports=21,2121"))
	require.NoError(t, r.active(t, 21))
	require.NoError(t, r.active(t, otherFTPPort))
	assert.Contains(t, r.command(t, "/export"), "/ip firewall service-port\nset ftp disabled=no ports=21,2121\n")

	// Who is logged in when the helper goes is not helped any more.
	open, err := r.n.dial(client, fmt.Sprintf("%s:%d", serverAddress, otherFTPPort), patience)
	require.NoError(t, err)
	defer open.Close()
	assert.Empty(t, r.command(t, "/ip firewall service-port set ftp ports=21"))
	r.awaitLog(t, `firewall,info \d+ tracked connections? forgotten`)
	assert.Error(t, r.active(t, otherFTPPort))
	assert.Empty(t, r.command(t, "/ip firewall service-port disable ftp"))
	assert.Error(t, r.active(t, 21))
	r.command(t, "/undo")
	require.NoError(t, r.active(t, 21))
	assert.Contains(t, r.command(t, "/ip firewall service-port set sip disabled=no"), "Postern has no helper for sip; expected disabled=yes")
}
