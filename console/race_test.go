//go:build race

package console

// raced is whether the race detector is in the program.
const raced = true
