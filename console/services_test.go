package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExposed(t *testing.T) {
	const (
		on     = "/user set admin password-hash=x\n/ip service set ssh disabled=no\n"
		closed = "/ip firewall filter add chain=input in-interface=ether1 action=drop\n"
		isp    = "/interface pppoe-client add name=isp interface=ether1 disabled=no\n"
	)
	warning := func(from, port string) string {
		return "warning: anyone who reaches " + from + " can try to log in: no filter rule of chain=input drops dst-port=" + port +
			" from there, and address= of /ip service ssh keeps nobody out"
	}
	api := NetworkServices[1]
	cfg, err := Load("test", strings.NewReader("/ip service set api disabled=no\n/user ssh-keys add user=admin key=\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2\"\n"))
	require.NoError(t, err)
	assert.Empty(t, api.Exposed(cfg, "ether1"), "nobody logs in to the API with a key")
	cfg.SetPassword(Admin, "x")
	assert.Contains(t, api.Exposed(cfg, "ether1"), "dst-port=8728 from there, and address= of /ip service api keeps nobody out")
	for _, test := range []struct{ name, text, wanPort, want string }{
		{"open", on, "ether1", warning("ether1", "22")},
		{"nothing set", "", "ether1", ""},
		{"a password alone", "/user set admin password-hash=x\n", "ether1", ""},
		{"nobody can log in", "/ip service set ssh disabled=no\n", "ether1", ""},
		{"a key", "/ip service set ssh disabled=no\n/user ssh-keys add user=admin key=\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2\"\n",
			"ether1", warning("ether1", "22")},
		{"no port is outside", on, "", ""},
		{"a renamed port", on + "/interface ethernet set ether1 name=wan\n", "ether1", warning("wan", "22")},
		{"another port", on + "/ip service set ssh port=2222\n", "ether1", warning("ether1", "2222")},
		{"a rule drops it", on + closed, "ether1", ""},
		{"a rule drops another port", on + "/ip firewall filter add chain=input in-interface=ether1 protocol=tcp dst-port=23 action=drop\n", "ether1", warning("ether1", "22")},
		{"addresses", on + "/ip service set ssh address=192.168.0.0/24\n", "ether1", ""},
		{"all addresses", on + "/ip service set ssh address=192.168.0.0/24,0.0.0.0/0\n", "ether1", warning("ether1", "22")},
		{"a PPPoE client", on + isp + closed, "ether1", warning("isp", "22")},
		{"a PPPoE client that is closed too", on + isp + closed + "/ip firewall filter add chain=input in-interface=isp action=drop\n", "ether1", ""},
		{"a PPPoE client that is disabled", on + isp + closed + "/interface pppoe-client disable isp\n", "ether1", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("test", strings.NewReader(test.text))
			require.NoError(t, err)
			assert.Equal(t, test.want, NetworkServices[0].Exposed(cfg, test.wanPort))
		})
	}
}
