package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// protocol is where the copy of SSH's protocol is.
const protocol = "ssh/sshd/internal/protocol/"

// copied are packages of modules of which the overlay has a copy in this project: go build patches no
// file of a module.
var copied = []struct {
	from, to string
	without  []string // files that are not copied, besides those in assembly, which an overlay cannot have
}{
	{"golang.org/x/crypto/ssh", protocol, []string{"control.go", "mlkem.go"}},
	{"golang.org/x/crypto/internal/poly1305", protocol + "poly1305", []string{"sum_asm.go", "sum_s390x.go"}},
}

// copies returns the files of copied: where they are in the overlay, and where they come from.
func copies() (map[string]string, error) {
	project, err := projectFolder()
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, c := range copied {
		list, err := output("go", "list", "-f", `{{.Dir}} {{join .GoFiles " "}} {{join .IgnoredGoFiles " "}}`, c.from)
		if err != nil {
			return nil, err
		}
		words := strings.Fields(list)
		for _, name := range words[1:] {
			if !slices.Contains(c.without, name) {
				files[filepath.Join(project, c.to, name)] = filepath.Join(words[0], name)
			}
		}
	}
	return files, nil
}

// projectFolder is the folder of this project's sources.
func projectFolder() (string, error) {
	return output("go", "list", "-m", "-f", "{{.Dir}}", "github.com/postern-router/postern")
}

