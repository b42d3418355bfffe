// Command image builds what is flashed: a kernel, and a compressed initramfs with one Go
// program, a static iptables and the board's default configuration.
//
// Synopsis:
//
//	image setup [--lab] [BOARD...]
//	image build [--debug] [BOARD...]
//	image kernels [BOARD...]
//	image size [BOARD...]
//	image release [BOARD...]
//	image boards [BOARD...]
//	image qemu BOARD
//	image keys [FOLDER]
//
// Kernels, iptables and the debugging tools are cached by a hash of everything that goes into them (see
// POSTERN_CACHE in the help); the rest is built each time. Two builds of one commit with the
// same Debian packages give the same bytes. It is an error if the kernel's configuration
// lacks an option that a fragment asks for, if a tool is missing, or if an image exceeds its
// board's limit.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

const help = `Usage: go run ./image COMMAND [FLAGS] [BOARD...]

Commands:
  setup    install the Debian packages that are needed to build for the boards
  build    build the boards' images into the folder out/BOARD
  kernels  build the boards' kernels into the cache, and nothing else
  size     build, and show the size of each part of the images
  release  build the boards' images from what is committed, and put them into
           the folder out/release, which any web server can serve
  boards   list the boards: the serial line, how an image is flashed, what was verified
  qemu     show the command that starts a board's image in QEMU, by hand
  pack     FOLDER BOARD: make the board's images again from a kernel and an
           initramfs.cpio.xz in FOLDER that were changed; a file version there
           replaces the version (name and date, in seconds since 1970)
  trace    BOARD: copy standard input, and put in function, file and line where a
           stack trace of the board's program, which has none, says "?:NUMBER"
  keys     make the keys that images are signed with, in FOLDER; a build does
           so itself if there are none

Without a BOARD a command is for the boards that the tests boot in QEMU, "boards" for all.
The word all stands for every board, the word rest for those that the tests do not boot.

Flags:
%s
Environment:
  POSTERN_CACHE       folder for built kernels, iptables and debugging tools, and
                      for what tests take from npm's registry
                      (default: postern in the user's cache folder)
  POSTERN_CACHE_SEED  another such folder, read first and never written
  POSTERN_KEYS        folder of the keys that images are signed with
                      (default: postern/keys in the user's configuration folder)
`

func main() {
	if err := logic(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func logic(args []string) error {
	flags := pflag.NewFlagSet("image", pflag.ContinueOnError)
	flags.Usage = func() {}
	debug := flags.Bool("debug", false, "build: add a shell and tools of u-root, into out/BOARD-debug")
	lab := flags.Bool("lab", false, "setup: also what the lab and the tests need, of Debian and npm")
	within := flags.Duration("within", 0, "build: start no kernel build that would end after this time; name the boards that are left out")
	out := flags.String("out", "out", "build, size, release, qemu: the folder that images are put in")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		fmt.Printf(help, flags.FlagUsages())
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return fmt.Errorf("no command: want setup, build, kernels, size, release, boards, qemu, pack, trace or keys (--help tells more)")
	}
	command, names := flags.Arg(0), flags.Args()[1:]
	switch {
	case command == "keys":
		return keys(names)
	case command == "pack":
		return pack(names)
	case command == "boards" && len(names) == 0:
		for _, b := range board.All() {
			fmt.Print(describe(b))
		}
		return nil
	case (command == "qemu" || command == "trace") && len(names) != 1:
		return fmt.Errorf("%s: one board, not %d", command, len(names))
	}
	boards, err := boardsByName(names)
	if err != nil {
		return err
	}
	switch command {
	case "setup":
		if *lab && len(boards) == 1 && boards[0].QEMU.Machine == "" {
			return fmt.Errorf("no lab of %s: QEMU has no machine like it", boards[0].Name)
		}
		return setup(boards, *lab)
	case "boards":
		for _, b := range boards {
			fmt.Print(describe(b))
			fmt.Printf("%16s kernel's command line: %s\n", "", b.Kernel.CommandLine)
		}
		return nil
	case "qemu":
		b := boards[0]
		line, err := qemuCommand(b, *out)
		if err != nil {
			return err
		}
		if image := filepath.Join(*out, b.Name, factoryImage); !exists(image) {
			return fmt.Errorf("%s is not there: go run ./image build %s makes it", image, b.Name)
		}
		fmt.Print(line)
		return nil
	case "trace":
		return trace(boards[0], os.Stdin, os.Stdout)
	case "kernels":
		c, err := cache.Open()
		if err != nil {
			return err
		}
		for _, b := range boards {
			if _, err := kernel(c, b, ""); err != nil {
				return err
			}
		}
		return nil
	case "release":
		c, err := cache.Open()
		if err != nil {
			return err
		}
		folder, err := release(c, boards, *out)
		if err != nil {
			return err
		}
		say("release: %s", folder)
		return nil
	case "build", "size":
		c, err := cache.Open()
		if err != nil {
			return err
		}
		if *within > 0 {
			if boards, err = buildKernelsBy(c, boards, time.Now().Add(*within)); err != nil {
				return err
			}
		}
		built, err := buildAll(c, boards, *out, *debug, command == "size")
		if err != nil {
			return err
		}
		if command == "size" {
			for _, s := range built {
				fmt.Print(s)
			}
		}
		return nil
	default:
		return fmt.Errorf("command %q: want setup, build, kernels, size, release, boards, qemu, pack, trace or keys", command)
	}
}

// keys makes keys in the named folder, or else where a build looks for them.
func keys(names []string) error {
	if len(names) > 1 {
		return fmt.Errorf("keys: one folder, not %d", len(names))
	}
	dir, err := keyFolder()
	if len(names) == 1 {
		dir, err = filepath.Abs(names[0])
	}
	if err != nil {
		return err
	}
	if err := makeKeys(dir); err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

// describe returns what a user has to know of a board, in lines.
func describe(b board.Board) string {
	limit := "no limit"
	if b.ImageLimit > 0 {
		limit = fmt.Sprintf("%d KB", b.ImageLimit>>10)
	}
	terminal, speed := b.Serial()
	var text strings.Builder
	fmt.Fprintf(&text, "%-16s %-7s %5d MB  %s\n", b.Name, b.CPU.GOARCH, b.Memory, b.Description)
	line := func(format string, args ...any) {
		fmt.Fprintf(&text, "%16s "+format+"\n", append([]any{""}, args...)...)
	}
	line("image: %s, %s; %s", b.Image.Form, limit, b.Verified())
	line("serial line: %s, %s bit/s, 8N1", terminal, speed)
	if b.WAN == "" {
		line("port: %s", b.LAN)
	} else {
		line("WAN: %s, LAN: %s", b.WAN, strings.Join(append([]string{b.LAN}, b.Bridged...), " "))
	}
	if b.Flashing != "" {
		line("to flash: %s", b.Flashing)
	}
	if b.QEMU.Machine != "" {
		line("in QEMU: go run ./image qemu %s", b.Name)
	}
	return text.String()
}

func boardsByName(names []string) ([]board.Board, error) {
	switch {
	case len(names) == 0:
		return board.Lab(), nil
	case len(names) == 1 && names[0] == "all":
		return board.All(), nil
	case len(names) == 1 && names[0] == "rest":
		return board.All()[len(board.Lab()):], nil
	}
	var boards []board.Board
	for i, name := range names {
		if slices.Contains(names[:i], name) { // boards are built beside each other, each into its folder
			continue
		}
		b, err := board.ByName(name)
		if err != nil {
			return nil, err
		}
		boards = append(boards, b)
	}
	return boards, nil
}
