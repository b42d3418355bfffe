// Command socksd is a SOCKS server, of version 4 or 5, for any Linux host: see package daemon.
package main

import (
	"os"

	"github.com/postern-router/postern/socks/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:])) }
