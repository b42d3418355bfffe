package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNote(t *testing.T) {
	for _, test := range []struct{ line, note, export, err string }{
		{"", "", "", ""},
		{"/system note set note=hello", "hello\n", "/system note\nset note=hello\n", ""},
		{`/system note set note="two\r\nlines\n\n"`, "two\nlines\n", "/system note\nset note=\"two\\r\\nlines\\n\\n\"\n", ""},
		{`/system note set note="a\tb\n\t12345678\tc"`, "a       b\n        12345678        c\n", "/system note\nset note=\"a\\tb\\n\\t12345678\\tc\"\n", ""},
		{`/system note set note="T\FCr"`, "T\\FCr\n", "/system note\nset note=\"T\\FCr\"\n", ""},
		{"/system note set note=hidden show-at-login=no", "", "/system note\nset note=hidden show-at-login=no\n", ""},
		{"/system note set show-at-cli-login=no show-at-login=yes", "", "", ""},
		{`/system note set note=a; /system note unset note`, "", "", ""},
		{"/system note set show-at-cli-login=yes", "", "", "Postern has no show-at-cli-login=yes (line 1 column 18); expected show-at-cli-login=no"},
		{`/system note set note="\1B[2J"`, "", "", "invalid value for argument note"},
		{"/system note set note=" + strings.Repeat("x", 1025), "", "", "expected printable string: 0..1024 bytes"},
	} {
		result, err := new(Session).Execute(Default(), fullLive(), test.line)
		if test.err != "" {
			require.ErrorContains(t, err, test.err, test.line)
			continue
		}
		require.NoError(t, err, test.line)
		assert.Equal(t, test.note, result.Config.LoginNote(), test.line)
		assert.Equal(t, test.export, Export(result.Config), test.line)
		again, err := Load("note", strings.NewReader(Export(result.Config)))
		require.NoError(t, err)
		assert.Equal(t, test.export, Export(again))
	}
	result, err := new(Session).Execute(Default(), fullLive(), `/system note set note="Authorised people only\nCall 112"; /system note print`)
	require.NoError(t, err)
	assert.Equal(t, `           note: Authorised people only\nCall 112
  show-at-login: yes
`, result.Output)
}
