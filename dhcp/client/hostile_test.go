package client

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
)

// The right answer counts also behind many at once of somebody who may not answer.
func TestAnswerAmongRefusals(t *testing.T) {
	p := newPeer(t)
	var conn *ether.Conn
	var mac ether.MAC
	require.NoError(t, p.server.Do(func() error {
		i, err := net.InterfaceByName("br0")
		if err != nil {
			return err
		}
		mac = ether.MAC(i.HardwareAddr)
		f, err := dhcp.OpenUDP(i.Index, dhcp.ServerPort)
		if err == nil {
			conn, err = ether.NewConn(f)
		}
		return err
	}))
	server, stranger := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn.ReadAll(func(frame []byte, sumReady bool) {
			question, err := dhcp.ParsePacket(frame, sumReady)
			if err != nil {
				return
			}
			m, err := dhcp.Parse(question.Payload)
			if err != nil || m.Op != dhcp.BootRequest {
				return
			}
			answer := func(typ dhcp.Type, id netip.Addr) {
				a := &dhcp.Message{Op: dhcp.BootReply, XID: m.XID, HardwareType: 1, Hardware: m.Hardware}
				a.Options.SetByte(dhcp.OptionType, byte(typ))
				a.Options.SetAddrs(dhcp.OptionServerID, id)
				if typ != dhcp.NAK {
					a.Your = netip.MustParseAddr("192.0.2.10")
					a.Options.Set(dhcp.OptionSubnetMask, net.CIDRMask(24, 32))
					a.Options.SetUint32(dhcp.OptionLeaseTime, 3600)
				}
				b, err := a.Marshal(dhcp.MaxMessage)
				if err == nil {
					err = conn.Write(dhcp.Packet{FromMAC: mac, ToMAC: p.mac, From: netip.AddrPortFrom(id, dhcp.ServerPort),
						To: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcp.ClientPort), Payload: b}.Append(nil))
				}
				if err != nil {
					t.Error(err)
				}
			}
			for range 24 { // which the socket has room for
				answer(dhcp.NAK, stranger)
			}
			if m.Options.Type() == dhcp.Discover {
				answer(dhcp.Offer, server)
			} else {
				answer(dhcp.ACK, server)
			}
		})
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	w := p.run(t, Settings{})
	w.await(t, Bound)
	w.events <- Renew
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Contains(w.told, Renewing) && w.status == Bound
	}, patience/4, patience/1000)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Equal(t, []Status{Searching, Requesting, Bound, Renewing, Bound}, w.told)
}
