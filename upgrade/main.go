package upgrade

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// KeyFile has the public key of who makes upgrade images, in hexadecimal.
const KeyFile = "/etc/upgrade.pub"

// Task is what the process is told to do.
type Task struct {
	Running Running
	// Force takes an older version, too.
	Force bool
	// Disk says that the image is at the beginning of a disk: what is behind it is not
	// looked at.
	Disk bool
	// InPlace is the partition of a board with room for one image; of one with two it is
	// empty, and Slots are their partitions, States that of their states, on a disk, and
	// Current which of the two runs, 0 or 1.
	InPlace string
	Slots   [2]string
	States  string
	Current int
}

// Arguments are those of Main.
func (t Task) Arguments() []string {
	arguments := []string{
		"--board=" + t.Running.Board, "--version=" + t.Running.Version,
		"--date=" + strconv.FormatInt(t.Running.Date.Unix(), 10), "--force=" + strconv.FormatBool(t.Force),
		"--disk=" + strconv.FormatBool(t.Disk),
	}
	if t.InPlace != "" {
		return append(arguments, "--in-place="+t.InPlace)
	}
	return append(arguments, "--slot="+t.Slots[0], "--slot="+t.Slots[1], "--states="+t.States, "--current="+strconv.Itoa(t.Current))
}

func parseArguments(arguments []string) (Task, error) {
	flags := pflag.NewFlagSet("upgrade", pflag.ContinueOnError)
	var t Task
	flags.StringVar(&t.Running.Board, "board", "", "name of this board")
	flags.StringVar(&t.Running.Version, "version", "", "version that runs")
	date := flags.Int64("date", 0, "its date, in seconds since 1970")
	flags.BoolVar(&t.Force, "force", false, "take an older version")
	flags.BoolVar(&t.Disk, "disk", false, "look at nothing behind the image")
	flags.StringVar(&t.InPlace, "in-place", "", "partition for the one image")
	slots := flags.StringArray("slot", nil, "partition of each slot")
	flags.StringVar(&t.States, "states", "", "partition of the slots' states, on a disk")
	flags.IntVar(&t.Current, "current", 0, "which slot runs: 0 or 1")
	if err := flags.Parse(arguments); err != nil {
		return Task{}, err
	}
	t.Running.Date = time.Unix(*date, 0).UTC()
	if t.InPlace == "" {
		if len(*slots) != 2 || t.Current != 0 && t.Current != 1 {
			return Task{}, fmt.Errorf("%d slots, number %d of which runs: expected two", len(*slots), t.Current)
		}
		t.Slots = [2]string(*slots)
	}
	return t, nil
}

// Main is the process: it takes the arguments of a Task, an upgrade image on its
// standard input, and writes how far it is to its standard output, a line each. It
// returns 0 if the image is written and to be started, and 1 otherwise.
func Main(arguments []string) int {
	// Who watches may go, and who restarts the router waits.
	signal.Ignore(unix.SIGPIPE, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err := run(arguments, os.Stdin, os.Stdout)
	if err != nil && !errors.Is(err, errNothing) {
		fmt.Println("failure:", err)
	}
	if err != nil {
		return 1
	}
	return 0
}

// errNothing is the error of no image at all: who fetches it has told why.
var errNothing = errors.New("no image")

func run(arguments []string, in io.Reader, out io.Writer) error {
	t, err := parseArguments(arguments)
	if err != nil {
		return err
	}
	key, err := readKey(KeyFile)
	if err != nil {
		return err
	}
	return t.run(key, in, out)
}

// readKey reads a public key.
func readKey(path string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key %s: expected %d hexadecimal digits", path, 2*ed25519.PublicKeySize)
	}
	return key, nil
}

// run does a task. What it writes to out is for a person.
func (t Task) run(key ed25519.PublicKey, in io.Reader, out io.Writer) error {
	b := make([]byte, HeaderSize)
	if n, err := io.ReadFull(in, b); n == 0 {
		return errNothing
	} else if err != nil {
		return fmt.Errorf("the image ends after %d bytes, in its header", n)
	}
	h, err := ParseHeader(b, key)
	if err != nil {
		return err
	}
	if err := h.Accept(t.Running, t.Force); err != nil {
		return err
	}
	if t.Disk {
		in = io.LimitReader(in, h.Length)
	}
	fmt.Fprintf(out, "version %s of %s for %s; %s runs\n", h.Version, h.Date.Format(time.DateTime), h.Board, t.Running.Version)
	if t.InPlace != "" {
		return t.inPlace(h, in, out)
	}
	return t.otherSlot(h, in, out)
}

// otherSlot writes the slot that does not run.
func (t Task) otherSlot(h Header, in io.Reader, out io.Writer) error {
	slots, err := OpenSlots(t.Slots, t.States)
	if err != nil {
		return err
	}
	defer slots.Close()
	st, err := slots[t.Current].State()
	if err != nil {
		return err
	}
	switch {
	case !st.Whole:
		return fmt.Errorf("slot %s, which runs, has no state: the boot loader would not come back to it", SlotNames[t.Current])
	case !st.Confirmed:
		return fmt.Errorf("slot %s, which runs, is on trial: the other one is kept until it is confirmed", SlotNames[t.Current])
	}
	to := 1 - t.Current
	if err := slots[to].Write(h, in, st.Sequence+1, showProgress(out, "writing slot "+SlotNames[to], h.Length)); err != nil {
		return err
	}
	fmt.Fprintf(out, "slot %s is written and verified\n", SlotNames[to])
	return nil
}

// SlotNames are what people, and the kernel's command line, call the slots.
var SlotNames = [2]string{"a", "b"}

// inPlace replaces the one image.
func (t Task) inPlace(h Header, in io.Reader, out io.Writer) error {
	s, err := openPartition(t.InPlace)
	if err != nil {
		return err
	}
	defer s.flash.Close()
	if h.Length > s.Room() {
		return fmt.Errorf("an image of %d bytes, and there is room for %d", h.Length, s.Room())
	}
	image, err := h.read(in, showProgress(out, "fetching", h.Length))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "the image is whole; writing it, do not turn the power off")
	for try := 1; ; try++ {
		err := s.overwrite(h, image, showProgress(out, "writing", h.Length))
		if err == nil {
			fmt.Fprintln(out, "the image is written and verified")
			return nil
		}
		if try == overwriteTries {
			return fmt.Errorf("%s holds no image now, do not restart before another upgrade: %w", s.path, err)
		}
		fmt.Fprintf(out, "%v; trying again\n", err)
	}
}

// overwriteTries is how often an image is written in place of the one that is gone.
const overwriteTries = 3

// showProgress returns a function that writes a line for each tenth of all.
func showProgress(out io.Writer, what string, all int64) func(int64) {
	shown := int64(-1)
	return func(done int64) {
		if tenth := done * 10 / all; tenth != shown {
			shown = tenth
			fmt.Fprintf(out, "%s: %d%%\n", what, tenth*10)
		}
	}
}
