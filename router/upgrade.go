package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/fetch"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
)

const (
	// versionFile has the name of the version and its date, in seconds since 1970.
	versionFile = "/etc/version"
	// slotWord on the kernel's command line tells which slot the boot loader has started.
	slotWord = "postern.slot="
	// imagePartition is that of boards with room for one image.
	imagePartition = "image"
	// upgradeEnd is how long an end waits for an image that is being written: in place it
	// is gone if it is not finished.
	upgradeEnd = 3 * time.Minute
)

// readVersion reads what this is.
func readVersion(b board.Board, path string) upgrade.Running {
	running := upgrade.Running{Board: b.Name, Version: "unknown", Date: time.Unix(0, 0).UTC()}
	text, err := os.ReadFile(path)
	if err != nil {
		return running
	}
	name, date, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if seconds, err := strconv.ParseInt(date, 10, 64); err == nil && name != "" {
		running.Version, running.Date = name, time.Unix(seconds, 0).UTC()
	}
	return running
}

// places is where images are on the board's flash.
type places struct {
	// inPlace is the partition of a board with room for one, "" on one with two slots.
	inPlace string
	slots   [2]string
	// states is the partition of the slots' states, on a disk.
	states string
	// current is the slot that runs, 0 or 1.
	current int
}

// findPlaces finds the partitions of images, and which of two the boot loader has
// started.
func findPlaces(sys, dev, commandLine string) (places, error) {
	path, err := findPartition(sys, dev, imagePartition)
	if err == nil {
		return places{inPlace: path}, nil
	}
	p := places{current: -1}
	for i, name := range board.Slots {
		if p.slots[i], err = findPartition(sys, dev, name); err != nil {
			return places{}, err
		}
	}
	// A chip has none.
	p.states, _ = findPartition(sys, dev, board.SlotStates)
	for _, word := range strings.Fields(commandLine) {
		if name, ok := strings.CutPrefix(word, slotWord); ok {
			p.current = slices.Index(upgrade.SlotNames[:], name)
		}
	}
	if p.current < 0 {
		return p, errors.New("the router was not started from flash, but by something else than its boot loader")
	}
	return p, nil
}

// places finds the partitions of images of this machine.
func (r *Router) places() (places, error) {
	return findPlaces(r.root+"/sys", r.root+"/dev", r.commandLine)
}

// look returns the states of the slots.
func (p places) look() (states [2]upgrade.State, err error) {
	slots, err := upgrade.OpenSlots(p.slots, p.states)
	if err != nil {
		return states, err
	}
	for i, s := range slots {
		var e error
		states[i], e = s.State()
		err = errors.Join(err, e)
	}
	return states, errors.Join(err, slots.Close())
}

// confirm marks the slot that runs as one that is well.
func (p places) confirm() error {
	slots, err := upgrade.OpenSlots(p.slots, p.states)
	if err != nil {
		return err
	}
	return errors.Join(slots[p.current].Confirm(), slots.Close())
}

// upgrades is what the router does to its own software: one thing at a time.
type upgrades struct {
	running upgrade.Running
	// busy holds an element while somebody reads or writes the slots.
	busy chan struct{}

	mu sync.Mutex
	// stop ends the fetching of an image, nil if none is fetched.
	stop context.CancelFunc
}

// lookTime is how long whoever wants to look at the slots waits for who is at them: not
// for an upgrade.
const lookTime = time.Second

// enter waits until nobody else is at the slots, or returns an error if that takes too long.
func (u *upgrades) enter(wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case u.busy <- struct{}{}:
		return nil
	case <-timer.C:
		return errUpgrading
	}
}

// leave lets the next one at the slots.
func (u *upgrades) leave() { <-u.busy }

// errUpgrading is the error of a second upgrade.
var errUpgrading = errors.New("failure: an upgrade is under way")

// upgradeTo fetches an image, from a web server by one process, and writes it by another, which
// can do nothing but that. What these say
// goes to out. If all is well the router restarts. The end of ctx ends the fetching: an
// image that is whole is written to its end.
func (r *Router) upgradeTo(ctx context.Context, a console.UpgradeArguments, out io.Writer) error {
	if r.isStopped() {
		return errStopped
	}
	if err := r.upgrades.enter(lookTime); err != nil {
		return err
	}
	defer r.upgrades.leave()
	p, err := r.places()
	if err != nil {
		return fmt.Errorf("failure: %w", err)
	}
	task := upgrade.Task{
		Running: r.upgrades.running, Force: a.Force,
		InPlace: p.inPlace, Slots: p.slots, States: p.states, Current: max(0, p.current),
	}
	var source imageSource
	if strings.HasPrefix(a.From, "/") {
		f, disk, err := openImage(r.root+"/sys", a.From)
		if err != nil {
			return fmt.Errorf("failure: %w", err)
		}
		defer f.Close()
		source, task.Disk = fromFile(f), disk
	} else {
		source = r.fromURL(a.From, r.effective(r.snapshot()).DNS)
	}
	r.keepPorts()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.upgrades.setStop(cancel)
	defer r.upgrades.setStop(nil)
	r.log.Printf(kmsg.Notice, "upgrade from %s", a.From)
	if err := r.runUpgrade(ctx, cancel, task, source, out); err != nil {
		r.log.Printf(kmsg.Warning, "upgrade from %s: it did not succeed", a.From)
		return err
	}
	r.log.Printf(kmsg.Notice, "upgrade from %s: the image is written, restarting", a.From)
	_, _ = io.WriteString(out, "system will reboot shortly\n") // whoever is left
	r.ask(console.Reboot)
	return nil
}

