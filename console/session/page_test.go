package session

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFirstRows(t *testing.T) {
	for _, test := range []struct {
		text          string
		columns, rows int
		want          string
	}{
		{"", 10, 3, ""},
		{"a\nb\nc\nd\n", 10, 3, "a\nb\nc\n"},
		{"a\nb\nc\nd\n", 0, 3, "a\nb\nc\n"},
		{"0123456789a\nb\nc\n", 10, 3, "0123456789a\nb\n"},
		{"0123456789\nb\nc\nd\n", 10, 3, "0123456789\nb\nc\n"},
		{"éééééééééé\nb\nc\nd\n", 10, 3, "éééééééééé\nb\nc\n"},
		{"\n\n\n\n", 10, 2, "\n\n"},
		{strings.Repeat("x", 100) + "\nb\n", 10, 3, strings.Repeat("x", 100) + "\n"}, // at least one line
		{"a\nb", 10, 2, "a\nb"},
	} {
		assert.Equal(t, test.want, test.text[:firstRows(test.text, test.columns, test.rows)], "%q", test.text)
	}
}
