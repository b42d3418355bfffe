package pppoe

import (
	"bytes"
	"crypto/des"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //lint:ignore SA1019 it is weak, and MS-CHAP is made of it
)

// Codes of PAP (RFC 1334, section 2.2) and of CHAP (RFC 1994, section 4).
const (
	papRequest = 1
	papAck     = 2
	papNak     = 3

	chapChallenge = 1
	chapResponse  = 2
	chapSuccess   = 3
	chapFailure   = 4
)

const (
	// MaxUser and MaxPassword are how many bytes they can have: PAP has a byte for the length of
	// each.
	MaxUser     = 255
	MaxPassword = 255
	// papTries is how often a request of PAP is sent, each restartTime after the other.
	papTries = 10
)

// proof is how this side proves who it is. The zero value is for a server that does not want to know.
type proof struct {
	method         Methods
	user, password string
	send           func(protocol uint16, p packet)

	done  bool
	tries int
	// deadline is when PAP's request is sent again.
	deadline time.Time
	id       byte
	// answered says that a challenge was answered; expected is what MS-CHAPv2's server must prove.
	answered bool
	expected string
}

// refusedError says that the other side does not take user and password, or is not who it should be.
type refusedError string

func (e refusedError) Error() string { return string(e) }

// start begins. With CHAP the other side does.
func (a *proof) start(now time.Time, method Methods) {
	*a = proof{user: a.user, password: a.password, send: a.send, id: a.id, method: method, done: method == 0}
	if method == PAP {
		a.request(now)
	}
}

func (a *proof) request(now time.Time) {
	a.id++
	a.tries++
	a.deadline = now.Add(restartTime)
	data := append([]byte{byte(len(a.user))}, a.user...)
	data = append(append(data, byte(len(a.password))), a.password...)
	a.send(protocolPAP, packet{papRequest, a.id, data})
}

func (a *proof) pending() bool { return a.method == PAP && !a.done && a.tries > 0 }

// tick sends PAP's request again.
func (a *proof) tick(now time.Time) error {
	if !a.pending() || now.Before(a.deadline) {
		return nil
	}
	if a.tries == papTries {
		return errors.New("the server does not answer the password")
	}
	a.request(now)
	return nil
}

// takePAP takes a packet of PAP.
func (a *proof) takePAP(p packet) error {
	if a.method != PAP || a.done || p.id != a.id {
		return nil
	}
	switch p.code {
	case papAck:
		a.done = true
	case papNak:
		text := ""
		if len(p.data) > 0 {
			text = printable(p.data[1:min(len(p.data), 1+int(p.data[0]))])
		}
		return refused(text)
	}
	return nil
}

func refused(text string) error {
	if text == "" {
		return refusedError("authentication failed")
	}
	return refusedError("authentication failed: " + text)
}

// takeCHAP takes a packet of CHAP. A server may ask again at any time.
func (a *proof) takeCHAP(p packet) error {
	if a.method == 0 || a.method == PAP {
		return nil
	}
	switch p.code {
	case chapChallenge:
		if len(p.data) < 1 || int(p.data[0]) > len(p.data)-1 {
			return nil
		}
		value, ok := a.response(p.id, p.data[1:1+int(p.data[0])])
		if !ok {
			return nil
		}
		a.id, a.answered = p.id, true
		a.send(protocolCHAP, packet{chapResponse, p.id, append(append([]byte{byte(len(value))}, value...), a.user...)})
	case chapSuccess:
		if !a.answered || p.id != a.id {
			return nil
		}
		if a.method == MSCHAP2 && (len(p.data) < len(a.expected) || subtle.ConstantTimeCompare([]byte(strings.ToUpper(string(p.data[:len(a.expected)]))), []byte(a.expected)) != 1) {
			return refusedError("the server does not know the password itself")
		}
		a.answered, a.done = false, true
	case chapFailure:
		if a.answered && p.id == a.id {
			text := printable(p.data)
			if a.method&(MSCHAP1|MSCHAP2) != 0 {
				text = msFailure(string(p.data))
			}
			return refused(text)
		}
	}
	return nil
}

