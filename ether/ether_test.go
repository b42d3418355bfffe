package ether

import (
	"encoding/binary"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"

	"github.com/postern-router/postern/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func TestIsHost(t *testing.T) {
	for mac, want := range map[MAC]bool{{}: false, Broadcast: false, {1, 0, 0x5E, 0, 0, 1}: false, {2, 0, 0, 0, 0, 1}: true} {
		assert.Equal(t, want, mac.IsHost(), mac)
	}
}

// TestOpen sends frames over a cable. Of two protocols, and with a filter within one of them, only those
// that were asked for come in.
func TestOpen(t *testing.T) {
	const protocol, other = 0x88B5, 0x88B6 // for experiments (IEEE 802)
	a, b := testnet.New(t, "a"), testnet.New(t, "b")
	require.NoError(t, testnet.Link(a, "eth0", b, "eth0"))
	open := func(h *testnet.Host, program []bpf.Instruction) (c *Conn, mac MAC) {
		require.NoError(t, h.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			f, err := Open(i.Index, protocol, program)
			if err == nil {
				mac = MAC(i.HardwareAddr)
				c, err = NewConn(f)
			}
			return err
		}))
		t.Cleanup(func() { c.Close() })
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		return c, mac
	}
	sender, from := open(a, nil)
	all, to := open(b, nil)
	some, _ := open(b, []bpf.Instruction{
		bpf.LoadAbsolute{Off: Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 'y', SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: MaxFrame},
	})
	frame := func(protocol uint16, text string) []byte {
		head := binary.BigEndian.AppendUint16(slices.Concat(to[:], from[:]), protocol)
		return append(head, text...)
	}
	// They are sent again until they have come: a host that has much to do drops frames.
	ended := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			for _, f := range [][]byte{frame(other, "y0"), frame(protocol, "n1"), frame(protocol, "y2"), frame(protocol, "y3")} {
				err := sender.Write(f)
				assert.True(t, err == nil || Temporary(err), "%v", err)
			}
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	defer sending.Wait()
	defer close(ended)
	read := func(c *Conn) string {
		buffer := make([]byte, MaxFrame)
		n, _, err := c.Read(buffer)
		require.NoError(t, err)
		return string(buffer[Header:n])
	}
	for _, test := range []struct {
		at   *Conn
		want []string
	}{{all, []string{"n1", "y2", "y3"}}, {some, []string{"y2", "y3"}}} {
		got := map[string]bool{}
		for len(got) < len(test.want) {
			got[read(test.at)] = true
		}
		assert.Equal(t, test.want, slices.Sorted(maps.Keys(got)))
	}
}
