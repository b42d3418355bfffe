package router

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/files"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/ssh"
	"github.com/postern-router/postern/upgrade"
)

// sftpRig is a router with the real process of SSH and users who come by SFTP. Their password is sftpPassword.
type sftpRig struct {
	*rig
	s    *sshService
	said func() string
	home string
	// image is a whole one of another version.
	image []byte
}

const sftpPassword = "correct horse"

func newSFTPRig(t *testing.T) *sftpRig {
	image := bytes.Repeat([]byte("0123456789abcdef"), 3000) // more than one packet
	file, key := signedImage(t, image)
	log, said := testLog(t)
	g := &sftpRig{rig: started(t), said: said, home: t.TempDir(), image: file}
	g.r.log, g.r.supervisor = log, realSupervisor(t, log, said)
	g.s = newSSHService(g.r.supervisor, log.About("ssh"))
	g.s.attach(g.r)
	g.rig.file("etc/upgrade.pub", key)
	g.slots("a", map[string]string{"tried": "1", "confirmed": "1"}, nil)
	g.r.upgrades.running = upgrade.Running{Board: "rig", Version: "v1", Date: time.Unix(1_000_000_000, 0).UTC()}
	g.r.logins.matches = func(_ password.Hash, secret string) bool { return secret == sftpPassword }
	hash, err := password.New(sftpPassword)
	require.NoError(t, err)
	for _, user := range []string{"admin group=full", "looker group=read", "writer group=files"} {
		name, group, _ := strings.Cut(user, " ")
		if name == "writer" {
			g.must("/user group add name=files policy=ssh,ftp,read,write,sensitive")
		}
		if name != "admin" {
			g.must("/user add name=" + name + " " + group)
		}
		g.r.mu.Lock()
		next := g.r.now.config.Clone()
		next.SetPassword(name, hash)
		g.r.now.config, g.r.now.running = next, next
		g.r.mu.Unlock()
	}
	c := g.r.snapshot().running
	c.SSH.Disabled, c.SSH.Port = false, freePort(t)
	require.NoError(t, g.s.Apply(c))
	t.Cleanup(g.s.Stop)
	return g
}

