package pppoe

import (
	"crypto/md5"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// The values of RFC 1320, appendix A.5.
func TestMD4(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "31d6cfe0d16ae931b73c59d7e0c089c0",
		"a":                             "bde52cb31de33e46245e05fbdbd6fb24",
		"message digest":                "d9130a8164549fe818874806e1c7014b",
		"abcdefghijklmnopqrstuvwxyz":    "d79e1c308aa5bbcdeea8ed63df412da9",
		strings.Repeat("1234567890", 8): "e33b4ddc9c38f2199c3e7b164fcc0536",
	} {
		sum := md4Sum([]byte(text))
		assert.Equal(t, want, hex.EncodeToString(sum[:]), "%q", text)
	}
}

// The example of RFC 2759, section 9.2.
func TestMSCHAPv2(t *testing.T) {
	a := &proof{method: MSCHAP2, user: "User", password: "clientPass"}
	value := a.responseV2([16]byte(unhex(t, "21402324255E262A28295F2B3A337C7E")), [16]byte(unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628")))
	assert.Equal(t, "21402324255e262a28295f2b3a337c7e"+"0000000000000000"+"82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df"+"00", hex.EncodeToString(value))
	assert.Equal(t, "S=407A5589115FD0D6209F510FE9C04566932CDA56", a.expected)

	// A domain is not part of the name.
	b := &proof{method: MSCHAP2, user: `BIGCO\User`, password: "clientPass"}
	b.responseV2([16]byte(unhex(t, "21402324255E262A28295F2B3A337C7E")), [16]byte(unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628")))
	assert.Equal(t, a.expected, b.expected)
}

// The example of RFC 2433, appendix B.2: a password "MyPw" and its response to a challenge.
func TestMSCHAP1(t *testing.T) {
	hash := passwordHash("MyPw")
	assert.Equal(t, "fc156af7edcd6c0edde3337d427f4eac", hex.EncodeToString(hash[:]))
	assert.Equal(t, "4e9d3c8f9cfd385d5bf4d3246791956ca4c351ab409a3d61",
		hex.EncodeToString(challengeResponse([8]byte(unhex(t, "102DB5DF085D3041")), hash)))
}

// sent is what a proof sends.
type sent struct {
	protocol uint16
	packet
}

func newProof(method Methods) (*proof, *[]sent) {
	var all []sent
	a := &proof{user: "user", password: "secret", send: func(protocol uint16, p packet) { all = append(all, sent{protocol, p}) }}
	a.start(time.Unix(0, 0), method)
	return a, &all
}

func TestPAP(t *testing.T) {
	a, all := newProof(PAP)
	require.Len(t, *all, 1)
	assert.Equal(t, sent{protocolPAP, packet{papRequest, 1, []byte("\x04user\x06secret")}}, (*all)[0])
	require.NoError(t, a.takePAP(packet{papAck, 9, nil}))
	assert.False(t, a.done, "of another request")
	require.NoError(t, a.takeCHAP(packet{chapSuccess, 1, nil}))
	assert.False(t, a.done, "of another protocol")
	require.NoError(t, a.takePAP(packet{papAck, 1, []byte("\x02ok")}))
	assert.True(t, a.done)

	a, _ = newProof(PAP)
	require.EqualError(t, a.takePAP(packet{papNak, 1, []byte("\xFFgo\naway")}), "authentication failed: go?away")
	a, _ = newProof(PAP)
	require.EqualError(t, a.takePAP(packet{papNak, 1, nil}), "authentication failed")

	a, all = newProof(PAP)
	now := time.Unix(0, 0)
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		now = now.Add(restartTime)
		err = a.tick(now)
	}
	require.Error(t, err)
	assert.Len(t, *all, papTries)
}

func TestCHAP(t *testing.T) {
	challenge := []byte("\x10" + "0123456789abcdef" + "server")
	for _, method := range []Methods{CHAP, MSCHAP2} {
		a, all := newProof(method)
		assert.Empty(t, *all)
		require.NoError(t, a.takeCHAP(packet{chapSuccess, 0, nil}))
		assert.False(t, a.done, "without a challenge")
		for _, bad := range []string{"", "\x10short", "\x00name"} {
			require.NoError(t, a.takeCHAP(packet{chapChallenge, 1, []byte(bad)}))
		}
		assert.Empty(t, *all)
		require.NoError(t, a.takeCHAP(packet{chapChallenge, 7, challenge}))
		require.Len(t, *all, 1)
		assert.EqualValues(t, chapResponse, (*all)[0].code)
		assert.Equal(t, "user", string((*all)[0].data[1+(*all)[0].data[0]:]))
		require.NoError(t, a.takeCHAP(packet{chapSuccess, 8, nil}))
		assert.False(t, a.done, "of another challenge")
		require.NoError(t, a.takeCHAP(packet{chapSuccess, 7, []byte(strings.ToLower(a.expected) + " M=hello")}))
		assert.True(t, a.done)
		require.NoError(t, a.takeCHAP(packet{chapSuccess, 7, []byte("repeated")}))

		require.NoError(t, a.takeCHAP(packet{chapChallenge, 9, challenge}), "again")
		require.Len(t, *all, 2)
		require.EqualError(t, a.takeCHAP(packet{chapFailure, 9, []byte("go\naway")}), "authentication failed: go?away")
	}

	// RFC 1994, section 4.1: the hash of identifier, secret and challenge.
	a, all := newProof(CHAP)
	require.NoError(t, a.takeCHAP(packet{chapChallenge, 7, challenge}))
	assert.Equal(t, "10"+hex.EncodeToString(md5of("\x07secret0123456789abcdef")), hex.EncodeToString((*all)[0].data[:17]))

	// A server that does not know the password is refused.
	a, _ = newProof(MSCHAP2)
	require.NoError(t, a.takeCHAP(packet{chapChallenge, 7, challenge}))
	for _, text := range []string{"", "S=", "S=" + strings.Repeat("0", 40)} {
		require.EqualError(t, a.takeCHAP(packet{chapSuccess, 7, []byte(text)}), "the server does not know the password itself")
	}
}

// The messages of pppd 2.4.9, and others.
func TestMSFailure(t *testing.T) {
	for message, want := range map[string]string{
		"E=691 R=1 C=7296c1acd20b3339c0e2f7f9d5d94858 V=0 M=Access denied": "authentication failed: Access denied",
		"E=691 R=1 C=fc69f58341967dad V=0":                                 "authentication failed",
		"E=647 R=0 V=3":                                                    "authentication failed: the account is disabled",
		"E=648":                                                            "authentication failed: the password has expired",
		"E=648 R=0 V=3 M=":                                                 "authentication failed: the password has expired",
		"E=1 R=0":                                                          "authentication failed: E=1 R=0",
		"M=no\tmore":                                                       "authentication failed: no?more",
		"":                                                                 "authentication failed",
	} {
		for _, method := range []Methods{MSCHAP1, MSCHAP2} {
			a, _ := newProof(method)
			challenge := "\x080123456789abcdef"
			if method == MSCHAP2 {
				challenge = "\x100123456789abcdef"
			}
			require.NoError(t, a.takeCHAP(packet{chapChallenge, 9, []byte(challenge[:1+challenge[0]])}))
			assert.EqualError(t, a.takeCHAP(packet{chapFailure, 9, []byte(message)}), want, "%q", message)
		}
	}
}

func md5of(text string) []byte {
	sum := md5.Sum([]byte(text))
	return sum[:]
}
