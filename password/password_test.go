package password_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/password"
)

func TestPassword(t *testing.T) {
	one, err := password.New("secret")
	require.NoError(t, err)
	two, err := password.New("secret")
	require.NoError(t, err)
	assert.NotEqual(t, one, two, "each has its own salt")
	for _, s := range []string{one, two} {
		h, err := password.Parse(s)
		require.NoError(t, err)
		assert.Equal(t, s, h.String())
		assert.True(t, h.Matches("secret"))
		for _, wrong := range []string{"", "Secret", "secret ", strings.Repeat("secret", 10)} {
			assert.False(t, h.Matches(wrong), wrong)
		}
	}
	// It can be kept: the language takes it, and reads back what it wrote.
	config := console.Default()
	config.SetPassword(console.Admin, one)
	require.NoError(t, console.Validate(config, nil))
	again, err := console.Load("kept", strings.NewReader(console.Export(config)))
	require.NoError(t, err)
	assert.Equal(t, one, again.Users[0].Password)
}

// A hash that another program made: the reference implementation's command
// `printf password | argon2 somesalt -id -t 2 -k 256 -p 1 -e`.
const foreignHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

func TestPasswordOfAnother(t *testing.T) {
	h, err := password.Parse(foreignHash)
	require.NoError(t, err)
	assert.True(t, h.Matches("password"))
	assert.False(t, h.Matches("passwort"))
}

// The hash that no password has is one that can be checked, and takes as long.
func TestNever(t *testing.T) {
	h, err := password.Parse(password.Never)
	require.NoError(t, err)
	assert.Equal(t, password.Never, h.String())
	assert.False(t, h.Matches(""))
	other, err := password.New("x")
	require.NoError(t, err)
	cost := func(hash string) string { return strings.Join(strings.Split(hash, "$")[:4], "$") }
	assert.Equal(t, cost(other), cost(password.Never))
	assert.Len(t, password.Never, len(other))
}

func TestParse(t *testing.T) {
	const salt, key = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, test := range []struct{ name, hash, want string }{
		{"empty", "", "another kind of hash"},
		{"of another kind", "$argon2i$v=19$m=256,t=2,p=1$" + salt + "$" + key, "another kind of hash"},
		{"of another version", "$argon2id$v=16$m=256,t=2,p=1$" + salt + "$" + key, "another kind of hash"},
		{"too long", foreignHash + "$x", "another kind of hash"},
		{"no cost", "$argon2id$v=19$$" + salt + "$" + key, "cost cannot be read"},
		{"zeros before the cost", "$argon2id$v=19$m=0256,t=2,p=1$" + salt + "$" + key, "cost cannot be read"},
		{"more behind the cost", "$argon2id$v=19$m=256,t=2,p=1,x$" + salt + "$" + key, "cost cannot be read"},
		{"too much memory", "$argon2id$v=19$m=4097,t=2,p=1$" + salt + "$" + key, "m=8..4096"},
		{"all memory", "$argon2id$v=19$m=4294967295,t=2,p=1$" + salt + "$" + key, "m=8..4096"},
		{"no memory", "$argon2id$v=19$m=7,t=2,p=1$" + salt + "$" + key, "m=8..4096"},
		{"for ever", "$argon2id$v=19$m=256,t=11,p=1$" + salt + "$" + key, "t=1..10"},
		{"no pass", "$argon2id$v=19$m=256,t=0,p=1$" + salt + "$" + key, "t=1..10"},
		{"lanes", "$argon2id$v=19$m=256,t=2,p=2$" + salt + "$" + key, "p=1"},
		{"short salt", "$argon2id$v=19$m=256,t=2,p=1$c29t$" + key, "salt is not"},
		{"salt with padding", "$argon2id$v=19$m=256,t=2,p=1$" + salt + "=$" + key, "salt is not"},
		{"no key", "$argon2id$v=19$m=256,t=2,p=1$" + salt + "$", "key is not"},
		{"a long key", "$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + strings.Repeat("A", 100), "key is not"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := password.Parse(test.hash)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// What is read is written as it was.
func FuzzParse(f *testing.F) {
	f.Add(foreignHash)
	f.Add("$argon2id$v=19$m=2048,t=3,p=1$AAAA$BBBB")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := password.Parse(s); err == nil {
			assert.Equal(t, s, h.String())
		}
	})
}

func BenchmarkPassword(b *testing.B) {
	for b.Loop() {
		_, err := password.New("secret")
		require.NoError(b, err)
	}
}
