package web

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseObject(t *testing.T) {
	all, err := parseObject(" {\"a\":\"x\\\"\\\\\\/\\b\\f\\n\\r\\t\\u20AC\\ud83d\\ude00\\ud83d\", \"b\" : -1.5e+3 ,\"c\":true,\"d\":false,\"e\":[],\"f\":[ \"x\" , 1 ]}\n")
	require.NoError(t, err)
	assert.Equal(t, []member{{name: "a", text: "x\"\\/\b\f\n\r\t€😀\uFFFD"}, {name: "b", text: "-1.5e+3"}, {name: "c", text: "yes"}, {name: "d", text: "no"},
		{name: "e", isList: true}, {name: "f", list: []string{"x", "1"}, isList: true}}, all)
	for _, text := range []string{"", " ", "{}", "{ }"} {
		all, err := parseObject(text)
		assert.NoError(t, err, text)
		assert.Empty(t, all, text)
	}
	many := strings.Repeat(`"a",`, maxElements)
	for _, text := range []string{
		"{", "[]", "1", `"a"`, "{}{}", "{} x", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `{a:1}`, `{"a":{}}`, `{"a":[[]]}`, `{"a":[1,]}`, `{"a":[1`,
		`{"a":null}`, `{"a":True}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":-}`, `{"a":1e}`, `{"a":+1}`, `{"a":0x1}`, `{"a":"`, `{"a":"\`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`,
		"{\"a\":\"\n\"}", "{\"a\":\"\x00\"}", `{"a":1,"a":2}`, `{"a":[` + many + `"a"]}`, strings.Repeat(`{"a":`, 10000), "\ufeff{}",
	} {
		_, err := parseObject(text)
		assert.Error(t, err, text[:min(len(text), 40)])
	}
}

// What is read as an object is read as the same one by encoding/json, and what is written as a string too.
func FuzzJSON(f *testing.F) {
	f.Add(`{"a":"x\u20ac","b":[1,true,"y"],"c":-1.5e3}`)
	f.Add(`{"a":"\ud83d\ude00\ud83d"}`)
	f.Add("{\"a\":\"\xff\"}")
	f.Fuzz(func(t *testing.T, text string) {
		var back string
		require.NoError(t, json.Unmarshal(appendString(nil, text), &back))
		// The character that stands for what is no UTF-8 is left out on both sides.
		without := func(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\uFFFD", "") }
		assert.Equal(t, without(text), without(back))
		all, err := parseObject(text)
		if err != nil || all == nil {
			return
		}
		other := map[string]any{}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		require.NoError(t, d.Decode(&other), text)
		assert.LessOrEqual(t, len(other), len(all)) // names that are no UTF-8 can become equal
		for _, m := range all {
			assert.True(t, utf8.ValidString(m.name) && utf8.ValidString(m.text))
			if v, ok := other[m.name].(string); ok && !m.isList && len(other) == len(all) && utf8.ValidString(text) {
				assert.Equal(t, v, m.text)
			}
		}
	})
}
