package console

import (
	"strings"
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

const helpersLeftOut = "warning: lines of /ip firewall service-port are left out: helpers stay as they are, and what others were to let in does not pass\n"

// What a line that is left out means is said of lines for helpers alone, and of others as before.
func TestHelperLinesLeftOut(t *testing.T) {
	const dropped = "warning: lines of the firewall or of the SOCKS server are left out: what they were to drop may pass\n"
	for _, test := range []struct{ text, want string }{
		{"/ip firewall service-port set tftp disabled=no", helpersLeftOut},
		{"/ip/firewall/service-port/set tftp disabled=no", helpersLeftOut},
		{"/ip firewall service-port\nset ftp later=yes", helpersLeftOut},
		{"/ip firewall service-port\nset ftp later=yes\n/ip firewall filter\nadd action=drop chain=input later=yes", dropped + helpersLeftOut},
		{"/ip firewall service-port\nset ftp later=yes; /ip firewall filter add action=drop chain=input", dropped},
		{"/ip firewall service-port\n..filter add action=drop chain=input", dropped},
		{"/ip firewall service-ports set tftp disabled=no", dropped},
		{"/ip firewall service-port\n:if (true) do={ /ip firewall filter add action=drop chain=input }", dropped},
		{"/ip firewall service-port\nadd action=drop chain=input \"", dropped},
	} {
		result, err := new(Session).ImportBy(ImportArguments{DryRun: true}, Default(), fullLive(), test.text, nil)
		require.NoError(t, err, test.text)
		var warnings string
		for line := range strings.Lines(result.Output) {
			if strings.HasPrefix(line, "warning: ") {
				warnings += line
			}
		}
		assert.Equal(t, test.want, warnings, test.text)
	}
}

// A dry run of an import says what is not taken of helpers, and changes none.
func TestHelpersDryRun(t *testing.T) {
	const text = "/ip firewall service-port\nset ftp disabled=no ports=21,2121\nset sip disabled=yes\nenable h323\nset tftp disabled=no\n"
	result, err := new(Session).ImportBy(ImportArguments{DryRun: true}, Default(), fullLive(), text, nil)
	require.NoError(t, err)
	assert.Equal(t, "left out: Postern has no helper for h323; expected disabled=yes (line 4)\n"+
		"left out: Postern has no helper for tftp; expected disabled=yes (line 5)\n"+
		helpersLeftOut+"nothing was changed\n", result.Output)
	assert.False(t, result.Changed)
	assert.True(t, Default().Equal(result.Config))
	result, err = new(Session).ImportBy(ImportArguments{SkipErrors: true}, Default(), fullLive(), text, nil)
	require.NoError(t, err)
	assert.False(t, result.Config.Firewall.FTP.Disabled)
	assert.Equal(t, []uint16{21, 2121}, result.Config.Firewall.FTP.Ports)
}
