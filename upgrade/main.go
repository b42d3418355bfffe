package upgrade

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/flash"
	"github.com/postern-router/postern/service"
)

// KeyFile holds the public key by which upgrade images are signed, in hexadecimal.
const KeyFile = "/etc/upgrade.pub"

// Task says what the process is to do.
type Task struct {
	Running Running
	// Force says that an older version is accepted too.
	Force bool
	// Newer says that the image must be of a newer version than the one that runs.
	Newer bool
	// Disk says that the image is at the start of a disk, and that more may follow it.
	Disk bool
	// InPlace is the partition of a board with room for one image. On a board with two
	// slots it is empty: Slots are their partitions, States is the partition of their
	// states, on a disk, and Current is the slot that runs, 0 or 1.
	InPlace string
	Slots   [2]string
	States  string
	Current int
}

// Spec is the process. It may only write to the partitions that PID 1 has opened for it, and it
// parses only what is signed. It does not end when it is told to: a write in place must be completed.
var Spec = service.Spec{
	Name: "upgrade", Start: service.Task, Main: runProcess,
	Calls: service.Files().And(service.Calls{Checked: []service.Check{
		// Of package flash.
		service.Equals(unix.SYS_IOCTL, 1, unix.MEMGETINFO), service.Equals(unix.SYS_IOCTL, 1, unix.MEMGETBADBLOCK),
		service.Equals(unix.SYS_IOCTL, 1, unix.MEMERASE), service.Equals(unix.SYS_IOCTL, 1, unix.BLKROGET),
	}}),
	// On a board with room for one image, the new one is held in memory.
	Limits: service.Limits{Memory: 32 << 20},
}

// The requests of a task, of which a process gets one.
const (
	opUpgrade = 1
	opLook    = 2
)

const maxText = 1 << 10

// LookJob returns a job that reads the header of an image that comes from in, a pipe or file. found is then what it
// says, signed by the owner of key and for the board that runs. The caller closes in.
func LookJob(key string, in *os.File, running Running, found *Header) service.Job {
	var e service.Encoder
	e.String(key)
	running.encode(&e)
	return service.Job{Spec: Spec, Op: opLook, Body: e.Bytes(), Files: []*os.File{in}, Decode: func(d *service.Decoder) {
		found.Board, found.Version, found.Date = running.Board, d.String(maxText), time.Unix(d.Int(), 0).UTC()
		found.Length = int64(d.Uint(maxLength))
	}}
}

// look serves a LookJob.
func look(r *service.Request) ([]byte, error) {
	key, running := r.String(maxText), decodeRunning(r.Decoder)
	in := r.TakeFile()
	if in == nil || r.End() != nil {
		return nil, fmt.Errorf("%w: a request that is not whole", service.ErrBreach)
	}
	defer in.Close()
	public, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	h, _, err := Task{Running: running, Force: true}.header(public, in)
	if err != nil {
		return nil, err
	}
	var e service.Encoder
	e.String(h.Version)
	e.Int(h.Date.Unix())
	e.Uint(uint64(h.Length))
	return e.Bytes(), nil
}

func (r Running) encode(e *service.Encoder) {
	e.String(r.Board)
	e.String(r.Version)
	e.Int(r.Date.Unix())
}

func decodeRunning(d *service.Decoder) Running {
	return Running{Board: d.String(maxText), Version: d.String(maxText), Date: time.Unix(d.Int(), 0).UTC()}
}

// Job returns the job of an upgrade with the image that comes from in, a pipe or file, and must
// be signed by the owner of key. Its output, for a person to read, goes to out. It opens the
// partitions; close closes them. The caller closes in.
func (t Task) Job(key string, in *os.File, out io.Writer) (job service.Job, close func(), err error) {
	files := []*os.File{in}
	close = func() {
		for _, f := range files[1:] {
			f.Close()
		}
	}
	paths := []string{t.InPlace}
	if t.InPlace == "" {
		if paths = t.Slots[:]; t.States != "" {
			paths = append(paths, t.States)
		}
	}
	for _, path := range paths {
		f, err := flash.OpenFile(path)
		if err != nil {
			close()
			return service.Job{}, nil, fmt.Errorf("open %s: %w", path, err)
		}
		files = append(files, f)
	}
	var e service.Encoder
	e.String(key)
	t.encode(&e)
	return service.Job{Spec: Spec, Op: opUpgrade, Body: e.Bytes(), Files: files, Output: out}, close, nil
}

func (t Task) encode(e *service.Encoder) {
	t.Running.encode(e)
	e.Bool(t.Force)
	e.Bool(t.Newer)
	e.Bool(t.Disk)
	e.String(t.InPlace)
	e.Strings(t.Slots[:])
	e.String(t.States)
	e.Uint(uint64(t.Current))
}

