package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
)

// rowsOf are the rows of a menu of a configuration in the API's form.
func rowsOf(t *testing.T, text, path string) []row {
	cfg := configured(t, text)
	found, err := console.Query(cfg, console.Live{}, path, nil, nil)
	require.NoError(t, err)
	var rows []row
	for _, r := range found {
		rows = append(rows, newRow(path, r))
	}
	return rows
}

// configured is the configuration that lines make.
func configured(t testing.TB, text string) console.Config {
	cfg, err := console.Load("test", strings.NewReader(text))
	require.NoError(t, err)
	return cfg
}

func TestQuery(t *testing.T) {
	r := row{id: 0x1F, properties: rowsOf(t, `/ip dhcp-server add name=home interface=ether2 lease-time=1h disabled=yes comment="the house"`, "ip dhcp-server")[0].properties}
	route := rowsOf(t, "/ip route add dst-address=10.0.0.0/8 gateway=192.168.0.9 distance=10", "ip route")[0]
	for _, c := range []struct {
		query []string
		of    row
		want  bool
	}{
		{nil, r, true},
		{[]string{"?name"}, r, true},
		{[]string{"?nothing"}, r, false},
		{[]string{"?-nothing"}, r, true},
		{[]string{"?-name"}, r, false},
		{[]string{"?name=home"}, r, true},
		{[]string{"?=name=home"}, r, true},
		{[]string{"?name=Home"}, r, false},
		{[]string{"?name=hom"}, r, false},
		{[]string{"?comment=the house"}, r, true},
		{[]string{"?>comment="}, r, true},
		{[]string{"?>nothing="}, r, false},
		{[]string{"?nothing="}, r, true},
		{[]string{"?nothing=x"}, r, false},
		// Both spellings of truth.
		{[]string{"?disabled=yes"}, r, true},
		{[]string{"?disabled=true"}, r, true},
		{[]string{"?=disabled=no"}, r, false},
		{[]string{"?disabled=false"}, r, false},
		// By value.
		{[]string{"?lease-time=1h"}, r, true},
		{[]string{"?lease-time=60m"}, r, true},
		{[]string{"?lease-time=01:00:00"}, r, true},
		{[]string{"?<lease-time=90m"}, r, true},
		{[]string{"?>lease-time=9m"}, r, true},
		{[]string{"?>lease-time=1h"}, r, false},
		{[]string{"?<distance=9"}, route, false},
		{[]string{"?<distance=11"}, route, true},
		{[]string{"?>distance=9"}, route, true},
		{[]string{"?distance=010"}, route, true},
		{[]string{"?>gateway=192.168.0.10"}, route, false},
		{[]string{"?<gateway=192.168.0.10"}, route, true},
		{[]string{"?>dst-address=9.0.0.0/8"}, route, true},
		{[]string{"?dst-address=10.0.0.0"}, route, false},
		{[]string{"?.id=*1F"}, r, true},
		{[]string{"?.id=*1f"}, r, true},
		{[]string{"?=.id=*1E"}, r, false},
		// The stack. Words side by side all have to be true.
		{[]string{"?name=home", "?nothing"}, r, false},
		{[]string{"?name=home", "?nothing", "?#|"}, r, true},
		{[]string{"?name=home", "?nothing", "?#&"}, r, false},
		{[]string{"?nothing", "?#!"}, r, true},
		{[]string{"?name=a", "?name=b", "?#|!"}, r, true},
		{[]string{"?name=a", "?name=home", "?#|!"}, r, false},
		{[]string{"?name=a", "?name=b", "?name=home", "?#||"}, r, true},
		{[]string{"?name=a", "?name=home", "?disabled=yes", "?#&|"}, r, true},
		{[]string{"?name=home", "?nothing", "?#1"}, r, true},     // replaces all by the one below the top
		{[]string{"?name=home", "?nothing", "?#0"}, r, false},    // and by the top
		{[]string{"?nothing", "?name=home", "?#1.|"}, r, false},  // false, true|false copied: the first stays
		{[]string{"?nothing", "?name=home", "?#1!&&!"}, r, true}, // a copy of the false, negated; false & true & true, negated
		{[]string{"?nothing", "?#!.&"}, r, true},                 // a copy of the top
		{[]string{"?#!"}, r, false},                              // there is a true below all
		{[]string{"?#!!"}, r, true},
		{[]string{"?#99999999999999999999"}, r, true},
		{[]string{"?name=home", "?#|"}, r, true},
		{[]string{"?nothing", "?#|"}, r, true},
	} {
		q, err := parseQuery(c.query)
		require.NoError(t, err, c.query)
		assert.Equal(t, c.want, q.matches(c.of), c.query)
	}
	many := make([]string, maxSteps+1)
	for i := range many {
		many[i] = "?name"
	}
	for _, bad := range [][]string{{"?"}, {"?-"}, {"?=name"}, {"?<name"}, {"?=="}, {"?#x"}, {"?#|?"}, many} {
		_, err := parseQuery(bad)
		assert.Error(t, err, bad)
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("?name=a", "?<mtu=1500", "?#|!")
	f.Add("?-x", "?#1.0", "?#0.1.2&")
	f.Add("?.id=*1", "?=disabled=yes", "?#!!..")
	r := row{id: 1, properties: []property{{name: "name", text: "a"}, {name: "mtu", text: "1500"}}}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		q, err := parseQuery([]string{"?" + a, "?" + b, "?#" + c})
		if err != nil {
			return
		}
		var s stack
		for _, step := range q {
			if step.test == '#' {
				s.operate(step.value)
			}
		}
		if len(s) > maxOperations+maxSteps {
			t.Fatalf("%d values", len(s))
		}
		_ = q.matches(r)
	})
}
