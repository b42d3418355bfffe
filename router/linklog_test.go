package router

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLinkLog(t *testing.T) {
	g := started(t, "/interface ethernet set ether1 name=wan")
	tell := g.r.linkLog()
	tell("ether1", true)
	tell("ether2", false)
	assert.Contains(t, g.log(), "interface,info wan link up\n")
	assert.Contains(t, g.log(), "interface,info ether2 link down\n")
	for range 1000 { // it takes less than linkPause, on any machine that can run the tests
		tell("ether2", true)
	}
	assert.LessOrEqual(t, strings.Count(g.log(), "link up"), 1000/2)
}
