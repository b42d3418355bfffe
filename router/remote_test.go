package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
)

// destinations notes who is sent the log.
type destinations []string

func (d *destinations) Set(to kmsg.Destination, whole bool) {
	line := "nobody"
	if to.Server.IsValid() {
		_, sends := to.Sends("socks,info")
		line = fmt.Sprintf("%v %s %v whole=%v socks=%v", to.Server, to.Host, to.Names, whole, sends)
	}
	*d = append(*d, line)
}

func TestRemoteLog(t *testing.T) {
	var got destinations
	l := &remoteLog{sender: &got}
	for _, c := range []struct{ lines, want string }{
		{"/system logging action set remote remote=10.0.0.9\n/system logging add action=remote topics=socks",
			"10.0.0.9:514 postern map[] whole=true socks=true"},
		{"/system logging action set remote remote=10.0.0.9\n/system logging add action=remote topics=socks\n/ip dns set servers=1.1.1.1", ""},
		{"/system logging action set remote remote=10.0.0.9\n/system logging add action=remote topics=system\n" +
			"/system identity set name=gate\n/interface ethernet set ether1 name=wan",
			"10.0.0.9:514 gate map[ether1:wan] whole=false socks=false"},
		{"", "nobody"},
	} {
		config, err := console.Load("test", strings.NewReader(c.lines))
		require.NoError(t, err)
		got = nil
		require.NoError(t, l.Apply(config))
		assert.Equal(t, c.want, strings.Join(got, "; "))
	}
	require.NoError(t, l.Health())
	require.NoError(t, l.Taken(t.Context()))
	var live console.Live
	l.Show(&live)
	assert.True(t, live.RemoteLog)
	got = nil
	l.Stop()
	assert.Equal(t, destinations{"nobody"}, got)
}
