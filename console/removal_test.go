package console

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/socks"
)

// numberedConnections is a system whose SOCKS server has connections with these numbers, from
// clients with these ports.
func numberedConnections(numbers *[]uint64) Live {
	l := fullLive()
	l.Connections = func() ([]socks.Connection, error) {
		var all []socks.Connection
		for _, n := range *numbers {
			c := connection("192.168.0.2:1238", "10.5.8.8:21", 0, 0)
			c.Number, c.UserID = n, "even"
			if n%2 == 1 {
				c.UserID = "odd"
			}
			all = append(all, c)
		}
		return all, nil
	}
	return l
}

// What a line removes is what the last print showed, whatever has come or gone since.
func TestRemoveConnections(t *testing.T) {
	for _, test := range []struct {
		name    string
		before  string // a line before
		now     []uint64
		line    string
		removed []uint64
		output  string
		err     string
	}{
		{name: "by number", before: "/ip socks connections print", now: []uint64{3, 4, 5}, line: "/ip socks connections remove 1", removed: []uint64{4}},
		{name: "by number without a print", now: []uint64{3, 4, 5}, line: "/ip socks connections remove 0", removed: []uint64{3}},
		{name: "a list and a range", before: "/ip socks connections print", now: []uint64{3, 4, 5, 6, 7}, line: "/ip/socks/connections/remove 0,1-2",
			removed: []uint64{3, 4, 5}},
		{name: "twice the same", before: "/ip socks connections print", now: []uint64{3, 4, 5}, line: "/ip socks connections remove 1,1", removed: []uint64{4}},
		{name: "what print showed under conditions", before: "/ip socks connections print where user-id=odd", now: []uint64{3, 4, 5},
			line: "/ip socks connections remove 1", removed: []uint64{5}},
		{name: "the first has ended since", before: "/ip socks connections print", now: []uint64{4, 5, 6}, line: "/ip socks connections remove 1",
			removed: []uint64{4}},
		{name: "it has ended itself", before: "/ip socks connections print", now: []uint64{4, 5}, line: "/ip socks connections remove 0",
			err: "no such item: 0"},
		{name: "there were not so many", before: "/ip socks connections print", now: []uint64{3, 4, 5, 6}, line: "/ip socks connections remove 3",
			err: "no such item: 3"},
		{name: "found", now: []uint64{3, 4, 5}, line: "/ip socks connections remove [find user-id=odd]", removed: []uint64{3, 5}},
		{name: "all", now: []uint64{3, 4, 5}, line: "/ip socks connections remove [find]", removed: []uint64{3, 4, 5}},
		{name: "none found", now: []uint64{3, 4, 5}, line: "/ip socks connections remove [find user-id=nobody]"},
		{name: "by id", now: []uint64{3, 4, 5}, line: "/ip socks connections remove *80000004", removed: []uint64{4}},
		{name: "by the id of none", now: []uint64{3, 4, 5}, line: "/ip socks connections remove *80000009", err: "no such item: *80000009"},
		{name: "a number beyond those of IDs", now: []uint64{1<<40 | 3}, line: "/ip socks connections remove [find]", removed: []uint64{1<<40 | 3}},
		{name: "by several commands of a line", now: []uint64{3, 4, 5}, line: "/ip socks connections; remove 0; remove 2; print count-only",
			removed: []uint64{3, 5}, output: "1\n"},
		{name: "the same by two commands", now: []uint64{3, 4, 5}, line: "/ip socks connections; remove 0; remove 0", err: "no such item: 0"},
		{name: "and then an error", now: []uint64{3, 4, 5}, line: "/ip socks connections; remove 0; remove 9", err: "no such item: 9"},
		{name: "without a number", now: []uint64{3, 4, 5}, line: "/ip socks connections remove", err: "missing value(s) of argument(s) numbers"},
		{name: "find shows numbers", now: []uint64{3, 4, 5}, line: "/ip socks connections find user-id=odd", output: "0,2\n"},
		{name: "what cannot be removed", now: []uint64{3}, line: "/ip neighbor remove 0",
			err: "bad command name remove (line 1 column 14); expected discovery-settings, print, export"},
	} {
		t.Run(test.name, func(t *testing.T) {
			numbers := []uint64{3, 4, 5}
			live := numberedConnections(&numbers)
			var s Session
			if test.before != "" {
				_, err := s.Execute(Default(), live, test.before)
				require.NoError(t, err)
			}
			numbers = test.now
			result, err := s.Execute(Default(), live, test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Equal(t, Result{Config: Default()}, result, "a line that fails removes nothing")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, Action{Close: test.removed}, result.Action)
			assert.Equal(t, test.output, result.Output)
			assert.False(t, result.Changed)
		})
	}
}

// A user id is any bytes but NUL. Each is shown, and can be typed as it is shown.
func TestUserIDsOfAnyBytes(t *testing.T) {
	live := fullLive()
	const id = "\xff\xfe \x1b[31m\"\\$\u00e9\xe9\u202e"
	live.Connections = func() ([]socks.Connection, error) {
		c, other := connection("192.168.0.2:1238", "10.5.8.8:21", 0, 0), connection("192.168.0.2:1239", "10.5.8.8:21", 0, 0)
		c.UserID, other.UserID = id, "\ufffd"
		return []socks.Connection{c, other}, nil
	}
	var s Session
	result, err := s.Execute(Default(), live, "/ip socks connections print terse")
	require.NoError(t, err)
	const shown = `"\FF\FE \1B[31m\"\\\$` + "\u00e9" + `\E9\E2\80\AE"`
	first, second, _ := strings.Cut(result.Output, "\n")
	assert.Contains(t, first, " user-id="+shown)
	assert.NotContains(t, first, "\ufffd")
	assert.Contains(t, second, "user-id=\"\ufffd\"", "of a client that says so")
	result, err = s.Execute(Default(), live, "/ip socks connections print count-only where user-id="+shown)
	require.NoError(t, err)
	assert.Equal(t, "1\n", result.Output)
	rows, err := Query(Default(), live, "ip socks connections", []Condition{{"user-id", "=", id}}, []string{"user-id"})
	require.NoError(t, err)
	require.Len(t, rows, 1)
	assert.Equal(t, id, rows[0].Pairs[0].Value.String())
}