// save writes a file that a client is to upload, and returns its path.
func (g *sftpRig) save(name, content string) string {
	g.Helper()
	path := filepath.Join(g.home, name)
	require.NoError(g, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// client is a program with these arguments; PORT and HOME in them stand for what they are. What comes from in is typed.
func (g *sftpRig) client(in, program string, args ...string) (output string, err error) {
	g.Helper()
	e2e.Needs(g, program)
	g.s.mu.Lock()
	port := fmt.Sprint(g.s.config.Port)
	g.s.mu.Unlock()
	for i := range args {
		args[i] = strings.NewReplacer("PORT", port, "HOME", g.home).Replace(args[i])
	}
	answer := g.save("answer", "#!/bin/sh\necho '"+sftpPassword+"'\n")
	require.NoError(g, os.Chmod(answer, 0o700))
	cmd := exec.CommandContext(g.Context(), program, args...)
	cmd.Dir, cmd.Stdin = g.home, strings.NewReader(strings.NewReplacer("PORT", port, "HOME", g.home).Replace(in))
	cmd.Env = append(os.Environ(), "HOME="+g.home, "SSH_ASKPASS="+answer, "SSH_ASKPASS_REQUIRE=force", "SSH_AUTH_SOCK=", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	g.Logf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	return string(out), err
}

var openSSH = []string{"-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=none",
	"-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"}

// sftp is OpenSSH's, which goes on after an error in a line that begins with "-".
func (g *sftpRig) sftp(user, lines string) (string, error) {
	g.Helper()
	return g.client(lines, "sftp", append(append([]string{}, openSSH...), "-P", "PORT", "-o", "BatchMode=no", "-b", "-", user+"@127.0.0.1")...)
}

func (g *sftpRig) identity() string { return g.r.snapshot().config.Identity }

// settingsOf is an export without the time at which it was made.
func settingsOf(export string) string {
	_, rest, _ := strings.Cut(export, "\n")
	return rest
}

// OpenSSH's sftp fetches and uploads: exports, lines to keep and to import, an image.
func TestOpenSSHSFTP(t *testing.T) {
	g := newSFTPRig(t)
	t.Run("exports", func(t *testing.T) {
		out, err := g.sftp("admin", "ls -l\npwd\nget export.rsc a.rsc\nget /export-sensitive.rsc b.rsc\n")
		require.NoError(t, err)
		assert.Regexp(t, `-r--------\s+\S+\s+\S+\s+\S+\s+\d+ .* export.rsc\n`, out)
		assert.Contains(t, out, "Remote working directory: /\n")
		for name, line := range map[string]string{"a.rsc": "/export", "b.rsc": "/export show-sensitive"} {
			got, err := os.ReadFile(filepath.Join(g.home, name))
			require.NoError(t, err)
			assert.Equal(t, settingsOf(g.must(line)), settingsOf(string(got)))
		}
		assert.NotContains(t, g.must("/export"), "password-hash")
	})
	t.Run("lines to keep", func(t *testing.T) {
		g.save("x.rsc", "/system identity set name=kept\n")
		out, err := g.sftp("admin", "put -p x.rsc\nput x.rsc y.rsc\nrename y.rsc z.rsc\nget z.rsc again.rsc\n-mkdir d\nrm x.rsc\nls\n")
		require.NoError(t, err)
		assert.Contains(t, out, "the router has no folders")
		assert.Regexp(t, `\nexport-sensitive.rsc +export.rsc +z.rsc`, out)
		again, err := os.ReadFile(filepath.Join(g.home, "again.rsc"))
		require.NoError(t, err)
		assert.Equal(t, "/system identity set name=kept\n", string(again))
		assert.Regexp(t, ` 0 z.rsc +script 31 .* admin\n`, g.must("/file print"))
		_, err = g.r.importLines(&session.Session{}, "", console.ImportArguments{File: "z.rsc"})
		require.NoError(t, err)
		assert.Equal(t, "kept", g.identity())
		g.must("/file remove z.rsc")
		_, err = g.r.importLines(&session.Session{}, "", console.ImportArguments{File: "z.rsc"})
		require.EqualError(t, err, "failure: no such file: z.rsc; /file print lists those that there are")
	})
	t.Run("lines to import", func(t *testing.T) {
		g.save("good.auto.rsc", "/system identity\nset name=imported\n")
		_, err := g.sftp("admin", "put -p good.auto.rsc\n")
		require.NoError(t, err)
		assert.Equal(t, "imported", g.identity())
		assert.Contains(t, g.said(), "import by ssh:admin@127.0.0.1 of good.auto.rsc: executed successfully")
		g.save("bad.auto.rsc", "/system identity set name=bad\n/system identity set nme=worse\n")
		out, err := g.sftp("admin", "put bad.auto.rsc\n")
		require.Error(t, err)
		assert.Contains(t, out, "bad.auto.rsc: ")
		assert.Contains(t, out, "(line 2 column 22)")
		assert.Contains(t, out, "; nothing was changed")
		g.save("half.auto.rsc", "/system identity set name=half")
		out, err = g.sftp("admin", "put half.auto.rsc\n")
		require.Error(t, err)
		assert.Contains(t, out, "the last line has no end")
		assert.Equal(t, "imported", g.identity())
		assert.NotContains(t, g.must("/file print"), "auto.rsc")
	})
	t.Run("an export to a file", func(t *testing.T) {
		assert.Empty(t, g.must("/export file=saved"))
		_, err := g.sftp("admin", "get saved.rsc\n")
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(g.home, "saved.rsc"))
		require.NoError(t, err)
		assert.Equal(t, settingsOf(g.must("/export")), settingsOf(string(got)))
		g.must("/file remove [find name=saved.rsc]")
	})
	t.Run("an image", func(t *testing.T) {
		g.save("sysupgrade.img", string(g.image[:len(g.image)-1]))
		out, err := g.sftp("admin", "put sysupgrade.img\n")
		require.Error(t, err)
		assert.Contains(t, out, "; the present version stays")
		g.save("sysupgrade.img", strings.Repeat("x", len(g.image)))
		out, err = g.sftp("admin", "put sysupgrade.img\n")
		require.Error(t, err)
		assert.Contains(t, out, "not an upgrade image")
		states, err := g.r.slots()
		require.NoError(t, err)
		assert.Equal(t, "empty", states[1].State)
		g.save("sysupgrade.img", string(g.image))
		_, err = g.sftp("admin", "put -p sysupgrade.img\n")
		require.NoError(t, err)
		states, err = g.r.slots()
		require.NoError(t, err)
		assert.Equal(t, []string{"confirmed", "untried"}, []string{states[0].State, states[1].State})
		assert.Equal(t, "v2", states[1].Version)
		assert.Empty(t, g.requests, "the user restarts it")
		assert.Contains(t, g.said(), "upgrade by ssh:admin@127.0.0.1")
		assert.Contains(t, g.said(), "it starts when the router restarts")
	})
	t.Run("without the policies", func(t *testing.T) {
		out, err := g.sftp("looker", "get export.rsc\n")
		require.Error(t, err)
		assert.Contains(t, out, "not enough permissions (9)")
		g.save("hidden.rsc", "# mine\n")
		_, err = g.sftp("admin", "put hidden.rsc\n")
		require.NoError(t, err)
		out, err = g.sftp("writer", "ls\nget export.rsc\nget export-sensitive.rsc\n-get hidden.rsc\n-put x.rsc hidden.rsc\n-rm hidden.rsc\n-rename hidden.rsc mine.rsc\n-put sysupgrade.img\nput x.rsc own.rsc\nrm own.rsc\n")
		require.NoError(t, err)
		assert.Contains(t, out, "hidden.rsc")
		assert.Equal(t, 5, strings.Count(out, "not enough permissions (9)"), out)
		got, err := os.ReadFile(filepath.Join(g.home, "export-sensitive.rsc"))
		require.NoError(t, err)
		assert.NotContains(t, string(got), "argon2", "hashes of users' passwords take the policy policy")
		g.save("users.auto.rsc", "/user set writer group=full\n")
		out, err = g.sftp("writer", "put users.auto.rsc\n")
		require.Error(t, err)
		assert.Contains(t, out, "not enough permissions (9)")
		_, err = g.r.importLines(&session.Session{Session: console.Session{User: "writer"}}, "", console.ImportArguments{File: "hidden.rsc"})
		require.ErrorIs(t, err, console.ErrNotPermitted)
	})
}

// The other clients fetch an export, upload lines and are told what is wrong with them.
func TestSFTPClients(t *testing.T) {
	g := newSFTPRig(t)
	public := ssh.PublicKey{Key: string(g.s.hostKey().Public().(ed25519.PublicKey))}
	putty := []string{"-batch", "-P", "PORT", "-pw", sftpPassword, "-hostkey", public.Fingerprint()}
	for _, c := range []struct {
		name string
		// get fetches export.rsc to got.rsc, put uploads a file.
		get func() (string, error)
		put func(name string) (string, error)
		// told is set if the client shows what is wrong.
		told bool
	}{
		{"scp", func() (string, error) {
			return g.client("", "scp", append(append([]string{}, openSSH...), "-P", "PORT", "admin@127.0.0.1:export.rsc", "got.rsc")...)
		}, func(name string) (string, error) {
			return g.client("", "scp", append(append([]string{}, openSSH...), "-p", "-P", "PORT", name, "admin@127.0.0.1:/")...)
		}, true},
		{"psftp", func() (string, error) {
			return g.client("get export.rsc got.rsc\n", "psftp", append(append([]string{}, putty...), "admin@127.0.0.1")...)
		}, func(name string) (string, error) {
			return g.client("put "+name+"\n", "psftp", append(append([]string{}, putty...), "-b", "/dev/stdin", "admin@127.0.0.1")...)
		}, true},
		{"pscp", func() (string, error) {
			return g.client("", "pscp", append(append([]string{}, putty...), "admin@127.0.0.1:export.rsc", "got.rsc")...)
		}, func(name string) (string, error) {
			return g.client("", "pscp", append(append([]string{}, putty...), name, "admin@127.0.0.1:"+name)...)
		}, true},
		{"paramiko", func() (string, error) {
			return g.paramiko(`sftp.get("export.rsc", "got.rsc")`)
		}, func(name string) (string, error) {
			return g.paramiko(`print(sftp.put("` + name + `", "` + name + `"))`)
		}, true},
		{"asyncssh", func() (string, error) {
			return g.asyncssh(`await sftp.get("export.rsc", "got.rsc")`)
		}, func(name string) (string, error) {
			return g.asyncssh(`await sftp.put("` + name + `")`)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := filepath.Join(g.home, "got.rsc")
			_ = os.Remove(got)
			_, err := c.get()
			require.NoError(t, err)
			text, err := os.ReadFile(got)
			require.NoError(t, err)
			assert.Equal(t, settingsOf(g.must("/export")), settingsOf(string(text)))
			// A file of several packets.
			lines := strings.Repeat("# "+strings.Repeat("x", 100)+"\n", 1000)
			g.save("long.auto.rsc", lines+"/system identity set name="+c.name+"\n")
			_, err = c.put("long.auto.rsc")
			require.NoError(t, err)
			assert.Equal(t, c.name, g.identity())
			g.save("bad.auto.rsc", "/system identity set name=bad\n/nothing\n")
			out, _ := c.put("bad.auto.rsc") // PuTTY ends with 0
			assert.Contains(t, out, "(line 2 column 2)")
			assert.Equal(t, c.name, g.identity())
		})
	}
}

// SSHFS shows the router's files as a folder, which the usual programs use.
func TestSSHFS(t *testing.T) {
	g := newSFTPRig(t)
	e2e.Root(t)
	e2e.Needs(t, "/dev/fuse")
	folder := filepath.Join(g.home, "router")
	require.NoError(t, os.Mkdir(folder, 0o755))
	_, err := g.client(sftpPassword+"\n", "sshfs", "admin@127.0.0.1:/", folder, "-p", "PORT", "-F", "/dev/null",
		"-o", "password_stdin,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,PubkeyAuthentication=no,LogLevel=ERROR")
	require.NoError(t, err)
	t.Cleanup(func() {
		out, err := exec.Command("fusermount", "-u", folder).CombinedOutput()
		assert.NoError(t, err, string(out))
	})
	sh := func(line string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", line)
		cmd.Dir = folder
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", line, out)
		return string(out)
	}
	assert.Equal(t, settingsOf(g.must("/export")), settingsOf(sh("cat export.rsc")))
	assert.Equal(t, "# one\n# two\n", sh("echo '# one' > a.rsc; echo '# two' >> a.rsc; cat a.rsc"))
	assert.Equal(t, "# One\n# two\n", sh("cp a.rsc b.rsc; mv b.rsc c.rsc; sed -i s/one/One/ c.rsc; cat c.rsc"))
	assert.Equal(t, "export-sensitive.rsc\nexport.rsc\n", sh("rm a.rsc c.rsc; ls"))
	sh("echo '/system identity set name=sshfs' > x.auto.rsc")
	// It closes what it has written when nobody waits for that any more.
	require.Eventually(t, func() bool { return g.identity() == "sshfs" }, time.Minute, 10*time.Millisecond)
	sh("cp " + g.save("image", string(g.image)) + " sysupgrade.img")
	require.Eventually(t, func() bool {
		states, err := g.r.slots()
		return err == nil && states[1].State == "untried"
	}, time.Minute, 10*time.Millisecond)
}

// paramiko runs a line of Python with a client of SFTP.
func (g *sftpRig) paramiko(line string) (string, error) {
	g.Helper()
	e2e.Needs(g, "/usr/lib/python3/dist-packages/paramiko")
	return g.client("", "/usr/bin/python3", "-W", "ignore", "-c", `import paramiko
c = paramiko.SSHClient()
c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
c.connect("127.0.0.1", PORT, "admin", "`+sftpPassword+`", allow_agent=False, look_for_keys=False)
sftp = c.open_sftp()
`+line+`
c.close()
`)
}

// asyncssh runs a line of Python with another client of SFTP.
func (g *sftpRig) asyncssh(line string) (string, error) {
	g.Helper()
	e2e.Needs(g, "/usr/lib/python3/dist-packages/asyncssh")
	return g.client("", "/usr/bin/python3", "-W", "ignore", "-c", `import asyncio, asyncssh
async def main():
    async with asyncssh.connect("127.0.0.1", PORT, username="admin", password="`+sftpPassword+`", known_hosts=None, client_keys=None, config=None) as c:
        assert (await c.run("/system identity print")).stdout.startswith("  name: ")
        async with c.start_sftp_client() as sftp:
            `+line+`
asyncio.run(main())
`)
}

// serveFiles begins a session of SFTP on PID 1's side, as package sshd does.
func serveFiles(t *testing.T, r *Router, user string, first bool) (*files.Client, net.Conn) {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.serveFiles(far, session.Origin{Via: viaSSH, Address: netip.MustParseAddr("192.168.0.2")}, user, 1, first)
	}()
	t.Cleanup(func() {
		near.Close()
		<-done
	})
	return files.NewClient(near), near
}

// Who has logged in without a password has no files, nor has one session more than there may be.
func TestFilesRefused(t *testing.T) {
	g := newSFTPRig(t)
	c, _ := serveFiles(t, g.r, console.Admin, true)
	_, err := c.List()
	require.EqualError(t, err, "failure: set a password first: by a shell, or the page")
	require.Error(t, c.Put("x", nil))
	g.r.networkSessions.Store(maxNetworkSessions)
	c, _ = serveFiles(t, g.r, "writer", false)
	_, err = c.Read("export.rsc")
	require.EqualError(t, err, "failure: 8 sessions are there over the network, and there can be no more")
	c, _ = serveFiles(t, g.r, console.Admin, false)
	_, err = c.Read("export.rsc")
	require.NoError(t, err)
}

// The router holds so many files and bytes, and who loses a policy in a session has lost it there.
func TestFileBounds(t *testing.T) {
	g := newSFTPRig(t)
	c, _ := serveFiles(t, g.r, "writer", false)
	require.ErrorContains(t, c.Put("long", make([]byte, fileRoom+1)), "longer than 262144 bytes")
	require.NoError(t, c.Put("long", make([]byte, fileRoom)))
	require.NoError(t, c.Put("long", make([]byte, fileRoom)), "in its own place")
	require.ErrorContains(t, c.Put("more", []byte("x")), "all files would have 262145 bytes, and there is room for 262144: /file remove")
	require.NoError(t, c.Rename("long", "longer"))
	require.NoError(t, c.Remove("longer"))
	for i := range maxFiles {
		require.NoError(t, c.Put(fmt.Sprint("f", i), nil))
	}
	require.ErrorContains(t, c.Put("more", nil), "there are 32 files, and there can be no more")
	require.NoError(t, c.Rename("f0", "f1"), "in the place of the other")
	require.NoError(t, c.Put("more", nil))
	for _, name := range []string{exportFile, sensitiveFile} {
		require.ErrorContains(t, c.Put(name, nil), "is made by the router")
		require.ErrorContains(t, c.Rename("f1", name), "is made by the router")
	}
	require.ErrorContains(t, c.Rename("f1", "f1.img"), "write that to a name which ends with .img")
	require.ErrorIs(t, c.Rename("none", "f1"), files.ErrNotThere)
	require.ErrorIs(t, c.Remove("none"), files.ErrNotThere)
	all, err := c.List()
	require.NoError(t, err)
	assert.Len(t, all, maxFiles+2)

	require.NoError(t, c.Create("f2"))
	g.must("/user group set files policy=ssh,ftp,read")
	require.ErrorIs(t, c.Commit(), console.ErrNotPermitted)
	require.ErrorIs(t, c.Remove("f1"), console.ErrNotPermitted)
	require.ErrorIs(t, c.Rename("f1", "f2"), console.ErrNotPermitted)
	_, err = c.Read(sensitiveFile)
	require.ErrorIs(t, err, console.ErrNotPermitted)
	_, err = c.Read("f1")
	require.NoError(t, err)
	g.must("/user group set files policy=ssh,read")
	_, err = c.List()
	require.ErrorIs(t, err, console.ErrNotPermitted)
	_, err = c.Read(exportFile)
	require.ErrorIs(t, err, console.ErrNotPermitted)
}

// An upload that breaks off leaves no image, and the next one is possible.
func TestImageUploadEnds(t *testing.T) {
	g := newSFTPRig(t)
	c, conn := serveFiles(t, g.r, console.Admin, false)
	require.NoError(t, c.Create("a.img"))
	require.NoError(t, c.Append(g.image[:20_000]))
	other, _ := serveFiles(t, g.r, console.Admin, false)
	require.ErrorContains(t, other.Create("b.img"), "an upgrade is under way")
	conn.Close()
	require.Eventually(t, func() bool {
		return strings.Contains(g.said(), "a.img: failure: the upload was not finished; the present version stays")
	},
		time.Minute, time.Millisecond)
	states, err := g.r.slots()
	require.NoError(t, err)
	assert.Equal(t, []string{"confirmed", "empty"}, []string{states[0].State, states[1].State})
	unclosed, conn := serveFiles(t, g.r, console.Admin, false)
	require.NoError(t, unclosed.Create("c.img"))
	for at := 0; at < len(g.image); at += 10_000 {
		require.NoError(t, unclosed.Append(g.image[at:min(at+10_000, len(g.image))]))
	}
	conn.Close()
	require.Eventually(t, func() bool {
		return strings.Contains(g.said(), "c.img: failure: the upload was not finished; the present version stays")
	}, time.Minute, time.Millisecond, "all of it is there, but nobody has said so")
	states, err = g.r.slots()
	require.NoError(t, err)
	assert.NotEqual(t, "untried", states[1].State)
	require.NoError(t, other.Create("b.img.filepart"), "as WinSCP calls it")
	require.NoError(t, other.Append(g.image[:10_000]))
	require.NoError(t, other.Abort())
	require.NoError(t, other.Create("b.img.filepart"))
	for at := 0; at < len(g.image); at += 10_000 {
		require.NoError(t, other.Append(g.image[at:min(at+10_000, len(g.image))]))
	}
	require.NoError(t, other.Commit())
	states, err = g.r.slots()
	require.NoError(t, err)
	assert.Equal(t, "untried", states[1].State)
}

// An upload that stands still is ended, so that another upgrade can begin, and the log is told.
func TestIdleImageUpload(t *testing.T) {
	g := newSFTPRig(t)
	other, _ := serveFiles(t, g.r, console.Admin, false)
	g.r.imagePause = 50 * time.Millisecond
	c, _ := serveFiles(t, g.r, console.Admin, false)
	require.NoError(t, c.Create("a.img"))
	require.Eventually(t, func() bool {
		return strings.Contains(g.said(), "a.img: failure: the upload was ended: nothing came for 50ms; the present version stays")
	}, time.Minute, time.Millisecond)
	g.r.imagePause = imagePause
	require.NoError(t, other.Create("b.img"))
	require.NoError(t, other.Abort())
	require.NoError(t, c.Append(g.image[:10_000]), "a piece waits for the next one")
	require.ErrorContains(t, c.Append(g.image[10_000:20_000]), "nothing came for 50ms")
}

// What takes the place of a file while that is imported by another name was not imported, and stays.
func TestReplacedWhileImported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		f := &fileSession{r: g.r, s: &session.Session{Session: console.Session{User: console.Admin}}}
		put := func(address string) {
			require.NoError(t, g.r.files.put(f.user(), "new.rsc", "/ip address add interface=ether2 address="+address+"\n"))
		}
		put("10.9.0.1/24")
		imported := make(never)
		g.network.hangs = imported
		done := make(chan error)
		go func() { done <- f.rename("new.rsc", "new.auto.rsc") }()
		synctest.Wait() // for the network
		put("10.9.0.2/24")
		close(imported)
		require.NoError(t, <-done)
		require.Len(t, g.network.config.Addresses, 1)
		assert.Equal(t, "10.9.0.1/24", g.network.config.Addresses[0].Address.String())
		k, err := g.r.files.get(f.user(), "new.rsc")
		require.NoError(t, err)
		assert.Contains(t, k.content, "10.9.0.2/24")
		require.NoError(t, f.rename("new.rsc", "new.auto.rsc"))
		assert.Empty(t, g.r.files.list())
	})
}

