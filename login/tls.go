//go:build !small

package login

import (
	"crypto/tls"
	"net"

	"github.com/postern-router/postern/certificate"
)

// newSecurity returns what puts TLS 1.2 or 1.3 over a connection, with the suites that Go has by default. There are no certificates
// of clients and no renegotiation. A client resumes a session while the process lives: its key is in no other place.
func newSecurity(t TLS) (security, error) {
	pair, err := certificate.Certificate{Chain: t.Chain, Key: t.Key}.KeyPair()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: pair.Chain, PrivateKey: pair.Key}},
	}
	return func(conn net.Conn) secureConn { return tls.Server(conn, config) }, nil
}
