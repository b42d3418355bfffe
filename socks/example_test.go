package socks_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/socks"
)

// A server that lets 192.168.0.2 use FTP, and nobody anything else.
func ExampleServer() {
	client, err := match.ParseAddresses("192.168.0.2")
	if err != nil {
		fmt.Println(err)
		return
	}
	ftp, err := match.ParsePorts("21,1024-65535")
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	cfg.Access = []socks.Rule{
		{SrcAddress: client, DstPort: ftp, Action: socks.Allow},
		{Action: socks.Deny, Comment: "all others"},
	}

	// Plain TCP: net.Listen would ask for Multipath TCP.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := socks.New(socks.Options{})
	defer server.Shutdown()
	if err := server.Configure(cfg, l.(*net.TCPListener)); err != nil {
		fmt.Println(err)
		return
	}

	// A client at 127.0.0.1 asks for a connection to port 21 of 192.0.2.1 (CONNECT).
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "\x04\x01\x00\x15\xc0\x00\x02\x01fred\x00")
	reply, err := io.ReadAll(conn)
	fmt.Println(reply[1], err) // 91: rejected
	fmt.Println(server.Hits())
	// Output:
	// 91 <nil>
	// [0 1]
}
