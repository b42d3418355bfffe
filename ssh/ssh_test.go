package ssh_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ssh"
)

// By ssh-keygen -t ed25519 -C me@home and ssh-keygen -l.
const (
	value       = "AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"
	fingerprint = "SHA256:Nq7dFSWq8VY3ZWg2pErOYsO6AB7ouaHiQS1KiKyOthE"
)

func TestParseKey(t *testing.T) {
	k, err := ssh.ParseKey(" ssh-ed25519  " + value + " me@home \n")
	require.NoError(t, err)
	assert.Equal(t, "ssh-ed25519 "+value+" me@home", k.String())
	assert.Len(t, k.Key, ssh.KeySize)
	assert.Equal(t, fingerprint, k.Fingerprint())
	k, err = ssh.ParseKey("ssh-ed25519 " + value)
	require.NoError(t, err)
	assert.Equal(t, "ssh-ed25519 "+value, k.String())
	assert.Empty(t, ssh.PublicKey{}.String())
	for text, want := range map[string]string{
		"":            "a key has a type and, behind a blank, its value",
		"ssh-ed25519": "a key has a type and, behind a blank, its value",
		"ssh-dss AAAAB3NzaC1kc3MAAAADAQABAAABgQ== me":     "the type of a key must be ssh-ed25519 or ssh-rsa",
		"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ== me":     "the value of the key is not that of ssh-rsa, with a modulus of 2048..4096 bits",
		"ssh-rsa " + value:                                "the value of the key is not that of ssh-rsa",
		"ssh-rsa AAAA":                                    "the value of the key is not that of ssh-rsa",
		"ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAABgQ==":    "the value of the key is not that of ssh-ed25519",
		"ssh-ed25519 " + value[:60]:                       "the value of the key is not that of ssh-ed25519",
		"ssh-ed25519 " + value[:61]:                       "the value of the key is not base64, or a part of it is missing",
		"ssh-ed25519 AAAAB3NzaC1kc3MAAAADAQABAAABgQ==":    "the value of the key is not that of ssh-ed25519",
		"ssh-ed25519 " + value + " \x1b[2J":               "the name behind the key must have at most 64 printable characters",
		"ssh-ed25519 " + value + strings.Repeat(" x", 40): "the name behind the key must have at most 64 printable characters",
	} {
		_, err := ssh.ParseKey(text)
		assert.EqualError(t, err, want, text)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("ssh-ed25519 " + value + " me@home")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ssh.ParseKey(text)
		if err != nil {
			return
		}
		again, err := ssh.ParseKey(k.String())
		require.NoError(t, err)
		require.Equal(t, k, again)
	})
}
