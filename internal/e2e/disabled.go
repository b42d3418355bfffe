//go:build !e2e

package e2e

// Enabled is whether the tests run that boot machines, build kernels or need root: by the tag e2e.
const Enabled = false
