// Command socksd is the process of package daemon under a parent, for its tests. They build it
// without cgo, as the shipped program is built.
package main

import (
	"os"

	"github.com/postern-router/postern/socks/daemon"
)

func main() { os.Exit(daemon.Spec.RunChild()) }
