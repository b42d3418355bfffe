package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNoMachine(t *testing.T) {
	for _, command := range []string{"lab", "bench"} {
		assert.EqualError(t, logic(t.Context(), []string{command, "apu2"}), "apu2: QEMU has no machine like it")
	}
}
