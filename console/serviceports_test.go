package console

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a line says of RouterOS's other helpers is true if they are off, by whatever command, from the console and from programs.
func TestHelpersThatAreAbsent(t *testing.T) {
	const lacks = "Postern has no helper for sip; expected disabled=yes"
	on := Default()
	on.Firewall.FTP.Disabled = false
	for _, test := range []struct {
		command, names string
		err            string
		off            bool // FTP's is then
	}{
		{"disable", "sip", "", false},
		{"disable", "tftp,irc,h323,sip,pptp,rtsp,udplite,dccp,sctp", "", false},
		{"disable", "sip,ftp", "", true},
		{"disable", "ftp", "", true},
		{"disable", "gopher", "no such item: gopher", false},
		{"disable", "sip,gopher", "no such item: gopher", false},
		{"enable", "sip", lacks, false},
		{"enable", "ftp,sip", lacks, false},
	} {
		result, err := new(Session).Execute(on, fullLive(), "/ip firewall service-port "+test.command+" "+test.names)
		byProgram, errByProgram := Do(on, fullLive(), "ip firewall service-port", test.command, Argument{"numbers", test.names})
		if test.err != "" {
			require.EqualError(t, err, test.err, test.names)
			require.EqualError(t, errByProgram, test.err, test.names)
			continue
		}
		require.NoError(t, err, test.names)
		require.NoError(t, errByProgram, test.names)
		assert.Equal(t, test.off, result.Config.Firewall.FTP.Disabled, test.names)
		assert.Equal(t, test.off, byProgram.Config.Firewall.FTP.Disabled, test.names)
		assert.Equal(t, test.off, result.Changed, test.names)
	}
}

// A dry run of an import says what is not taken of helpers, and changes none.
func TestHelpersDryRun(t *testing.T) {
	const text = "/ip firewall service-port\nset ftp disabled=no ports=21,2121\nset sip disabled=yes\nenable h323\nset tftp disabled=no\n"
	result, err := new(Session).ImportBy(ImportArguments{DryRun: true}, Default(), fullLive(), text, nil)
	require.NoError(t, err)
	assert.Equal(t, "left out: Postern has no helper for h323; expected disabled=yes (line 4)\n"+
		"left out: Postern has no helper for tftp; expected disabled=yes (line 5)\n"+
		"warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\nnothing was changed\n", result.Output)
	assert.False(t, result.Changed)
	assert.True(t, Default().Equal(result.Config))
	result, err = new(Session).ImportBy(ImportArguments{SkipErrors: true}, Default(), fullLive(), text, nil)
	require.NoError(t, err)
	assert.False(t, result.Config.Firewall.FTP.Disabled)
	assert.Equal(t, []uint16{21, 2121}, result.Config.Firewall.FTP.Ports)
}