// Names of files are the console's too, and programs can import.
func TestFilesInConsole(t *testing.T) {
	g := newSFTPRig(t)
	by := &session.Session{Session: console.Session{User: "writer"}}
	_, err := g.run(by, "/export file=mine; /export file=other.rsc")
	require.NoError(t, err)
	assert.Regexp(t, `(?s) 0 mine.rsc +script .* writer\n 1 other.rsc +script .* writer\n$`, g.must("/file print"))
	_, err = g.run(&session.Session{Session: console.Session{User: "looker"}}, "/file remove mine.rsc")
	require.ErrorIs(t, err, console.ErrNotPermitted)
	g.must("/export file=admins")
	_, err = g.run(by, "/system identity set name=lost; /file remove [find]")
	require.ErrorIs(t, err, console.ErrNotPermitted)
	assert.NotEqual(t, "lost", g.identity(), "a line that fails changes nothing")
	assert.Equal(t, "3\n", g.must("/file print count-only"), "all or none")
	_, err = g.run(by, "/file remove mine.rsc,other.rsc")
	require.NoError(t, err)
	for _, name := range []string{"bad/name", "export", "admins"} {
		_, err = g.run(by, "/system identity set name=lost; /export file="+name)
		require.Error(t, err)
		assert.NotEqual(t, "lost", g.identity(), "a line that fails changes nothing: %s", name)
	}
	require.NoError(t, g.r.files.put(fileUser{name: "writer"}, "x.rsc", "/system identity set name=x\n"))
	h := g.r.programHandler(by)
	result, err := h.Do("", "import", []console.Argument{{Name: "file-name", Value: "/x.rsc"}})
	require.NoError(t, err)
	require.NoError(t, h.Finish(t.Context(), result, io.Discard))
	assert.Equal(t, "x", g.identity())
	result, err = h.Do("", "import", []console.Argument{{Name: "file-name", Value: "admins.rsc"}})
	require.NoError(t, err)
	require.ErrorIs(t, h.Finish(t.Context(), result, io.Discard), console.ErrNotPermitted)
	result, err = h.Do("", "import", nil)
	require.NoError(t, err)
	require.ErrorIs(t, h.Finish(t.Context(), result, io.Discard), errAsksPerson)
	guest := g.connectAs(session.Origin{Via: viaSSH}, console.Admin, 1, false)
	guest.prompt()
	assert.Contains(t, guest.run("/import x.rsc"), "Script file loaded and executed successfully\n")
	assert.Contains(t, guest.run("/import none"), "failure: no such file: none; /file print lists those that there are; nothing was changed\n")
}

// What lines show is not for all who read the log.
func TestImportKeepsSecretsFromLog(t *testing.T) {
	g := newSFTPRig(t)
	c, _ := serveFiles(t, g.r, console.Admin, false)
	require.NoError(t, c.Put("x.auto.rsc", []byte("/user export show-sensitive\n")))
	assert.Contains(t, g.said(), "of x.auto.rsc: executed successfully")
	assert.NotContains(t, g.said(), "argon2")
}