// sshPatches leave out of golang.org/x/crypto/ssh what the router's server does not offer: all keys but
// those of Ed25519 and RSA (for whose signatures package ssh has less code than crypto/rsa), certificates, all key exchanges but Curve25519's, AES-GCM, 3DES, RC4, SHA-1, GSSAPI.
// The library registers and imports them whatever a server's configuration says. With these patches the
// server takes 0.44 MB of memory and 84 KB of flash on malta, without them 1.56 MB and 353 KB.
//
// They change what a client can make the server keep, too: by a packet, and by what it sends into a
// channel that nobody reads.
var sshPatches = []patch{
	{
		file:  "ssh/sshd/server.go",
		wrong: "\"golang.org/x/crypto/ssh\"",
		right: "\"github.com/postern-router/postern/" + protocol[:len(protocol)-1] + "\"",
		times: 1,
		why:   "the program is larger",
	},

	ofProtocol("channel.go", "channelWindowSize = 64 * channelMaxPacket", "", "channelWindowSize = 2 * channelMaxPacket"),
	ofProtocol("cipher.go", "maxPacket = 256 * 1024", "", "maxPacket = 36 * 1024"), // 32 KiB of data, and what is around it

	ofProtocol("client.go", "// NewControlClientConn establishes", "// clientHandshake performs", ""),
	ofProtocol("cipher.go", "\"golang.org/x/crypto/internal/poly1305\"", "", "\"github.com/postern-router/postern/"+protocol+"poly1305\""),
	ofProtocol("poly1305/mac_noasm.go", "//go:build ", "package poly1305\n", ""),
	ofProtocol("cipher.go", "\tcipherModes[CipherAES192CTR]", "\tcipherModes[CipherAES256CTR]", ""),
	ofProtocol("cipher.go", "\tcipherModes[CipherAES128GCM]", "\tif fips140.Enabled() {", ""),
	ofProtocol("cipher.go", "\t// Insecure ciphers not included", "}\n\n// prefixLen", ""),
	ofProtocol("mac.go", "\t\"crypto/sha1\"\n", "", ""),
	ofProtocol("mac.go", "\tmacModes[HMACSHA1] =", "\n}\n", ""),
	ofProtocol("common.go", "\t_ \"crypto/sha1\"\n", "", ""),

	ofProtocol("kex.go", "\t\"crypto/ecdsa\"\n\t\"crypto/elliptic\"\n", "", ""),
	ofProtocol("kex.go", "\t\"crypto/rand\"\n\t\"encoding/binary\"\n", "", ""),
	ofProtocol("kex.go", "\t\"math/big\"\n", "", ""),
	ofProtocol("kex.go", "\t\"sync\"\n", "", ""),
	ofProtocol("kex.go", "// dhGroup is", "// kexAlgoMap defines", ""),
	ofProtocol("kex.go", "\tkexAlgoMap[KeyExchangeMLKEM768X25519]", "\tif fips140.Enabled() {", ""),
	ofProtocol("kex.go", "\tp, _ := new(big.Int).SetString(oakleyGroup2, 16)\n", "\tkexAlgoMap[KeyExchangeCurve25519]", ""),
	ofProtocol("kex.go", "\tkexAlgoMap[InsecureKeyExchangeDHGEXSHA1]", "}\n\n// curve25519sha256", ""),
	{
		file:  protocol + "kex.go",
		wrong: "\tki := new(big.Int).SetBytes(secret[:])\n\tK := make([]byte, intLength(ki))\n\tmarshalInt(K, ki)\n",
		right: "\tK := mpint(secret)\n",
		times: 2,
		why:   "the program is larger",
	},
	ofProtocol("kex.go", "// dhGEXSHA implements", endOfFile, `// mpint is a number as RFC 4251 writes it, from its bytes.
func mpint(b []byte) []byte {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) > 0 && b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return append(appendInt(nil, len(b)), b...)
}
`),

	ofProtocol("keys.go", "\t\"bytes\"\n", "\t\"errors\"\n", "\t\"crypto\"\n\t\"crypto/ed25519\"\n"),
	ofProtocol("keys.go", "import (\n", "", "import (\n\tusers \"github.com/postern-router/postern/ssh\"\n\n"),
	ofProtocol("keys.go", "\t\"math/big\"\n\t\"slices\"\n", ")\n", "\t\"slices\"\n"),
	ofProtocol("keys.go", "\tcase InsecureKeyAlgoDSA:\n\t\treturn parseDSA(in)", "\tcase KeyAlgoED25519:\n\t\treturn parseED25519(in)\n", ""),
	ofProtocol("keys.go", "\tcase KeyAlgoSKED25519:\n\t\treturn parseSKEd25519(in)\n", "\t}\n\tif keyFormat :=", ""),
	ofProtocol("keys.go", "// parseAuthorizedKey parses", "// ParsePublicKey parses", ""),
	ofProtocol("keys.go", "// MarshalAuthorizedKey serializes", "// PublicKey represents", ""),
	ofProtocol("keys.go", "type rsaPublicKey ", "type ed25519PublicKey ", `// rsaPublicKey is one whose signatures package ssh of the router checks.
type rsaPublicKey struct{ users.PublicKey }

func parseRSA(in []byte) (out PublicKey, rest []byte, err error) {
	k, err := users.ParseRSA(in)
	return rsaPublicKey{k}, nil, err
}

func (k rsaPublicKey) Marshal() []byte { return k.Blob() }

func (k rsaPublicKey) Verify(data []byte, s *Signature) error {
	return k.VerifyRSA(s.Format, data, s.Blob)
}

`),
	ofProtocol("keys.go", "func supportedEllipticCurve", endOfFile, ""),

	ofProtocol("messages.go", "\t\"math/big\"\n", "", ""),
	ofProtocol("messages.go", "type kexDHInitMsg ", "const msgKexECDHInit ", ""),
	ofProtocol("messages.go", "type kexDHReplyMsg ", "// See RFC 4253, section 10.\nconst msgServiceRequest ", ""),
	ofProtocol("messages.go", "\t\t\tif t == bigIntType {\n\t\t\t\tvar n *big.Int\n\t\t\t\tif n, data",
		"\t\t\t\treturn fieldError(structType, i, \"pointer to unsupported type\")", "\t\t\t{\n"),
	ofProtocol("messages.go", "\t\t\tif t == bigIntType {\n\t\t\t\tvar n *big.Int\n\t\t\t\tnValue", "\t\t\t\tpanic(fmt.Sprintf(\"pointer to unknown", "\t\t\t{\n"),
	ofProtocol("messages.go", "var bigOne = big.NewInt(1)\n", "", ""),
	ofProtocol("messages.go", "func parseInt(", "func parseUint32(", ""),
	ofProtocol("messages.go", "func intLength(", "func marshalUint32(", ""),
	ofProtocol("messages.go", "func marshalInt(", "func writeString(", ""),
	ofProtocol("messages.go", "var bigIntType = reflect.TypeFor[*big.Int]()\n", "", ""),
	ofProtocol("messages.go", "\tcase msgKexDHInit:\n", "\tcase msgUserAuthRequest:\n", ""),

	ofProtocol("server.go", "\tcert, isCert := pubKey.(*Certificate)\n\ttarget", "}\n\n// ServerConfig holds", "\treturn pubKey\n"),
	ofProtocol("server.go", "\tif cert, ok := pubKey.(*Certificate); ok {\n", "\treturn false\n}\n", ""),
	ofProtocol("server.go", "\t\tcase \"gssapi-with-mic\":\n", "\t\tdefault:\n\t\t\tauthErr = fmt.Errorf(\"ssh: unknown method", ""),
	ofProtocol("ssh_gss.go", "\t\"encoding/asn1\"\n\t\"errors\"\n", "", ""),
	ofProtocol("ssh_gss.go", "\tkrb5OID, _ = asn1.Marshal(krb5Mesh)\n", "", ""),
	ofProtocol("ssh_gss.go", "var (\n\t// OpenSSH supports", "// See RFC 4462 section 3.6.\n", ""),
	ofProtocol("tcpip.go", "var portRandomizer = rand.New(rand.NewSource(time.Now().UnixNano()))\n", "", "var portRandomizer *rand.Rand\n"),

	// The table of P-256 and its self-test are in every program with Curve25519, because they are made at its
	// start: here when they are used.
	{
		file:  "src/crypto/internal/fips140/nistec/p256.go",
		wrong: "func init() {\n\tp256GeneratorTablesPtr ",
		right: "var p256TablesOnce sync.Once\n\nfunc initP256Tables() {\n\tp256GeneratorTablesPtr ",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/crypto/internal/fips140/nistec/p256.go",
		wrong: "\tt := &p256AffinePoint{}\n\ttable :=",
		right: "\tp256TablesOnce.Do(initP256Tables)\n\tt := &p256AffinePoint{}\n\ttable :=",
		times: 1,
		why:   "P-256 panics",
	},
	{
		file:  "src/crypto/internal/fips140/ecdh/cast.go",
		wrong: "var fipsSelfTest = sync.OnceFunc(func() {\n",
		right: "var selfTestOnce sync.Once\n\nfunc fipsSelfTest() {\n\tselfTestOnce.Do(selfTest)\n}\n\nfunc selfTest() {\n",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/crypto/internal/fips140/ecdh/cast.go",
		wrong: "\t})\n})\n",
		right: "\t})\n}\n",
		times: 1,
		why:   "the program is larger",
	},
}

// ofProtocol is a patch of the copied protocol: right replaces wrong, or all from it to until.
func ofProtocol(file, wrong, until, right string) patch {
	return patch{file: protocol + file, wrong: wrong, until: until, right: right, times: 1, why: "the program is larger"}
}
