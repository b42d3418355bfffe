package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/store"
)

const (
	// keptName is how messages call the configuration from flash.
	keptName = "kept configuration"
	// resetWord on the kernel's command line starts with the board's defaults.
	resetWord = "postern.reset"
	// flushTimeout is what a restart waits for the flash: erasing the worst block that
	// a chip's maker allows takes 4 seconds, and there may be two to try.
	flushTimeout = 15 * time.Second
	// hangTimeout is when a write that has not ended is told of. Nothing can end it: the
	// kernel asks a chip that never gets ready again and again.
	hangTimeout = 20 * time.Second
)

// medium is where a text is kept, as store.Store has it.
type medium interface {
	Load() (text []byte, info store.Info, err error)
	Save(text []byte) error
	Erase() error
	Close() error
}

// keeping is the flash with the configuration on it. If it is absent or fails, the
// router goes on, and says so in the log, which the console shows, and to whoever
// changes something.
type keeping struct {
	log   *kmsg.Logger
	store medium // nil if there is none

	// writing is held while the store is written, however long the flash hangs.
	writing sync.Mutex

	mu     sync.Mutex
	keeper *store.Keeper // nil if there is no store
	// trouble is why the newest configuration is not on flash, or nil.
	trouble error
	// saves counts the writes that have begun or ended: a write is under way while it is
	// odd. Hung says that the present one has been told of as one that does not end.
	saves uint
	hung  bool
}

// openKeeping opens the flash, which is the partition of that name.
func openKeeping(log *kmsg.Logger, sys, dev string) *keeping {
	k := &keeping{log: log}
	path, err := findPartition(sys, dev, board.ConfigurationPartition)
	if err == nil {
		err = k.open(path)
	}
	if err != nil {
		k.report(err)
	}
	return k
}

func (k *keeping) open(path string) error {
	s, err := store.Open(path)
	if err != nil {
		return err
	}
	k.store, k.keeper = s, store.NewKeeper(k.save, k.report)
	return nil
}

// findPartition returns the device file of the partition of an MTD chip or of a
// disk that has that name (Documentation/ABI/testing/sysfs-class-mtd; PARTNAME is
// of a GUID partition table).
func findPartition(sys, dev, name string) (string, error) {
	for _, class := range []struct{ folder, file, line string }{
		{sys + "/class/mtd/", "/name", name},
		{sys + "/class/block/", "/uevent", "PARTNAME=" + name},
	} {
		devices, err := os.ReadDir(class.folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for _, d := range devices {
			// A chip's partition has a second device file, mtd0ro, that cannot be written.
			if strings.HasPrefix(d.Name(), "mtd") && strings.HasSuffix(d.Name(), "ro") {
				continue
			}
			text, err := os.ReadFile(class.folder + d.Name() + class.file)
			if err != nil {
				continue // it has just gone
			}
			for line := range strings.Lines(string(text)) {
				if strings.TrimSpace(line) == class.line {
					return dev + "/" + d.Name(), nil
				}
			}
		}
	}
	return "", fmt.Errorf("no flash: no partition is named %s", name)
}

// save is the store's Save, but tells of a flash that does not answer.
func (k *keeping) save(text []byte) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	k.saves++
	this := k.saves
	k.mu.Unlock()
	// A machine that stood still has not given the flash that time.
	running, cancel := service.WithTimeout(context.Background(), hangTimeout)
	defer cancel()
	stop := context.AfterFunc(running, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		// The write may have ended while the timer fired.
		if k.saves == this {
			k.hung = true
			k.setTrouble(fmt.Errorf("the flash has not answered for %v", hangTimeout))
		}
	})
	defer stop()
	err := k.store.Save(text)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.saves++
	if k.hung && err == nil {
		k.setTrouble(nil)
	}
	k.hung = false
	return err
}

// report takes why the newest configuration is not on flash, or nil.
func (k *keeping) report(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setTrouble(err)
}

// setTrouble is report for who holds mu.
func (k *keeping) setTrouble(err error) {
	k.trouble = err
	if err != nil {
		k.log.Printf(kmsg.Error, "the configuration is not kept: %v", err)
	} else {
		k.log.Printf(kmsg.Notice, "the configuration is kept again")
	}
}

// load returns the text that is kept, or nil if there is none.
func (k *keeping) load() []byte {
	if k.store == nil {
		return nil
	}
	text, info, err := k.store.Load()
	for _, d := range info.Damaged {
		k.log.Printf(kmsg.Warning, "%s: %v", keptName, d)
	}
	if info.ReadOnly != nil {
		k.report(info.ReadOnly)
	}
	switch {
	case err == nil:
		k.log.Printf(kmsg.Info, "%s: number %d, slot %d of %d on %s", keptName, info.Sequence, info.Slot, info.Slots, info.Medium)
		return text
	case !errors.Is(err, store.ErrEmpty):
		k.log.Printf(kmsg.Error, "%v", err)
	case len(info.Damaged) > 0:
		k.log.Printf(kmsg.Error, "no configuration can be read from flash: the defaults hold")
	}
	return nil
}

// put takes the newest configuration.
func (k *keeping) put(c console.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keeper != nil {
		k.keeper.Put([]byte(console.Export(c)))
	}
}

// failing is why the newest configuration may not be kept, if that is known already.
func (k *keeping) failing() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trouble
}

// flush writes what is not written yet, and keeps nothing from then on. If it is
// called again there is nothing to do.
func (k *keeping) flush() error {
	k.mu.Lock()
	keeper := k.keeper
	k.mu.Unlock()
	if keeper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err := keeper.Close(ctx)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	if err != nil {
		k.log.Printf(kmsg.Error, "the last changes are not kept: %v", err)
	}
	return err
}

