package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// danteConfiguration makes socksify ask the router for CONNECT and BIND.
const danteConfiguration = `resolveprotocol: fake
route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: ` + lanAddress + ` port = 1080
	protocol: tcp
	proxyprotocol: socks_v4
	command: connect bind
}
`

// socksify prepares a program to run on a host through dante-client.
func socksify(n network, h host, dir string, name string, args ...string) (*exec.Cmd, error) {
	config := filepath.Join(dir, "dante.conf")
	if err := os.WriteFile(config, []byte(danteConfiguration), 0o644); err != nil {
		return nil, err
	}
	cmd := n.command(h, "socksify", append([]string{name}, args...)...)
	cmd.Env = append(cmd.Env, "SOCKS_CONF="+config)
	return cmd, nil
}

// requestNameSOCKS sends a SOCKS 4a request for CONNECT and returns the reply to it.
func requestNameSOCKS(conn net.Conn, name string, port uint16) (socksReply, error) {
	request := binary.BigEndian.AppendUint16([]byte{4, commandConnect}, port)
	request = append(request, 0, 0, 0, 1, 0) // no address, no user id
	if _, err := conn.Write(append(append(request, name...), 0)); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS 4a request: %w", err)
	}
	return readReplySOCKS(conn, patience)
}
