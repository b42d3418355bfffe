// Command qemu boots an image as a router between namespaces of this machine that
// play the hosts of the manual's FTP example, with real programs on them. Its
// tests are the project's end-to-end tests.
//
// Synopsis:
//
//	qemu lab [--kvm] [--example ftp|home] [BOARD]
//	qemu bench [BOARD...]
//
// It needs root, for the namespaces and taps. Whatever it makes is gone when it
// ends; what a run left that was killed is swept by the next.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/postern-router/postern/board"
)

const help = `Usage: go run ./qemu COMMAND [FLAGS] [BOARD...]

Commands:
  lab      boot BOARD (default: malta) and show an example: FTP by SOCKS as in the
           manual, or a household; with a terminal, stay at the router's console
  bench    boot the boards (default: all) one by one and print the time to the
           first service, the memory that is left and the idle CPU; then with their
           defaults, the time to the first DHCP and DNS answers; then what the boards
           (default: malta) carry, masqueraded and through SOCKS

Flags:
%s
The image is taken from out/BOARD, where "go run ./image build BOARD" puts it.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := logic(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "qemu:", err)
		os.Exit(1)
	}
}

func logic(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("qemu", pflag.ContinueOnError)
	flags.Usage = func() {}
	kvm := flags.Bool("kvm", false, "lab: use the host's processor instead of emulation (board pc on an amd64 host)")
	shown := flags.String("example", exampleFTP, "lab: what is shown, "+exampleFTP+" or "+exampleHome)
	images := flags.String("images", "out", "lab: the folder with the images")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		fmt.Printf(help, flags.FlagUsages())
		return nil
	} else if err != nil {
		return err
	}
	var boards []board.Board
	for _, name := range flags.Args()[min(1, flags.NArg()):] {
		b, err := board.ByName(name)
		if err != nil {
			return err
		}
		if b.QEMU.Machine == "" {
			return fmt.Errorf("%s: QEMU has no machine like it", b.Name)
		}
		boards = append(boards, b)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("this needs root for network namespaces and taps")
	}
	switch command := flags.Arg(0); command {
	case "lab":
		if len(boards) == 0 {
			boards = board.Lab()[:1]
		}
		if len(boards) > 1 {
			return fmt.Errorf("lab: one board at a time, not %d", len(boards))
		}
		if *shown != exampleFTP && *shown != exampleHome {
			return fmt.Errorf("example %q: want %s or %s", *shown, exampleFTP, exampleHome)
		}
		return lab(ctx, boards[0], *images, *kvm, *shown)
	case "bench":
		busy := boards
		if len(boards) == 0 {
			boards, busy = board.Lab(), board.Lab()[:1]
		}
		return bench(ctx, boards, busy, *images)
	default:
		return fmt.Errorf("command %q: want lab or bench (--help tells more)", command)
	}
}
