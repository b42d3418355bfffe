//go:build !mips

package main

// keepTimedWaits is for a defect of Go on big-endian 32-bit MIPS alone.
func keepTimedWaits() {}