// close is the end: it flushes, and closes the flash unless that hangs.
func (k *keeping) close() {
	_ = k.flush() // it logs its error
	if k.store == nil || !k.writing.TryLock() {
		return
	}
	defer k.writing.Unlock()
	if err := k.store.Close(); err != nil {
		k.log.Printf(kmsg.Warning, "%v", err)
	}
}

// erase makes the next start one with the defaults. Nothing is kept from then on.
func (k *keeping) erase() error {
	if k.store == nil {
		return nil // what was never kept is gone with the restart
	}
	err := k.flush()
	if !errors.Is(err, context.DeadlineExceeded) { // else the flash hangs
		err = k.store.Erase()
	}
	if err != nil {
		// The router runs on, and so does the flash.
		k.mu.Lock()
		k.keeper = store.NewKeeper(k.save, k.report)
		k.mu.Unlock()
	}
	return err
}

// hasWord reports whether the kernel's command line has a word.
func (r *Router) hasWord(word string) bool {
	return slices.Contains(strings.Fields(r.commandLine), word)
}

// loaded is a configuration as it was read.
type loaded struct {
	config console.Config
	// err is what was wrong with it: all of that is to be told.
	err error
	// refused says that config must not be applied: it is wrong as a whole, or the
	// firewall lacks lines.
	refused bool
}

// load reads the configuration that is kept, or else the board's default.
func (r *Router) load() loaded {
	why := ""
	switch {
	case r.hasWord(resetWord):
		why = resetWord
	case r.resetHeld():
		why = "the reset button was held"
	}
	if why != "" {
		r.log.Printf(kmsg.Notice, "%s: starting with the defaults; the first change replaces what is kept", why)
	} else if text := r.kept.load(); text != nil {
		return loadKept(text, r.board)
	}
	f, err := os.Open(r.defaults)
	if err != nil {
		return loaded{console.Default(), err, true}
	}
	defer f.Close()
	config, err := console.Load(r.defaults, f)
	if err == nil {
		err = validate(r.defaults, config, r.board)
	}
	// It came with the image: wrong anywhere, it was never right.
	return loaded{config, err, err != nil}
}

// loadKept reads the text from flash. A line that this version does not know is
// kept out and the rest holds, with two exceptions, since without a line of those
// the rest may allow what was forbidden: a firewall that lacks lines is refused, and
// a SOCKS service that lacks lines is disabled.
func loadKept(text []byte, b board.Board) loaded {
	config, err := console.Load(keptName, bytes.NewReader(text))
	l := loaded{config: config, err: err}
	if err != nil {
		lines, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return loaded{config, err, true}
		}
		l.err = nil
		for _, e := range lines.Unwrap() {
			var bad *console.BadLine
			if !errors.As(e, &bad) || bad.Without == console.CloseRouter {
				l.refused = true
			}
			if bad != nil && bad.Without == console.DisableSOCKS && l.config.Socks.Enabled {
				l.config.Socks.Enabled = false
				e = fmt.Errorf("%w; the SOCKS service is disabled", e)
			}
			l.err = errors.Join(l.err, e)
			// In full, to be typed again.
			if bad != nil && bad.Text != "" {
				l.err = errors.Join(l.err, fmt.Errorf("kept out: %s", strings.ReplaceAll(bad.Text, "\\\n", "")))
			}
		}
	}
	if err := validate(keptName, l.config, b); err != nil {
		l.err, l.refused = errors.Join(l.err, err), true
	}
	return l
}

func validate(name string, c console.Config, b board.Board) error {
	if err := console.Validate(c, b.PortNames()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// checkConfig reports what is wrong with a configuration that a user wants.
func checkConfig(c console.Config, b board.Board) error {
	if err := console.Validate(c, b.PortNames()); err != nil {
		return err
	}
	if c.AdminPassword == "" {
		return nil
	}
	_, err := password.Parse(c.AdminPassword)
	return err
}

// commit makes next, a change of a user's, the configuration. The caller holds changing.
//
// While the firewall lacks lines that could not be read, forwarding stays closed
// and nothing is kept until somebody has changed the firewall: a new name of the
// router must not open it, now or at the next start.
func (r *Router) commit(config console.Config) error {
	next := r.now
	if next.unmended && reflect.DeepEqual(config.Firewall, next.config.Firewall) {
		next = r.rescued(next, config)
	} else {
		next.config, next.running, next.forwarding, next.unmended = config, config, true, false
		next.layers = next.layers.with(rescueSource, Layer{})
	}
	next.revision++
	return r.apply(next)
}

// warning is for whoever has changed the configuration: why that may not last, or
// nothing. The caller holds changing.
func (r *Router) warning() string {
	if r.now.unmended {
		return "warning: forwarding stays closed and changes are not kept until /ip firewall is changed\n"
	}
	if err := r.kept.failing(); err != nil {
		return fmt.Sprintf("warning: the configuration is not kept: %v\n", err)
	}
	return ""
}

// confirmed restarts the router or turns it off, as a user wants who was asked. With
// ResetConfiguration what is kept is erased first.
func (r *Router) confirmed(request console.Request) error {
	if request == console.ResetConfiguration {
		if err := r.kept.erase(); err != nil {
			return fmt.Errorf("failure: %w", err)
		}
		r.log.Printf(kmsg.Notice, "the configuration is reset")
		request = console.Reboot
	}
	r.ask(request)
	return nil
}

// ask asks for a restart of the machine, or for its being turned off.
func (r *Router) ask(request console.Request) {
	select {
	case r.requests <- request:
	default: // one is on its way
	}
}
