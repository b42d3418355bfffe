package sshd

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	protocol "golang.org/x/crypto/ssh"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/ssh"
)

// newRSAKey makes a key of so many bits in a folder and returns its file and what a user would add.
func newRSAKey(t *testing.T, bits string) (path string, public ssh.PublicKey) {
	t.Helper()
	e2e.Needs(t, "ssh-keygen")
	path = filepath.Join(t.TempDir(), "rsa")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "rsa", "-b", bits, "-N", "", "-m", "PEM", "-f", path).CombinedOutput()
	require.NoError(t, err, string(out))
	text, err := os.ReadFile(path + ".pub")
	require.NoError(t, err)
	public, err = ssh.ParseKey(string(text))
	require.NoError(t, err)
	return path, public
}

// A user comes in by an RSA key, with signatures of SHA-2 alone.
func TestRSAKeys(t *testing.T) {
	for _, bits := range []string{"2048", "4096"} {
		t.Run(bits, func(t *testing.T) {
			path, public := newRSAKey(t, bits)
			g := newRig(t, nil)
			g.mu.Lock()
			g.rsa = public.Key
			g.mu.Unlock()
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			key, err := protocol.ParsePrivateKey(text)
			require.NoError(t, err)
			dial := func(key protocol.Signer, algorithms ...string) error {
				signer, err := protocol.NewSignerWithAlgorithms(key.(protocol.AlgorithmSigner), algorithms)
				require.NoError(t, err)
				config := g.clientConfig()
				config.Auth = []protocol.AuthMethod{protocol.PublicKeys(signer)}
				c, err := protocol.Dial("tcp4", g.address(), config)
				if err == nil {
					c.Close()
				}
				return err
			}
			require.NoError(t, dial(key, protocol.KeyAlgoRSASHA256))
			require.NoError(t, dial(key, protocol.KeyAlgoRSASHA512))
			require.ErrorContains(t, dial(key, protocol.KeyAlgoRSA), "unable to authenticate")
			if bits == "2048" {
				path, _ := newRSAKey(t, bits)
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				other, err := protocol.ParsePrivateKey(text)
				require.NoError(t, err)
				require.ErrorContains(t, dial(other, protocol.KeyAlgoRSASHA256), "unable to authenticate", "another key")
				require.Error(t, dial(liar{other, key.PublicKey()}, protocol.KeyAlgoRSASHA256), "another's key")
			}
			client := g.client("", "-i", path, console.Admin+"@127.0.0.1", "/system identity print")
			client.Args = without(client.Args, "key") // the user's other
			out, status := g.run(client)
			assert.Equal(t, "  name: postern\r\n", out)
			assert.Zero(t, status)
		})
	}
}

// liar says that it has a key that it has not.
type liar struct {
	protocol.Signer
	public protocol.PublicKey
}

func (l liar) PublicKey() protocol.PublicKey { return l.public }

func (l liar) SignWithAlgorithm(r io.Reader, data []byte, algorithm string) (*protocol.Signature, error) {
	return l.Signer.(protocol.AlgorithmSigner).SignWithAlgorithm(r, data, algorithm)
}

// without leaves the option -i with a file of that name out.
func without(args []string, name string) []string {
	for i := range args[:len(args)-1] {
		if args[i] == "-i" && strings.HasSuffix(args[i+1], "/"+name) {
			return append(append([]string{}, args[:i]...), args[i+2:]...)
		}
	}
	return args
}
