package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestKernelMode(t *testing.T) {
	const pty = "/usr/sbin/pppoe -n -I eth0 -e 1:02:70:6f:73:74:01  -S 'internet'"
	for _, c := range []struct {
		name       string
		args, want []string
		err        string
	}{
		{"as pppoe-server calls it", []string{"pppd", "pty", pty, "file", "/etc/ppp/o", "10.0.0.1:10.0.0.2", "nodetach"},
			[]string{"pppd", "plugin", "pppoe.so", "nic-eth0", "pppoe-sess", "1:02:70:6f:73:74:01", "file", "/etc/ppp/o", "10.0.0.1:10.0.0.2", "nodetach"}, ""},
		{"no pty", []string{"pppd", "nodetach"}, nil, `no option pty in ["pppd" "nodetach"]`},
		{"pty without a program", []string{"pppd", "pty"}, nil, `no option pty in ["pppd" "pty"]`},
		{"no session", []string{"pppd", "pty", "pppoe -n -I eth0"}, nil, `no interface (-I) or session (-e) in "pppoe -n -I eth0"`},
		{"nothing", nil, nil, "no option pty in []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := kernelMode(c.args)
			if c.err != "" {
				assert.EqualError(t, err, c.err)
			}
			assert.Equal(t, c.want, got)
		})
	}
}
