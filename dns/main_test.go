package dns

import (
	"testing"

	"github.com/postern-router/postern/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }
