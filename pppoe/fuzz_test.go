package pppoe

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/service"
)

// Whatever comes, discovery packets are read or refused, and written again they are the same.
func FuzzDiscovery(f *testing.F) {
	d := discovery{to: clientMAC, from: serverMAC, code: codePADO, tags: []tag{{tagServiceName, nil}, {tagACName, []byte("ac")}, {tagCookie, []byte{1, 2}}}}
	f.Add(d.frame())
	f.Add(d.frame()[:30])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		d, err := parseDiscovery(frame)
		if err != nil {
			return
		}
		again, err := parseDiscovery(d.frame())
		require.NoError(t, err)
		assert.Equal(t, d.frame(), again.frame())
		assert.LessOrEqual(t, len(d.refusal()), 2*maxText)
	})
}

// Packets of control protocols, and options in them, are read or refused, and written again they are the same.
func FuzzPacket(f *testing.F) {
	f.Add(packet{configureRequest, 1, []byte{1, 4, 5, 0xD4, 3, 5, 0xC2, 0x23, 5}}.bytes())
	f.Add(packet{echoRequest, 2, []byte{0, 0, 0, 1}}.bytes())
	f.Add([]byte{1, 1, 0, 6, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		assert.Equal(t, b[:len(p.bytes())], p.bytes())
		if all, err := parseOptions(p.data); err == nil {
			assert.Equal(t, string(p.data), string(appendOptions(nil, all)))
		}
	})
}

// Whatever the process says, PID 1 believes only what can be.
func FuzzReport(f *testing.F) {
	f.Add(Report{Name: "isp", Status: Connected, Session: Session{serverMAC, 1}, Link: &Link{Local: testServer().Remote, Remote: testServer().Local, NameServers: testServer().DNS, MTU: 1492, MRU: 1492}}.encode())
	f.Add(Report{Name: "isp", Status: Disconnected, Reason: "the server has ended the session: " + strings.Repeat("because ", 10)}.encode())
	f.Fuzz(func(t *testing.T, body []byte) {
		d := service.NewDecoder(body)
		r := decodeReport(d)
		if d.End() != nil {
			return
		}
		assert.True(t, r.Session == Session{} || r.Session.valid())
		assert.True(t, r.Link == nil || r.Link.valid() && r.Session != Session{})
		assert.LessOrEqual(t, len(r.Name), maxName)
		assert.Equal(t, clean([]byte(r.Reason)), r.Reason)
		assert.LessOrEqual(t, len(r.Reason), maxReason)
		assert.Equal(t, r, decodeReport(service.NewDecoder(r.encode())))
	})
}

// Whatever a server sends, and in whatever state, the client lives, answers each packet by a bounded
// number of its own, and tells PID 1 only what can be.
func FuzzServer(f *testing.F) {
	lcp := func(code byte, data ...byte) []byte { return packet{code, 1, data}.frame(protocolLCP) }
	join := func(frames ...[]byte) []byte {
		var b []byte
		for _, frame := range frames {
			b = append(append(b, byte(len(frame))), frame...)
		}
		return b
	}
	f.Add(uint8(0), join(discovery{to: clientMAC, from: serverMAC, code: codePADO}.frame()))
	f.Add(uint8(2), join(lcp(configureRequest, 1, 4, 5, 0xD4, 3, 5, 0xC2, 0x23, 5), lcp(configureNak, 1, 4, 5, 0), lcp(configureReject, 5, 6, 1, 2, 3, 4), nil))
	f.Add(uint8(3), join(packet{chapChallenge, 1, []byte("\x10abcdefghijklmnop")}.frame(protocolCHAP), packet{chapSuccess, 1, nil}.frame(protocolCHAP)))
	f.Add(uint8(4), join(packet{configureRequest, 1, []byte{3, 6, 10, 0, 0, 1}}.frame(protocolIPCP), packet{configureNak, 1, []byte{3, 6, 10, 0, 0, 2}}.frame(protocolIPCP)))
	f.Add(uint8(5), join(lcp(echoRequest, 0, 0, 0, 0, 1), lcp(echoReply, 0, 0, 0, 0), lcp(codeReject, 9, 1, 0, 4), lcp(protocolReject, 0x80, 0x21), lcp(terminateRequest), []byte{0x80, 0x57, 1, 1, 0, 4}))
	f.Fuzz(func(t *testing.T, start uint8, input []byte) {
		r := newRig(t, testSettings(), testServer())
		r.client.start(r.now)
		reached := func() bool {
			switch start % 6 {
			case 0:
				return true
			case 1:
				return r.client.phase == requesting
			case 2:
				return r.client.phase == running
			case 3:
				return r.client.status == Verifying
			case 4:
				return r.client.ipcpState.state != closed
			}
			return r.client.status == Connected
		}
		for !reached() && len(r.queue) > 0 {
			next := r.queue[0]
			r.queue = r.queue[1:]
			next()
		}
		r.cut = true // from here on the input is the server
		sent := r.sent
		inputs := 1
		for len(input) > 0 {
			n := min(int(input[0]), len(input)-1)
			frame := slices.Clone(input[1 : 1+n])
			input = input[1+n:]
			inputs++
			switch {
			case n == 0:
				r.now = r.now.Add(time.Second)
				r.client.tick(r.now)
			case n >= ether.Header+pppoeHeader && frame[12] == 0x88:
				r.client.takeDiscovery(r.now, frame)
			default:
				if r.kernel != (Session{}) && r.kernel == r.client.session {
					r.client.takeControl(r.now, frame)
				}
			}
			r.settle()
		}
		assert.LessOrEqual(t, r.sent-sent, 4*inputs)
		for _, p := range r.reports {
			require.True(t, p.Link == nil || p.Link.valid(), "%v", p.Link)
		}
		r.client.leave(r.now)
		r.pass(5 * time.Second)
		assert.Equal(t, left, r.client.phase)
	})
}