// A program names connections by the IDs that Query gives them.
func TestDoRemovesConnections(t *testing.T) {
	numbers := []uint64{7, 8}
	live := numberedConnections(&numbers)
	rows, err := Query(Default(), live, "ip socks connections", nil, nil)
	require.NoError(t, err)
	numbers = []uint64{8, 9}
	result, err := Do(Default(), live, "ip socks connections", "remove", args(".id", rows[1].ID.String())...)
	require.NoError(t, err)
	assert.Equal(t, Action{Close: []uint64{8}}, result.Action)
	_, err = Do(Default(), live, "ip socks connections", "remove", args(".id", rows[0].ID.String())...)
	require.ErrorIs(t, err, ErrNoSuchItem)
	_, err = Do(Default(), testLive(), "ip socks connections", "remove", args(".id", rows[0].ID.String())...)
	require.ErrorIs(t, err, ErrNoSuchCommand, "the system cannot do it")
}

func TestCarryOut(t *testing.T) {
	var closed []uint64
	live := Live{CloseConnections: func(numbers []uint64) error { closed = numbers; return nil }}
	require.NoError(t, Action{}.CarryOut(Live{}))
	require.NoError(t, Action{Close: []uint64{1, 2}}.CarryOut(live))
	assert.Equal(t, []uint64{1, 2}, closed)
	live.CloseConnections = func([]uint64) error { return errors.New("it hangs") }
	require.EqualError(t, Action{Close: []uint64{1}}.CarryOut(live), "remove connections: it hangs")
}

// An import changes the configuration and nothing else.
func TestImportRemovesNoConnections(t *testing.T) {
	numbers := []uint64{3}
	_, err := new(Session).Import(Default(), numberedConnections(&numbers), "/ip socks connections remove [find]", nil)
	require.EqualError(t, err, "this command does not belong in an import (line 1)")
}

func TestForgetConnections(t *testing.T) {
	var forgotten []firewall.Tracked
	live := fullLive()
	live.Forget = func(all []firewall.Tracked) error { forgotten = all; return nil }
	s := new(Session)
	result, err := s.Execute(Default(), live, `/ip firewall connection remove [find protocol=tcp]`)
	require.NoError(t, err)
	require.NoError(t, result.Action.CarryOut(live))
	require.Len(t, forgotten, 1)
	assert.Equal(t, "192.168.0.2:1238", forgotten[0].Src.String())
	live.Forget = func([]firewall.Tracked) error { return errors.New("the kernel refuses") }
	require.EqualError(t, result.Action.CarryOut(live), "remove connections: the kernel refuses")
	live.Forget = nil
	_, err = s.Execute(Default(), live, `/ip firewall connection remove 0`)
	require.ErrorContains(t, err, "bad command name remove")
}

// Counters are set to zero by the places of their rules.
func TestResetCounters(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader("/ip firewall filter\nadd chain=input\nadd chain=input action=drop comment=x\nadd chain=forward\n/ip firewall nat\nadd chain=srcnat\n/ip firewall mangle\nadd chain=forward\n"))
	require.NoError(t, err)
	var reset []string
	live := fullLive()
	live.ResetCounters = nil
	_, err = new(Session).Execute(cfg, live, "/ip firewall filter reset-counters 0")
	require.ErrorContains(t, err, "bad command name reset-counters", "the system cannot")
	live.ResetCounters = func(table firewall.Table, rules []int) error {
		reset = append(reset, fmt.Sprint(table, rules))
		return nil
	}
	for _, test := range []struct{ line, reset, err string }{
		{"/ip firewall filter reset-counters 0,2", "filter[0 2]", ""},
		{"/ip firewall filter reset-counters [find comment=x]; /ip firewall mangle reset-counters-all; /ip firewall nat reset-counters 0", "filter[1] nat[0] mangle[0]", ""},
		{"/ip firewall filter reset-counters [find comment=y]", "", ""},
		{"/ip firewall filter reset-counters-all", "filter[0 1 2]", ""},
		{"/ip firewall filter reset-counters", "", "missing value(s) of argument(s) numbers"},
		{"/ip firewall filter reset-counters 3", "", "no such item: 3"},
		{"/ip firewall filter; remove 0; reset-counters 1", "", "counters unavailable"},
	} {
		result, err := new(Session).Execute(cfg, live, test.line)
		if test.err != "" {
			require.ErrorContains(t, err, test.err, test.line)
			continue
		}
		require.NoError(t, err, test.line)
		assert.False(t, result.Changed)
		reset = nil
		require.NoError(t, result.Action.CarryOut(live))
		assert.Equal(t, test.reset, strings.Join(reset, " "), test.line)
	}
	live.ResetCounters = func(firewall.Table, []int) error { return errors.New("it hangs") }
	require.EqualError(t, Action{Reset: map[firewall.Table][]int{firewall.NAT: {0}}}.CarryOut(live), "reset counters: it hangs")
}
