// Package certificate makes and checks the certificates of the router's services over TLS (/certificate). Boards with a small flash
// have no TLS: of the package they have the type alone.
//
// It promises:
//   - what it makes is taken by browsers, OpenSSL, Python and Go once a person trusts it: a key of P-256, signed by itself, no
//     authority for others, with the names and addresses by which clients ask for it;
//   - it is valid from before the software was built, whatever the router's clock says: a board without a battery begins in 1970,
//     and clients compare with their own clocks;
//   - keys and certificates are bounded (MaxText), and what is accepted works: the key is that of the certificate.
package certificate

const (
	// MaxCertificates is how many there may be.
	MaxCertificates = 8
	// MaxText is how many bytes Chain and Key have at most together, so that a line of the configuration holds them: enough for RSA
	// with 4096 bits and two authorities between.
	MaxText = 12000
	// MaxAltNames is how many AltNames there may be.
	MaxAltNames = 16
)

// Certificate is a certificate with its key, or what one is to be made of.
type Certificate struct {
	Name       string
	CommonName string
	// AltNames are what clients ask for: "DNS:router.lan" or "IP:192.168.0.1".
	AltNames []string
	// Days is for how long it is made.
	Days int
	// Chain is the certificate, and those of the authorities between in the order of their signatures: each DER (RFC 5280) in base64,
	// separated by commas. "" is that there is none yet.
	Chain string
	// Key is the private key (PKCS #8) in base64.
	Key     string
	Comment string
}
