package router

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestToldLayers tells the router what one kind of client has, while it refuses some of it.
func TestToldLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		has := map[string]Layer{}
		refuse, calls := map[string]error{}, 0
		told := newToldLayers("client", func(source string, l Layer) error {
			calls++
			if err := refuse[source]; err != nil {
				return err
			}
			has[source] = l
			return nil
		})
		tell := func(layers map[string]Layer) (news []string) {
			told.tell(layers, func(name string, err error) { news = append(news, fmt.Sprintf("%s: %v", name, err)) })
			return news
		}
		one := Layer{NameServers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
		two := Layer{NameServers: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
		both := map[string]Layer{"a": one, "b": one}
		assert.Empty(t, tell(both))
		assert.Equal(t, map[string]Layer{"client a": one, "client b": one}, has)
		assert.Empty(t, tell(both))
		assert.Equal(t, 2, calls, "nothing is told twice")

		both = map[string]Layer{"a": two, "b": one}
		refuse["client a"] = errors.New("no such port")
		assert.Equal(t, []string{"a: no such port"}, tell(both))
		assert.Equal(t, one, has["client a"], "what it said before holds")
		assert.EqualError(t, told.refusal("a"), "no such port")
		assert.NoError(t, told.refusal("b"))
		assert.Empty(t, tell(both))
		assert.Equal(t, 3, calls, "not yet again")
		time.Sleep(layerPause)
		assert.Empty(t, tell(both), "the same error is no news")
		assert.Equal(t, 4, calls)
		refuse["client a"] = io.EOF
		time.Sleep(layerPause)
		assert.Equal(t, []string{"a: EOF"}, tell(both))
		delete(refuse, "client a")
		time.Sleep(layerPause)
		assert.Equal(t, []string{"a: <nil>"}, tell(both))
		assert.Equal(t, two, has["client a"])
		assert.NoError(t, told.refusal("a"))

		refuse["client b"] = io.EOF
		assert.Equal(t, []string{"b: EOF"}, tell(map[string]Layer{"b": two}))
		assert.True(t, has["client a"].empty(), "taken back")
		assert.Equal(t, []string{"b: <nil>"}, tell(map[string]Layer{"b": one}), "the router has had it all along")
		assert.NoError(t, told.refusal("b"))

		// A withdrawal that is refused waits as any layer does.
		assert.Equal(t, one, has["client b"])
		refuse["client b"] = io.EOF
		calls = 0
		assert.Equal(t, []string{"b: EOF"}, tell(nil))
		assert.Empty(t, tell(nil))
		assert.Equal(t, 1, calls, "not yet again")
		assert.Equal(t, []string{"b: <nil>"}, tell(map[string]Layer{"b": one}), "nothing to take back any more")
		assert.Equal(t, []string{"b: EOF"}, tell(nil))
		delete(refuse, "client b")
		assert.Empty(t, tell(nil))
		assert.Equal(t, 2, calls, "not yet again")
		time.Sleep(layerPause)
		assert.Equal(t, []string{"b: <nil>"}, tell(nil))
		assert.Equal(t, 3, calls)
		assert.True(t, has["client b"].empty(), "taken back")
		assert.Empty(t, tell(nil))
		assert.Equal(t, 3, calls)

		// What the router never took needs no withdrawal.
		refuse["client d"] = io.EOF
		assert.Equal(t, []string{"d: EOF"}, tell(map[string]Layer{"d": one}))
		assert.Empty(t, tell(nil))
		assert.NoError(t, told.refusal("d"))
		assert.Equal(t, 4, calls)

		refuse["client c"] = errStopped
		assert.Empty(t, tell(map[string]Layer{"c": one}), "the router ends")
	})
}
