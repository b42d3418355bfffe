package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// device is what is remembered about a port's device for as long as it is there.
type device struct {
	port string
	// driverMTU is the MTU that the device had before the Manager changed it, or 0 if it
	// has not. driverMAC is the same for its address.
	driverMTU int
	driverMAC ether.MAC
	// driverModes is what it had of modes before, or nil.
	driverModes *modeSettings
}

// match finds the devices of the ports. A device keeps its port until it vanishes: once it
// is renamed, its name in the kernel does not tell which port it is.
func (m *Manager) match(links []link) {
	missing := slices.Clone(m.ports)
	for index, d := range m.devices {
		if !slices.ContainsFunc(links, func(l link) bool { return l.index == index }) {
			delete(m.devices, index)
			continue
		}
		missing = slices.DeleteFunc(missing, func(p Port) bool { return p.Name == d.port })
	}
	find := func(is func(Port, link) bool) {
		missing = slices.DeleteFunc(missing, func(p Port) bool {
			for _, l := range links {
				if m.devices[l.index] == nil && !l.loopback && !l.own && is(p, l) {
					m.devices[l.index] = &device{port: p.Name}
					return true
				}
			}
			return false
		})
	}
	find(m.isDevice)
	// A port whose device is given by its name in the kernel, and that an earlier run of
	// the program has renamed.
	find(func(p Port, l link) bool { return l.name == p.Name && !strings.Contains(p.Device, "/") })
}

// isDevice reports whether l is the device of p.
func (m *Manager) isDevice(p Port, l link) bool {
	if l.name == p.Device {
		return true
	}
	// It is a link to ../../devices/pci0000:00/0000:00:12.0/virtio0/net/eth0. To read it is
	// faster than to resolve X/device name by name. A device that has just vanished has
	// none.
	path, err := os.Readlink(filepath.Join(m.sysfs, "class/net", l.name))
	if err != nil {
		return false
	}
	_, path, _ = strings.Cut(path, "/devices/")
	// The first names of the path, as many as Device has; the path must have more.
	names, depth := strings.Split(path, "/"), strings.Count(p.Device, "/")+1
	if len(names) <= depth {
		return false
	}
	matches, err := filepath.Match(p.Device, strings.Join(names[:depth], "/"))
	return err == nil && matches
}

// rename gives the ports' devices their names, and changes links accordingly. Another
// device that has the name of a port is named after its index. If it is a port too, it
// gets its own name later.
func (m *Manager) rename(p *pass, links []link) {
	for i := range links {
		l := &links[i]
		d := m.devices[l.index]
		if d == nil || l.name == d.port {
			continue
		}
		if h := slices.IndexFunc(links, func(o link) bool { return o.name == d.port }); h >= 0 {
			holder := &links[h]
			wasUp := holder.up
			rename(p, holder, fmt.Sprintf("dev%d", holder.index))
			if wasUp && m.devices[holder.index] == nil {
				p.did("set "+holder.name+" up", setUp(holder.index, true))
			}
		}
		rename(p, l, d.port)
	}
}

// rename gives l a name. It sets l down first, since kernels before 6.2 refuse otherwise.
func rename(p *pass, l *link, name string) {
	what := fmt.Sprintf("rename link %s to %s", l.name, name)
	if l.up {
		if err := setUp(l.index, false); err != nil {
			p.did(what, fmt.Errorf("set down: %w", err))
			return
		}
		l.up = false
	}
	err := setName(l.index, name)
	if err == nil {
		l.name = name
	}
	p.did(what, err)
}

// thread has the kernel process the packets of devices in threads (threaded NAPI,
// Documentation/networking/napi.rst), which share the processor with programs. Otherwise
// it processes them in soft interrupts, which go before every program: a router that
// forwards at its limit would answer nobody, not even the watchdog.
func (m *Manager) thread(links []link) {
	for _, l := range links {
		if l.loopback || l.own {
			continue
		}
		err := writeExisting(filepath.Join(m.sysfs, "class/net", l.name, "threaded"), "1\n")
		// The device has just vanished, or its driver does not poll.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			m.logf("netcfg: process the packets of %s in threads: %v", l.name, err)
		}
	}
}

// writeExisting writes to a file of the kernel. It creates none.
func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
