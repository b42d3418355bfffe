package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestInstalled(t *testing.T) {
	assert.Equal(t, map[string]bool{"make": true, "nodejs": true, "npm": true, "node-types": true},
		installed("installed make, \ninstalled nodejs, npm, node-types (= 18.1)\nconfig-files curl, \nnot-installed vim, editor\n"))
}
