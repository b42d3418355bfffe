package pppoetest

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Live is a Server on a real link, whose IP packets go by a TUN device to the host's kernel.
type Live struct {
	*Server
	socket, tun *os.File
	mss         atomic.Uint32
}

// Serve starts a server on an interface of the network namespace of this thread, and makes the TUN
// device of that name, which has no address yet; "" makes none, and IP packets are dropped.
func Serve(device, tun string, c Config) (*Live, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	c.MAC = [6]byte(i.HardwareAddr)
	l := &Live{}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	l.socket = os.NewFile(uintptr(fd), "packet socket")
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: i.Index}); err != nil {
		l.socket.Close()
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if tun != "" {
		if l.tun, err = openTUN(tun); err != nil {
			l.socket.Close()
			return nil, err
		}
	}
	c.IP = func(packet []byte) {
		l.look(packet)
		if l.tun != nil {
			_, _ = l.tun.Write(packet) // lost as on a cable
		}
	}
	l.Server = New(c, func(frame []byte) { _, _ = l.socket.Write(frame) })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := l.socket.Read(b)
			if err != nil {
				return
			}
			if n >= 14 && [6]byte(b[6:12]) != c.MAC {
				l.Take(b[:n])
			}
		}
	}()
	if l.tun == nil {
		return l, nil
	}
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := l.tun.Read(b)
			if err != nil {
				return
			}
			l.Send(b[:n])
		}
	}()
	return l, nil
}

// Close ends the server.
func (l *Live) Close() {
	l.socket.Close()
	if l.tun != nil {
		l.tun.Close()
	}
}

// MSS is the maximum segment size of the last SYN of the client's, 0 if there was none.
func (l *Live) MSS() int { return int(l.mss.Load()) }

func (l *Live) look(p []byte) {
	if len(p) < 40 || p[0] != 0x45 || p[9] != unix.IPPROTO_TCP || p[33]&0x02 == 0 || len(p) < 20+int(p[32]>>4)*4 {
		return
	}
	options := p[40 : 20+int(p[32]>>4)*4]
	for len(options) >= 4 {
		switch {
		case options[0] == 2:
			l.mss.Store(uint32(binary.BigEndian.Uint16(options[2:])))
			return
		case options[0] < 2:
			options = options[1:]
		case options[1] < 2 || int(options[1]) > len(options):
			return
		default:
			options = options[options[1]:]
		}
	}
}

// openTUN makes a TUN device (Documentation/networking/tuntap.rst).
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// allProtocols is ETH_P_ALL in the order of the network.
var allProtocols = binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
