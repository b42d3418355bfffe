//go:build small

package console

// Boards with a small flash have no TLS: an import may have lines of its services, which say that they are off or which they could be,
// and /certificate is absent.
var (
	tlsServices []NetworkService
	absentTLS   = []string{"api-ssl", "www-ssl"}
)

const (
	noTLS                = "this board has no room for TLS"
	absentCertificate    = "certificate "
	absentOfCertificates = ""
	absentOfServices     = "certificate=none "
)

func certificateMenus() []*menu { return nil }

func serviceCertificate() []property { return nil }

func (c *Config) completeCertificates(Live) error { return nil }

func (c *Config) keepCertificates(Config) {}

func (c Config) checkCertificates() error { return nil }
