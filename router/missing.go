package router

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-router/postern/kmsg"
)

// tellMissingPorts logs which ports of the board have no network device, where the device is
// expected, and which other devices there are. A device that appears later becomes the port.
func (r *Router) tellMissingPorts() {
	links, err := r.network.State()
	if err != nil {
		r.log.Printf(kmsg.Error, "ports: %v", err)
		return
	}
	var present []string
	for _, l := range links {
		if l.Present {
			present = append(present, l.Name)
		}
	}
	others := ""
	for _, p := range r.board.Ports {
		if slices.Contains(present, p.Name) {
			continue
		}
		if others == "" {
			others = cmp.Or(strings.Join(r.devicesBut(present), ", "), "none")
		}
		r.log.Printf(kmsg.Warning, "%s: there is no network device at %s, where board %s has this port; devices that are no port: %s",
			p.Name, p.Device, r.board.Name, others)
	}
}

// devicesBut lists the network devices of the machine, without the ports of these names, each
// with its place as board.Port.Device has it.
func (r *Router) devicesBut(ports []string) []string {
	// Links that are software, such as bridges and loopback, have no device.
	paths, _ := filepath.Glob(r.root + "/sys/class/net/*/device") // the pattern is right
	var list []string
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path))
		place, err := filepath.EvalSymlinks(path)
		if err != nil || slices.Contains(ports, name) {
			continue
		}
		_, place, _ = strings.Cut(place, "/sys/devices/")
		list = append(list, name+" at "+place)
	}
	return list
}
