// Command socksd is a SOCKS4 server for any Linux host: see package daemon.
package main

import (
	"os"

	"github.com/postern-router/postern/socks/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:])) }