// msFailures are the errors of MS-CHAP (RFC 2433, section 6, and RFC 2759, section 6), of a server that
// says nothing else. 691 is a wrong password.
var msFailures = map[string]string{
	"646": "not at this time",
	"647": "the account is disabled",
	"648": "the password has expired",
	"649": "the account may not dial in",
	"691": "",
}

// msFailure is what the message of a failure says to people:
// "E=691 R=1 C=0123456789ABCDEF0123456789ABCDEF V=3 M=Access denied".
func msFailure(message string) string {
	if _, text, has := strings.Cut(message, "M="); has && printable([]byte(text)) != "" {
		return printable([]byte(text))
	}
	if code, has := strings.CutPrefix(message, "E="); has {
		code, _, _ = strings.Cut(code, " ")
		if text, known := msFailures[code]; known {
			return text
		}
	}
	return printable([]byte(message))
}

// response is the answer to a challenge.
func (a *proof) response(id byte, challenge []byte) ([]byte, bool) {
	switch {
	case a.method == CHAP && len(challenge) > 0:
		sum := md5.Sum(bytes.Join([][]byte{{id}, []byte(a.password), challenge}, nil))
		return sum[:], true
	case a.method == MSCHAP1 && len(challenge) == 8:
		// No LAN Manager response, and the flag that says so (RFC 2433, section 5).
		hash := passwordHash(a.password)
		return append(append(make([]byte, 24), challengeResponse([8]byte(challenge), hash)...), 1), true
	case a.method == MSCHAP2 && len(challenge) == 16:
		own := make([]byte, 16)
		rand.Read(own)
		return a.responseV2([16]byte(own), [16]byte(challenge)), true
	}
	return nil, false
}

// responseV2 is the answer of MS-CHAPv2 (RFC 2759, section 4), and sets what the server must prove
// (sections 5 and 8.7).
func (a *proof) responseV2(own, challenge [16]byte) []byte {
	name := a.user
	if _, after, domain := strings.Cut(name, `\`); domain {
		name = after
	}
	hash := passwordHash(a.password)
	both := sha1.Sum(bytes.Join([][]byte{own[:], challenge[:], []byte(name)}, nil))
	response := challengeResponse([8]byte(both[:8]), hash)

	twice := md4Sum(hash[:])
	digest := sha1.Sum(bytes.Join([][]byte{twice[:], response, []byte("Magic server to client signing constant")}, nil))
	digest = sha1.Sum(bytes.Join([][]byte{digest[:], both[:8], []byte("Pad to make it do more than one iteration")}, nil))
	a.expected = "S=" + strings.ToUpper(hex.EncodeToString(digest[:]))

	value := append(own[:], make([]byte, 8)...)
	return append(append(value, response...), 0)
}

// passwordHash is NtPasswordHash (RFC 2759, section 8.3).
func passwordHash(password string) [16]byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(password)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return md4Sum(b)
}

// challengeResponse is ChallengeResponse (RFC 2759, section 8.5).
func challengeResponse(challenge [8]byte, hash [16]byte) []byte {
	keys := append(hash[:], 0, 0, 0, 0, 0)
	var response []byte
	for ; len(keys) > 0; keys = keys[7:] {
		// 56 bits, each seven of which are the upper bits of a byte.
		var key [8]byte
		all := binary.BigEndian.Uint64(append([]byte{0}, keys[:7]...))
		for i := range key {
			key[i] = byte(all>>(49-7*i)) << 1
		}
		cipher, err := des.NewCipher(key[:])
		if err != nil {
			panic(err) // a key of eight bytes is one
		}
		block := make([]byte, 8)
		cipher.Encrypt(block, challenge[:])
		response = append(response, block...)
	}
	return response
}

// md4Sum is the hash of RFC 1320.
func md4Sum(b []byte) [16]byte {
	h := md4.New()
	h.Write(b)
	return [16]byte(h.Sum(nil))
}