// imageSource writes an image to body until it has all, body takes no more or ctx ends.
// The error is why the image is not whole.
type imageSource func(ctx context.Context, body *os.File) error

// fromURL is what an unprivileged process gets from a web server. Names are looked up by
// those servers.
func (r *Router) fromURL(url string, servers []netip.Addr) imageSource {
	return func(ctx context.Context, body *os.File) error {
		return r.supervisor.Run(ctx, fetch.Job(url, servers, body))
	}
}

// fromFile is what a file or disk has.
func fromFile(f *os.File) imageSource {
	return func(ctx context.Context, body *os.File) error {
		part := make([]byte, 64<<10)
		for ctx.Err() == nil {
			n, err := f.Read(part)
			if _, full := body.Write(part[:n]); full != nil || err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// openImage opens a file or a disk, and says which it is. Nothing else is opened: there
// are devices that do something when they are, and files of /proc, which have no size,
// that one can wait at for ever.
func openImage(sys, path string) (f *os.File, disk bool, err error) {
	info, err := os.Stat(path)
	if err == nil {
		disk = info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
		switch {
		case disk:
		case !info.Mode().IsRegular():
			err = fmt.Errorf("%s is neither a disk nor a file", path)
		case info.Size() == 0:
			err = fmt.Errorf("%s is empty", path)
		}
	}
	if err == nil {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w; disks here: %s", err, cmp.Or(strings.Join(disks(sys), ", "), "none"))
	}
	return f, disk, nil
}

// disks are those that the kernel has, with their partitions.
func disks(sys string) []string {
	entries, _ := os.ReadDir(sys + "/class/block") // a kernel without disks has none
	paths := make([]string, 0, len(entries))
	for _, e := range entries {
		paths = append(paths, "/dev/"+e.Name())
	}
	return paths
}

// runUpgrade has a process do that task, with a pipe from the source.
func (r *Router) runUpgrade(ctx context.Context, cancel func(), task upgrade.Task, source imageSource, out io.Writer) error {
	key, err := upgrade.ReadKey(r.root + upgrade.KeyFile)
	if err != nil {
		return fmt.Errorf("failure: %w", err)
	}
	in, body, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	job, closeFiles, err := task.Job(key, in, patientWriter{out})
	if err != nil {
		body.Close()
		return fmt.Errorf("failure: %w", err)
	}
	defer closeFiles()
	read := make(chan error, 1)
	go func() {
		err := source(ctx, body)
		if ctx.Err() != nil {
			err = nil // it was told to end
		}
		body.Close() // the writer sees the end of the image
		read <- err
	}()
	// No context ends it: a write in place must come to its end.
	err = r.supervisor.Run(context.Background(), job)
	in.Close() // so that the source ends, too
	cancel()
	why := <-read
	switch {
	case err == nil:
		return nil // what cannot be read behind the image is no matter
	case why != nil && !brokenPipe(why):
		return fmt.Errorf("failure: %w; the present version stays", why)
	case errors.Is(err, service.RemoteError(upgrade.ErrNothing.Error())):
		return errors.New("the present version stays")
	}
	return fmt.Errorf("failure: %w; the present version stays", err)
}

// brokenPipe reports whether a source, here or in a process, ended because nobody reads any more.
func brokenPipe(err error) bool { return strings.HasSuffix(err.Error(), unix.EPIPE.Error()) }

// patientWriter is for a person who may go: that is no reason to end an upgrade.
type patientWriter struct{ to io.Writer }

func (w patientWriter) Write(p []byte) (int, error) {
	_, _ = w.to.Write(p)
	return len(p), nil
}

func (u *upgrades) setStop(stop context.CancelFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stop = stop
}

// EndUpgrade ends an upgrade, for a restart: it stops the fetching, and waits for a write.
func (r *Router) EndUpgrade() {
	u := &r.upgrades
	u.mu.Lock()
	if u.stop != nil {
		u.stop()
	}
	u.mu.Unlock()
	_ = u.enter(upgradeEnd) // and nobody is let in again
}

// slots tells of the places for images.
func (r *Router) slots() ([]console.SlotState, error) {
	if err := r.upgrades.enter(lookTime); err != nil {
		return nil, err
	}
	defer r.upgrades.leave()
	p, err := r.places()
	if p.inPlace != "" {
		return []console.SlotState{{Name: "image", Running: true, Active: true, Version: r.upgrades.running.Version, State: "confirmed"}}, nil
	}
	if err != nil && p.slots[0] == "" {
		return nil, err
	}
	states, err := p.look()
	if err != nil {
		return nil, err
	}
	return slotList(states, p.current, r.upgrades.running.Version), nil
}

// slotList is the states of two slots, of which the current one has this version.
func slotList(states [2]upgrade.State, current int, version string) []console.SlotState {
	next := upgrade.Next(states)
	var all []console.SlotState
	for i, st := range states {
		s := console.SlotState{Name: upgrade.SlotNames[i], Running: i == current, Active: i == next,
			Version: st.Version, Size: st.Length, State: "confirmed"}
		switch {
		case !st.Whole:
			s.State = "empty"
		case st.Confirmed:
		case !st.Tried:
			s.State = "untried"
		case i == current:
			s.State = "on trial"
		default:
			s.State = "failed"
		}
		if i == current {
			s.Version = version
		}
		all = append(all, s)
	}
	return all
}
