package testnet

import (
	"cmp"
	"net"

	"golang.org/x/sys/unix"
)

// WriteUrgent sends bytes of which the last is urgent (tcp(7), MSG_OOB). If there are none, it
// sends nothing.
func WriteUrgent(c *net.TCPConn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), b, unix.MSG_OOB, nil)
		return sendErr != unix.EAGAIN
	})
	return cmp.Or(err, sendErr)
}