func decodeTask(d *service.Decoder) Task {
	t := Task{
		Running: decodeRunning(d), Force: d.Bool(), Newer: d.Bool(), Disk: d.Bool(), InPlace: d.String(maxText),
	}
	copy(t.Slots[:], d.Strings(2, maxText))
	t.States, t.Current = d.String(maxText), int(d.Uint(1))
	return t
}

func runProcess(c *service.Child) error {
	return c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) { return handle(r, c.Output()) })
}

// handle does what r asks for.
func handle(r *service.Request, out io.Writer) ([]byte, error) {
	if r.Op == opLook {
		return look(r)
	}
	return nil, serve(r, out)
}

// serve serves a Task.
func serve(r *service.Request, out io.Writer) error {
	key, t := r.String(maxText), decodeTask(r.Decoder)
	in := r.TakeFile()
	if in != nil {
		defer in.Close()
	}
	p := partitions{r.TakeFile(), r.TakeFile(), r.TakeFile()}
	if r.Op != opUpgrade || p[0] == nil || t.InPlace == "" && p[1] == nil || r.End() != nil {
		p.close()
		return fmt.Errorf("%w: a request that is not whole", service.ErrBreach)
	}
	public, err := parseKey(key)
	if err != nil {
		p.close()
		return err
	}
	return t.run(public, in, p, out)
}

// partitions are the open partitions of a Task: that of the one image, or two slots and, on a
// disk, that of their states.
type partitions [3]*os.File

func (p partitions) close() {
	for _, f := range p {
		f.Close() // does nothing if f is nil
	}
}

// ErrNothing says that no byte of an image came. The process that downloads it tells why.
var ErrNothing = errors.New("no image")

// ReadKey reads the public key in a file, for Job.
func ReadKey(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// parseKey reads a public key.
func parseKey(text string) (ed25519.PublicKey, error) {
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key %s: expected %d hexadecimal digits", KeyFile, 2*ed25519.PublicKeySize)
	}
	return key, nil
}

// run does a task with its partitions, which it closes. Its output to out is for a person to read.
func (t Task) run(key ed25519.PublicKey, in io.Reader, p partitions, out io.Writer) error {
	write := t.otherSlot
	if t.InPlace != "" {
		write = t.inPlace
	}
	h, in, err := t.header(key, in)
	if err != nil {
		p.close()
		return err
	}
	fmt.Fprintf(out, "version %s of %s for %s; %s runs\n", h.Version, h.Date.Format(time.DateTime), h.Board, t.Running.Version)
	return write(h, in, p, out)
}

// header reads and checks the header of an image, and returns a reader of the rest.
func (t Task) header(key ed25519.PublicKey, in io.Reader) (Header, io.Reader, error) {
	b := make([]byte, HeaderSize)
	if n, err := io.ReadFull(in, b); n == 0 {
		return Header{}, nil, ErrNothing
	} else if err != nil {
		return Header{}, nil, fmt.Errorf("the image ends after %d bytes, in its header", n)
	}
	h, err := ParseHeader(b, key)
	if err == nil {
		err = h.Accept(t.Running, t.Force)
	}
	if err == nil && t.Newer && !h.Date.After(t.Running.Date) {
		err = fmt.Errorf("the server has version %s, which is not newer than %s, which runs", h.Version, t.Running.Version)
	}
	if t.Disk {
		in = io.LimitReader(in, h.Length)
	}
	return h, in, err
}

// otherSlot writes to the slot that does not run.
func (t Task) otherSlot(h Header, in io.Reader, p partitions, out io.Writer) error {
	slots, err := newSlots(t.Slots, [2]*os.File(p[:2]), func() (*os.File, error) {
		if p[2] == nil {
			return nil, errors.New("no partition is named for them")
		}
		return p[2], nil
	})
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

// SlotNames are the names of the slots, for people and on the kernel's command line.
var SlotNames = [2]string{"a", "b"}

// inPlace replaces the only image.
func (t Task) inPlace(h Header, in io.Reader, p partitions, out io.Writer) error {
	s, err := newPartition(t.InPlace, p[0])
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

// overwriteTries is how often the writing of an image in place is tried: the old one is gone.
const overwriteTries = 3

// showProgress returns a function that writes a line for each tenth of the image.
func showProgress(out io.Writer, what string, all int64) func(int64) {
	shown := int64(-1)
	return func(done int64) {
		if tenth := done * 10 / all; tenth != shown {
			shown = tenth
			fmt.Fprintf(out, "%s: %d%%\n", what, tenth*10)
		}
	}
}
