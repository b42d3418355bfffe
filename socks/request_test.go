package socks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseRequest4(t *testing.T) {
	long := strings.Repeat("u", 255)
	ip := netip.MustParseAddr
	for _, c := range []struct {
		name string
		in   string
		want request
		err  string
	}{
		{name: "CONNECT", in: "\x04\x01\x00\x50\x0a\x05\x08\x08\x00",
			want: request{command: commandConnect, addr: ip("10.5.8.8"), port: 80}},
		{name: "CONNECT with a user id", in: "\x04\x01\x00\x15\x0a\x05\x08\x08fred\x00",
			want: request{command: commandConnect, addr: ip("10.5.8.8"), port: 21, user: "fred"}},
		{name: "BIND", in: "\x04\x02\x00\x15\x0a\x05\x08\x08fred\x00",
			want: request{command: commandBind, addr: ip("10.5.8.8"), port: 21, user: "fred"}},
		{name: "BIND for anyone, as dante-client asks", in: "\x04\x02\x00\x00\x00\x00\x00\x00root\x00",
			want: request{command: commandBind, addr: ip("0.0.0.0"), user: "root"}},
		{name: "0.0.0.0 is not 4a", in: "\x04\x01\x00\x50\x00\x00\x00\x00\x00",
			want: request{command: commandConnect, addr: ip("0.0.0.0"), port: 80}},
		{name: "0.0.1.1 is not 4a", in: "\x04\x01\x00\x50\x00\x00\x01\x01\x00",
			want: request{command: commandConnect, addr: ip("0.0.1.1"), port: 80}},
		{name: "4a", in: "\x04\x01\x00\x50\x00\x00\x00\x01fred\x00ftp.example\x00",
			want: request{command: commandConnect, addr: ip("0.0.0.1"), port: 80, user: "fred", host: "ftp.example"}},
		{name: "4a with 0.0.0.255", in: "\x04\x01\x00\x50\x00\x00\x00\xff\x00ftp.example\x00",
			want: request{command: commandConnect, addr: ip("0.0.0.255"), port: 80, host: "ftp.example"}},
		{name: "longest user id", in: "\x04\x01\x00\x50\x0a\x05\x08\x08" + long + "\x00",
			want: request{command: commandConnect, addr: ip("10.5.8.8"), port: 80, user: long}},
		{name: "longest of all", in: "\x04\x01\x00\x50\x00\x00\x00\x01" + long + "\x00" + long + "\x00",
			want: request{command: commandConnect, addr: ip("0.0.0.1"), port: 80, user: long, host: long}},

		{name: "nothing", in: ""},
		{name: "version alone", in: "\x04"},
		{name: "no address yet", in: "\x04\x01\x00\x50\x0a"},
		{name: "no NUL yet", in: "\x04\x01\x00\x50\x0a\x05\x08\x08fred"},
		{name: "no NUL yet after 255", in: "\x04\x01\x00\x50\x0a\x05\x08\x08" + long},
		{name: "no host name yet", in: "\x04\x01\x00\x50\x00\x00\x00\x01fred\x00"},

		{name: "SOCKS5", in: "\x05\x01\x00", err: "version 5 is not 4"},
		{name: "HTTP", in: "GET / HTTP/1.1\r\n", err: "version 71 is not 4"},
		{name: "command 0", in: "\x04\x00", err: "command 0 is not CONNECT or BIND"},
		{name: "command 3", in: "\x04\x03\x00\x50", err: "command 3 is not CONNECT or BIND"},
		{name: "CONNECT to port 0", in: "\x04\x01\x00\x00\x0a\x05\x08\x08", err: "CONNECT to port 0"},
		{name: "user id too long", in: "\x04\x01\x00\x50\x0a\x05\x08\x08" + long + "u\x00", err: "user id of more than 255 bytes"},
		{name: "user id too long before its NUL", in: "\x04\x01\x00\x50\x0a\x05\x08\x08" + long + "u", err: "user id of more than 255 bytes"},
		{name: "host name too long", in: "\x04\x01\x00\x50\x00\x00\x00\x01\x00" + long + "u", err: "host name of more than 255 bytes"},
		{name: "empty host name", in: "\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", err: "empty host name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, n, err := parseRequest4([]byte(c.in))
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
			if c.want.command == 0 {
				assert.Zero(t, n, "needs more")
				return
			}
			assert.Equal(t, len(c.in), n)

			for i := range len(c.in) {
				_, n, err := parseRequest4([]byte(c.in[:i]))
				require.NoError(t, err, "the first %d bytes", i)
				require.Zero(t, n, "the first %d bytes", i)
			}
			got, n, err = parseRequest4([]byte(c.in + "\x00data\x04\x01"))
			require.NoError(t, err)
			assert.Equal(t, c.want, got, "with data behind")
			assert.Equal(t, len(c.in), n, "with data behind")
		})
	}
}

func TestAppendReply4(t *testing.T) {
	for _, c := range []struct {
		name string
		code byte
		addr netip.AddrPort
		want string
	}{
		{"granted", replyGranted, netip.MustParseAddrPort("10.1.0.104:34567"), "\x00\x5a\x87\x07\x0a\x01\x00\x68"},
		{"rejected", replyRejected, netip.AddrPort{}, "\x00\x5b\x00\x00\x00\x00\x00\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, string(appendReply4(nil, c.code, c.addr)))
		})
	}
}

// FuzzParseRequest4 checks that it does not matter how the bytes are divided: the first prefix
// that is a request or an error decides, and one of maxRequest bytes always does.
func FuzzParseRequest4(f *testing.F) {
	for _, s := range []string{
		"\x04\x01\x00\x50\x0a\x05\x08\x08fred\x00GET /",
		"\x04\x02\x00\x00\x00\x00\x00\x00root\x00",
		"\x04\x01\x00\x50\x00\x00\x00\x01fred\x00ftp.example\x00",
		"\x05\x01\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, n, err := parseRequest4(b)
		require.LessOrEqual(t, n, min(len(b), maxRequest))
		if err != nil {
			require.Zero(t, n)
			require.Equal(t, request{}, whole)
		}
		if len(b) >= maxRequest {
			require.True(t, n > 0 || err != nil, "undecided after %d bytes", len(b))
		}
		require.LessOrEqual(t, len(whole.user), maxField)
		require.LessOrEqual(t, len(whole.host), maxField)
		for i := range len(b) {
			part, m, partErr := parseRequest4(b[:i])
			switch {
			case m > 0:
				require.Equal(t, n, m)
				require.Equal(t, whole, part)
			case partErr != nil:
				require.Equal(t, partErr, err)
			default:
				require.True(t, n == 0 || i < n)
			}
		}
	})
}
