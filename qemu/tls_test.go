package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/browser"
	"github.com/postern-router/postern/internal/e2e"
)

// TestTLS manages a router over TLS, by clients that trust its own certificate, which survives an upgrade, as the host key of SSH does.
func TestTLS(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range slotBoards() {
		if !thorough(b) {
			continue // it depends on no boot loader
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testTLS(t, b)
		})
	}
}

func testTLS(t *testing.T, b board.Board) {
	require.False(t, b.Small())
	u := newUpgrading(t, b)
	file := makeVersion(t, b, u.dir, version{name: "v2-good", date: later})
	require.NoError(t, os.Rename(file, filepath.Join(u.files, "v2-good")))
	u.begin(t, "upgrading")
	r := &router{T: t, b: b, n: u.n, dir: u.dir, m: u.m}
	memory := func(when string) float64 {
		t.Helper()
		free, _ := r.freeMemory(t)
		t.Logf("%s: %.1f MiB are free %s", b.Name, free, when)
		return free
	}
	require.NoError(t, u.n.awaitPing(client, lanAddress))
	assert.Empty(t, u.command(t, "/user set admin password=\""+sshPassword+"\""))
	before := memory("before a service over TLS is enabled")
	assert.Empty(t, u.command(t, "/ip service enable www-ssl,api-ssl"))
	enabled := memory("with two that sleep")
	assert.Greater(t, enabled, before-1, "no process runs yet")

	ca := filepath.Join(u.dir, "ca.pem")
	export := func() string {
		text := strings.ReplaceAll(u.command(t, "/certificate export-certificate router"), "\r", "")
		begin, end := strings.Index(text, "-----BEGIN CERTIFICATE-----"), strings.Index(text, "-----END CERTIFICATE-----")
		require.True(t, begin >= 0 && end > begin, text)
		return text[begin:end] + "-----END CERTIFICATE-----\n"
	}
	certificate := export()
	require.NoError(t, os.WriteFile(ca, []byte(certificate), 0o600))
	curl := func(args ...string) string {
		t.Helper()
		out, err := u.n.command(client, "curl", append([]string{"-sS", "--max-time", "60", "-w", "%{http_code}", "--cacert", ca, "-u", "admin:" + sshPassword}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	rest := func() {
		t.Helper()
		assert.Equal(t, `{"name":"upgrading"}200`, curl("https://"+lanAddress+"/rest/system/identity"))
	}
	hostKey := func() (key string) {
		t.Helper()
		require.NoError(t, retry(func() error {
			out, err := u.n.command(client, "ssh-keyscan", "-T", "60", "-t", "ed25519", lanAddress).Output()
			if key = string(out); err == nil && !strings.Contains(key, " ssh-ed25519 ") {
				err = errors.New("no host key")
			}
			return err
		}))
		return key
	}
	ssh := hostKey()
	t.Run("curl", func(t *testing.T) {
		rest()
		assert.Contains(t, curl("https://"+lanAddress+"/metrics"), "postern_uptime_seconds ")
		memory("while REST is logged in")
		_, err := u.n.command(client, "curl", "-sS", "https://"+lanAddress+"/").Output()
		require.Error(t, err, "who does not trust the certificate")
		out, err := u.n.command(client, "openssl", "s_client", "-connect", lanAddress+":443", "-brief", "-no_ign_eof").CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Contains(t, string(out), "TLSv1.3")
	})
	t.Run("librouteros", func(t *testing.T) {
		out, err := u.n.command(client, "/usr/bin/python3", "-W", "ignore", "../api/testdata/tls.py", lanAddress, "8729", sshPassword, ca).CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Equal(t, "upgrading\nupgrading\nno CA is refused\nTLS 1.1 is refused\n", string(out))
	})
	t.Run("Ansible", func(t *testing.T) {
		cmd := u.n.command(client, "ansible-playbook", "-i", "localhost,", "-e", "router="+lanAddress+" api_port=8729 ca="+ca,
			"-e", `{"password": "`+sshPassword+`"}`, "../api/testdata/tls.yml")
		cmd.Env = append(cmd.Env, "HOME="+u.dir, "LC_ALL=C.UTF-8", "ANSIBLE_LOCALHOST_WARNING=False", "ANSIBLE_NOCOLOR=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Regexp(t, `\schanged=1\s.*failed=0\s`, string(out))
	})
	t.Run("go-routeros", func(t *testing.T) {
		roots := x509.NewCertPool()
		require.True(t, roots.AppendCertsFromPEM([]byte(certificate)))
		conn, err := u.n.dial(client, lanAddress+":8729", patience)
		require.NoError(t, err)
		c, err := routeros.NewClient(tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: lanAddress}))
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.Login("admin", sshPassword))
		reply, err := c.Run("/certificate/print")
		require.NoError(t, err)
		require.Len(t, reply.Re, 1)
		assert.Equal(t, "true", reply.Re[0].Map["private-key"])
		memory("while one is logged in by the API too")
	})
	t.Run("Chromium", func(t *testing.T) {
		block, _ := pem.Decode([]byte(certificate))
		require.NotNil(t, block)
		leaf, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
		page := browser.Start(t, func(program string, args ...string) *exec.Cmd { return u.n.command(client, program, args...) },
			"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(sum[:]))
		page.Open("https://" + lanAddress)
		page.Await(`isSecureContext && document.activeElement.name == "password"`)
		page.Type(sshPassword)
		page.Press("Enter")
		page.Await(`document.title == "upgrading" && document.querySelectorAll("#interfaces article").length > 1`)
		page.Await(`document.querySelectorAll("#slots tbody tr").length == 2`)
		memory("with the page in a browser")
	})
	t.Run("an upgrade", func(t *testing.T) {
		u.awaitKept(t, "set www-ssl")
		u.upgrade(t, "v2-good", "", "system will reboot shortly")
		_, err := u.m.expect(linuxStarts)
		require.NoError(t, err)
		for _, step := range []struct{ asked, answer string }{{"Login: ", "admin"}, {"Password: ", sshPassword}} {
			_, err := u.m.expect(step.asked)
			require.NoError(t, err)
			require.NoError(t, u.m.send(step.answer+"\r"))
		}
		_, err = u.m.expect("[admin@upgrading] > ")
		require.NoError(t, err)
		require.NoError(t, u.n.awaitPing(client, lanAddress))
		assert.Equal(t, certificate, export())
		assert.Equal(t, ssh, hostKey(), "of SSH")
		rest()
	})
}
