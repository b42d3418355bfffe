//go:build !e2e

package e2e

// Enabled is whether the tests run that boot machines or build kernels: by the tag e2e.
const Enabled = false
