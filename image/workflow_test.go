package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
)

// TestWorkflow checks that the workflow builds every board, in the job of its kernel.
func TestWorkflow(t *testing.T) {
	text, err := os.ReadFile("../.github/workflows/images.yml")
	require.NoError(t, err)
	kernel, jobs := "", map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "- kernel: "); ok {
			kernel = name
		} else if names, ok := strings.CutPrefix(line, "boards: "); ok {
			for _, b := range strings.Fields(names) {
				assert.Empty(t, jobs[b], "%s is built twice", b)
				jobs[b] = kernel
			}
		}
	}
	for _, b := range board.All() {
		assert.Equal(t, b.Kernel.Name, jobs[b.Name], b.Name)
		delete(jobs, b.Name)
	}
	assert.Empty(t, jobs, "no boards")
}
