package socks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseGreeting(t *testing.T) {
	all := strings.Repeat("m", 255)
	for _, c := range []struct {
		name, in, methods string
		n                 int
		err               string
	}{
		{name: "no authentication", in: "\x05\x01\x00", methods: "\x00", n: 3},
		{name: "curl", in: "\x05\x02\x00\x01", methods: "\x00\x01", n: 4},
		{name: "with the request behind", in: "\x05\x01\x02\x05\x01", methods: "\x02", n: 3},
		{name: "no method", in: "\x05\x00", methods: "", n: 2},
		{name: "all methods", in: "\x05\xff" + all, methods: all, n: 257},
		{name: "nothing"},
		{name: "no count yet", in: "\x05"},
		{name: "not all methods yet", in: "\x05\x02\x00"},
		{name: "HTTP", in: "GET", err: "version 71 is not 4 or 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			methods, n, err := parseGreeting([]byte(c.in))
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.methods, string(methods))
			assert.Equal(t, c.n, n)
		})
	}
}

func TestParseLogin(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		name, in, user, password string
		n                        int
		err                      string
	}{
		{name: "name and password", in: "\x01\x05alice\x06secret", user: "alice", password: "secret", n: 14},
		{name: "with the request behind", in: "\x01\x01a\x01b\x05\x01", user: "a", password: "b", n: 5},
		{name: "the longest", in: "\x01\xff" + long + "\xff" + long, user: long, password: long, n: 513},
		{name: "NUL", in: "\x01\x01\x00\x01\x00", user: "\x00", password: "\x00", n: 5},
		{name: "nothing"},
		{name: "no length yet", in: "\x01"},
		{name: "no name yet", in: "\x01\x05alic"},
		{name: "no length of the password yet", in: "\x01\x05alice"},
		{name: "no password yet", in: "\x01\x05alice\x06secre"},
		{name: "an empty name is read whole", in: "\x01\x00\x06secre"},
		{name: "empty name", in: "\x01\x00\x06secret", err: "login: empty name or password"},
		{name: "empty password", in: "\x01\x05alice\x00", err: "login: empty name or password"},
		{name: "version", in: "\x05", err: "version 5 of the login is not 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, password, n, err := parseLogin([]byte(c.in))
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []string{c.user, c.password}, []string{string(name), string(password)})
			assert.Equal(t, c.n, n)
		})
	}
}

