// Command kernelpppd is what Debian's pppoe-server starts as pppd (its option -q), so that the kernel
// carries the sessions. That server was built without its own option for this (-k), and passes the
// session to pppd as the program pppoe at the other end of a pseudoterminal, for which Postern's
// kernels have no driver. In the place of it pppd gets the plugin for PPPoE, as by -k.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// pppd and its plugin are those of Debian's package ppp.
const (
	pppd   = "/usr/sbin/pppd"
	plugin = "pppoe.so"
)

func main() {
	args, err := kernelMode(os.Args)
	if err == nil {
		err = syscall.Exec(pppd, args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "kernelpppd:", err)
	os.Exit(1)
}

// kernelMode returns the arguments of a pppd whose session is in the kernel: for those of one that
// talks with "pppoe -n -I eth0 -e 1:02:00:00:00:00:01 -S internet" by a pseudoterminal.
func kernelMode(args []string) ([]string, error) {
	for i, word := range args[:max(len(args)-1, 0)] {
		if word != "pty" {
			continue
		}
		var device, session string
		words := strings.Fields(args[i+1])
		for j, option := range words[:max(len(words)-1, 0)] {
			switch option {
			case "-I":
				device = words[j+1]
			case "-e":
				session = words[j+1]
			}
		}
		if device == "" || session == "" {
			return nil, fmt.Errorf("no interface (-I) or session (-e) in %q", args[i+1])
		}
		kernel := []string{"plugin", plugin, "nic-" + device, "pppoe-sess", session}
		return append(append(append([]string(nil), args[:i]...), kernel...), args[i+2:]...), nil
	}
	return nil, fmt.Errorf("no option pty in %q", args)
}
