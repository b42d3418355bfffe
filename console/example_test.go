package console_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-router/postern/console"
)

func ExampleLoad() {
	const text = `
/ip address
add address=192.168.0.1/24 interface=ether2
/ip socks
set enabled=yes port=70000
`
	cfg, err := console.Load("router.rsc", strings.NewReader(text))
	fmt.Println(err)
	var bad *console.BadLine
	if errors.As(err, &bad) {
		fmt.Println("line", bad.Line, "SOCKS must not run:", bad.Without.Has(console.DisableSOCKS))
	}
	fmt.Println(cfg.Addresses[0].Address, cfg.Socks.Enabled)
	// Output:
	// router.rsc:5: value of port out of range (1..65535)
	// line 5 SOCKS must not run: true
	// 192.168.0.1/24 false
}

func ExampleExport() {
	cfg := console.Default()
	cfg.Identity = "my router"
	cfg.Socks.Enabled = true
	fmt.Print(console.Export(cfg))
	// Output:
	// /system identity
	// set name="my router"
	// /ip socks
	// set enabled=yes
}

func ExampleSession_Execute() {
	var session console.Session
	cfg := console.Default()
	for _, line := range []string{"/ip socks access", "add dst-port=21 src-address=192.168.0.2", "print", "add dst-port=x"} {
		fmt.Println(session.Prompt(cfg.Identity) + line)
		result, err := session.Execute(cfg, console.Live{}, line)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Print(result.Output)
		cfg = result.Config
	}
	// Output:
	// [admin@postern] > /ip socks access
	// [admin@postern] ip socks access> add dst-port=21 src-address=192.168.0.2
	// [admin@postern] ip socks access> print
	// Flags: X - disabled
	//  0   src-address=192.168.0.2 dst-port=21 action=allow
	// [admin@postern] ip socks access> add dst-port=x
	// invalid value for argument dst-port; expected [!]port, port-port or a list of them: 0..65535, at most 15, not "x"
}

func ExampleDo() {
	result, err := console.Do(console.Default(), console.Live{}, "ip socks access", "add",
		console.Argument{Name: "dst-port", Value: "21"}, console.Argument{Name: "comment", Value: "FTP"})
	if err != nil {
		fmt.Println(err)
		return
	}
	rows, err := console.Query(result.Config, console.Live{}, "ip socks access",
		[]console.Condition{{Name: "comment", Test: "=", Value: "FTP"}}, []string{"dst-port", "disabled"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, row := range rows {
		fmt.Println(row.ID == result.Added)
		for _, p := range row.Pairs {
			fmt.Println(p.Name, p.Value)
		}
	}
	// Output:
	// true
	// dst-port 21
	// disabled no
}
