package router

import (
	"testing"

	"github.com/postern-router/postern/internal/testnet"
)

// TestMain runs the tests as the root of a machine of their own.
func TestMain(m *testing.M) { testnet.Main(m) }
