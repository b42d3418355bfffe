package main

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// otherWAN is an address of the router's in another network than wanAddress, and otherGateway is
// the gateway there.
const (
	otherWAN     = "10.2.0.104"
	otherGateway = "10.2.0.1"
)

// readdress moves the router's WAN to another network and back, by the address first and by the
// route first. What is masqueraded, what SOCKS does and the route follow at once.
func (r *router) readdress(t *testing.T) {
	require.NoError(t, r.n[gateway].IP("addr add "+otherGateway+"/24 dev eth0"))
	server, ask := r.asker(t)
	masqueradedBehind := func(address string) {
		t.Helper()
		// The kernel forgets what was behind an address that went in its own time.
		require.NoError(t, retry(func() error {
			if from := ask(); from != address {
				return fmt.Errorf("an open flow is masqueraded behind %s", from)
			}
			return nil
		}))
	}
	masqueradedBehind(wanAddress)
	kept, reply := r.request(t, client, commandConnect, r.echo(t, 5020))
	require.EqualValues(t, granted, reply.code)

	r.command(t, "/ip address set [find address="+wanAddress+"/24] address="+otherWAN+"/24")
	assert.Regexp(t, `(?m)^ ?\d+ I S +0\.0\.0\.0/0 +10\.1\.0\.1 +1$`, r.command(t, "/ip route print"))
	r.command(t, "/ip route set [find gateway="+gatewayAddress+"] gateway="+otherGateway)
	assert.Regexp(t, `(?m)^ ?\d+ A S +0\.0\.0\.0/0 +10\.2\.0\.1 +1$`, r.command(t, "/ip route print"))
	masqueradedBehind(otherWAN)
	r.awaitHTTP(t)
	r.fetch(t)
	conn, reply := r.request(t, client, commandBind, serverAddress+":21")
	require.EqualValues(t, granted, reply.code)
	assert.Equal(t, otherWAN, reply.addr.Addr().String())
	require.NoError(t, conn.Close())
	to := filepath.Join(r.dir, "moved")
	cmd, err := socksify(r.n, client, r.dir, "tnftp", "-A", "-V", "-o", to, ftpURL)
	require.NoError(t, err)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assertSameFile(t, r.site.file, to)
	// What is the router's own now is denied, and closed from outside.
	r.command(t, "/ip socks access add action=allow comment=all place-before=0")
	_, reply = r.request(t, client, commandConnect, otherWAN+":1080")
	assert.EqualValues(t, rejected, reply.code)
	r.command(t, "/ip socks access remove [find comment=all]")
	_, err = r.n.dial(gateway, otherWAN+":1080", 3*time.Second)
	require.Error(t, err)

	r.command(t, "/ip route set [find gateway="+otherGateway+"] gateway="+gatewayAddress)
	assert.Regexp(t, `(?m)^ ?\d+ I S +0\.0\.0\.0/0 +10\.1\.0\.1 +1$`, r.command(t, "/ip route print"))
	r.command(t, "/ip address set [find address="+otherWAN+"/24] address="+wanAddress+"/24")
	assert.Regexp(t, `(?m)^ ?\d+ A S +0\.0\.0\.0/0 +10\.1\.0\.1 +1$`, r.command(t, "/ip route print"))
	masqueradedBehind(wanAddress)
	// The address is that of before, and so are the connections of SOCKS.
	assertEcho(t, kept)
	r.fetch(t)
	require.NoError(t, server.Close())
	require.NoError(t, r.n[gateway].IP("addr del "+otherGateway+"/24 dev eth0"))
}

// asker returns a function by which the client asks the server by UDP, always from the same port,
// and the server says from which address it was asked. It closes with the server.
func (r *router) asker(t *testing.T) (server *net.UDPConn, ask func() string) {
	t.Helper()
	require.NoError(t, r.n.on(serverOfSite, func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(serverAddress)})
		return err
	}))
	go func() {
		for {
			_, from, err := server.ReadFromUDPAddrPort(make([]byte, 1))
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort([]byte(from.Addr().String()), from)
		}
	}()
	var conn *net.UDPConn
	require.NoError(t, r.n.on(client, func() (err error) {
		conn, err = net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
		return err
	}))
	t.Cleanup(func() { conn.Close(); server.Close() })
	return server, func() (address string) {
		t.Helper()
		require.NoError(t, retry(func() error {
			// An answer to an earlier question may still be on its way.
			b := make([]byte, 64)
			for conn.SetReadDeadline(time.Now().Add(time.Millisecond)) == nil {
				if _, err := conn.Read(b); err != nil {
					break
				}
			}
			if _, err := conn.Write([]byte{1}); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			n, err := conn.Read(b)
			address = string(b[:n])
			return err
		}))
		return address
	}
}