func TestParseRequest5(t *testing.T) {
	long := strings.Repeat("h", 255)
	ip := netip.MustParseAddr
	for _, c := range []struct {
		name string
		in   string
		want request
		err  string
		code byte
	}{
		{name: "CONNECT", in: "\x05\x01\x00\x01\x0a\x05\x08\x08\x00\x50",
			want: request{command: commandConnect, addr: ip("10.5.8.8"), port: 80}},
		{name: "CONNECT by name", in: "\x05\x01\x00\x03\x0bftp.example\x00\x15",
			want: request{command: commandConnect, host: "ftp.example", port: 21}},
		{name: "the longest", in: "\x05\x01\x00\x03\xff" + long + "\x00\x15",
			want: request{command: commandConnect, host: long, port: 21}},
		{name: "the reserved byte means nothing", in: "\x05\x01\x99\x01\x0a\x05\x08\x08\x00\x50",
			want: request{command: commandConnect, addr: ip("10.5.8.8"), port: 80}},
		{name: "BIND for anyone", in: "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00",
			want: request{command: commandBind, addr: ip("0.0.0.0")}},
		{name: "0.0.0.1 is an address", in: "\x05\x01\x00\x01\x00\x00\x00\x01\x00\x50",
			want: request{command: commandConnect, addr: ip("0.0.0.1"), port: 80}},
		{name: "UDP ASSOCIATE", in: "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
			want: request{command: commandAssociate, addr: ip("0.0.0.0")}},

		{name: "nothing", in: ""},
		{name: "no address type yet", in: "\x05\x01\x00"},
		{name: "no address yet", in: "\x05\x01\x00\x01"},
		{name: "no length yet", in: "\x05\x01\x00\x03"},
		{name: "no port yet", in: "\x05\x01\x00\x03\x01x\x00"},
		{name: "an unknown command is read whole", in: "\x05\x09\x00\x01\x0a\x05\x08\x08\x00"},
		{name: "IPv6 is read whole", in: "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00"},

		{name: "version", in: "\x04", err: "version 4 of the request is not 5", code: reply5Failed},
		{name: "command 0", in: "\x05\x00\x00\x01\x0a\x05\x08\x08\x00\x50", err: "command 0 is not CONNECT, BIND or UDP ASSOCIATE", code: reply5Command},
		{name: "command 9", in: "\x05\x09\x00\x01\x0a\x05\x08\x08\x00\x50", err: "command 9 is not CONNECT, BIND or UDP ASSOCIATE", code: reply5Command},
		{name: "IPv6", in: "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
			err: "the destination is an IPv6 address", code: reply5AddressType},
		{name: "address type 2", in: "\x05\x01\x00\x02", err: "address type 2 is not IPv4, IPv6 or a name", code: reply5AddressType},
		{name: "empty name", in: "\x05\x01\x00\x03\x00\x00\x50", err: "empty host name", code: reply5Failed},
		{name: "port 0", in: "\x05\x01\x00\x01\x0a\x05\x08\x08\x00\x00", err: "CONNECT to port 0", code: reply5Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, n, err := parseRequest5([]byte(c.in))
			for i := range len(c.in) {
				_, n, err := parseRequest5([]byte(c.in[:i]))
				require.NoError(t, err, "the first %d bytes", i)
				require.Zero(t, n, "the first %d bytes", i)
			}
			if c.err != "" {
				require.EqualError(t, err, c.err)
				assert.Equal(t, c.code, code5(err))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
			if c.want.command == 0 {
				assert.Zero(t, n, "needs more")
				return
			}
			assert.Equal(t, len(c.in), n)
			got, n, err = parseRequest5([]byte(c.in + "\x05\x01data"))
			require.NoError(t, err)
			assert.Equal(t, c.want, got, "with data behind")
			assert.Equal(t, len(c.in), n, "with data behind")
		})
	}
}

func TestAppendReply5(t *testing.T) {
	assert.Equal(t, "\x05\x00\x00\x01\x0a\x01\x00\x68\x87\x07",
		string(appendReply5(nil, reply5Granted, netip.MustParseAddrPort("10.1.0.104:34567"))))
	assert.Equal(t, "\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00",
		string(appendReply5(nil, reply5HostUnreachable, netip.AddrPort{})))
}

// FuzzParseRequest5 checks that it does not matter how the bytes of each message are divided:
// the first prefix that is a message or an error decides, and one of maxRequest bytes always
// does.
func FuzzParseRequest5(f *testing.F) {
	for _, s := range []string{
		"\x05\x02\x00\x02\x05\x01\x00\x01\x0a\x05\x08\x08\x00\x50GET /",
		"\x05\x01\x00\x03\x0bftp.example\x00\x15",
		"\x05\x02\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
		"\x05\x03\x00\x09",
		"\x01\x05alice\x06secret\x05\x01",
	} {
		f.Add([]byte(s))
	}
	parsers := map[string]func([]byte) (any, int, error){
		"greeting": func(b []byte) (any, int, error) {
			methods, n, err := parseGreeting(b)
			return string(methods), n, err
		},
		"login": func(b []byte) (any, int, error) {
			name, password, n, err := parseLogin(b)
			return [2]string{string(name), string(password)}, n, err
		},
		"request": func(b []byte) (any, int, error) {
			r, n, err := parseRequest5(b)
			return r, n, err
		},
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, parse := range parsers {
			whole, n, err := parse(b)
			require.LessOrEqual(t, n, min(len(b), maxRequest), name)
			require.False(t, n > 0 && err != nil, name)
			if len(b) >= maxRequest {
				require.True(t, n > 0 || err != nil, "%s: undecided after %d bytes", name, len(b))
			}
			for i := range len(b) {
				part, m, partErr := parse(b[:i])
				switch {
				case m > 0:
					require.Equal(t, n, m, name)
					require.Equal(t, whole, part, name)
				case partErr != nil:
					require.Equal(t, partErr, err, name)
				default:
					require.True(t, n == 0 || i < n, name)
				}
			}
		}
	})
}
