//go:build small

package docs

import "github.com/postern-router/postern/console"

func offerCertificates(*console.Live) {}
