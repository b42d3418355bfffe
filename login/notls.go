//go:build small

package login

import "errors"

// newSecurity is never asked for: a small flash has no room for TLS, and no service with it.
func newSecurity(TLS) (security, error) { return nil, errors.New("there is no TLS on this board") }
