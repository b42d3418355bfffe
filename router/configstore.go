package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
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
	// keptName is the name of the configuration from flash in messages.
	keptName = "kept configuration"
	// resetWord on the kernel's command line starts with the board's defaults.
	resetWord = "postern.reset"
	// flushTimeout is how long a restart waits for the flash: the slowest erase that chip
	// makers allow takes 4 seconds, and two blocks may have to be tried.
	flushTimeout = 15 * time.Second
	// hangTimeout is when a write that has not ended is reported. Nothing can end it: the
	// kernel polls a chip for ever that never becomes ready.
	hangTimeout = 20 * time.Second
)

// medium keeps a text, as store.Store does.
type medium interface {
	Load() (text []byte, info store.Info, err error)
	Save(text []byte) error
	Failed() (failed []store.Damage, left int)
	Erase() error
	Close() error
}

// configStore keeps the configuration on flash. If the flash is absent or fails, the router
// goes on without it: the log says so, and so does the answer to each change.
type configStore struct {
	log   *kmsg.Logger
	store medium // nil if there is none

	// writing is held while the store is written, however long the flash hangs.
	writing sync.Mutex

	mu     sync.Mutex
	keeper *store.Keeper // nil if there is no store
	// trouble is why the newest configuration is not on flash, or nil.
	trouble error
	// saves counts each begin and each end of a write, so it is odd during a write. Hung is
	// set while the present write has been reported as hanging.
	saves uint
	hung  bool
	// failed are the slots that the log was told of, as they have taken nothing.
	failed map[int]bool
	// text is the configuration that is to be kept, nil if the defaults hold. notes are kept behind it, see notes.go. newest
	// is a configuration that was put since, of which nobody has made the text yet; changed says that notes have changed.
	text    []byte
	newest  *console.Config
	notes   map[string]string
	changed bool
	// erased is set if an erasure has failed: text may not be on flash any more.
	erased bool
	// unset is set once the flash has been read and nothing was set. defaults is the text of what holds then.
	unset    bool
	defaults []byte
	// last returns what else is to be kept at the end; nil if there is nothing.
	last func() map[string]string
}

// openConfigStore opens the flash partition of the configuration.
func openConfigStore(log *kmsg.Logger, sys, dev string) *configStore {
	k := &configStore{log: log}
	path, err := findPartition(sys, dev, board.ConfigurationPartition)
	if err == nil {
		err = k.open(path)
	}
	if err != nil {
		k.report(err)
	}
	return k
}

func (k *configStore) open(path string) error {
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

// save is the store's Save, but reports a flash that does not answer.
func (k *configStore) save(text []byte) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	k.saves++
	this := k.saves
	k.mu.Unlock()
	// Time in which the machine stood still does not count: the flash could not answer.
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
	err := k.saveFitting(text)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.saves++
	k.tellFailed(err)
	if k.hung && err == nil {
		k.setTrouble(nil)
	}
	k.hung = false
	return err
}

// tellFailed logs the slots that have taken nothing while another did: who has a flash that wears out is to know of it
// before the last slot has. err is the result of the save, which tells of itself. The caller holds mu.
func (k *configStore) tellFailed(err error) {
	failed, left := k.store.Failed()
	told := map[int]bool{}
	for _, d := range failed {
		if told[d.Slot] = k.failed[d.Slot] || err == nil; !told[d.Slot] || k.failed[d.Slot] {
			continue
		}
		k.log.Printf(kmsg.Warning, "%s: %v: another slot has taken it; slots left: %d", keptName, d, left)
	}
	k.failed = told
}

// report notes and logs why the newest configuration is not on flash; nil: it is.
func (k *configStore) report(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setTrouble(err)
}

// setTrouble is report for a caller that holds mu.
func (k *configStore) setTrouble(err error) {
	k.trouble = err
	if err != nil {
		k.log.Printf(kmsg.Error, "the configuration is not kept: %v", err)
	} else {
		k.log.Printf(kmsg.Notice, "the configuration is kept again")
	}
}

// load returns the text on flash, or nil if there is none.
func (k *configStore) load() []byte {
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
		config, notes := cutNotes(text)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.notes = notes
		if notes[noteDefaults] != "" {
			k.unset = true
			return nil
		}
		k.text = config
		return config
	case !errors.Is(err, store.ErrEmpty):
		k.log.Printf(kmsg.Error, "%v", err)
	case len(info.Damaged) > 0:
		k.log.Printf(kmsg.Error, "no configuration can be read from flash: the defaults hold")
	default:
		k.mu.Lock()
		defer k.mu.Unlock()
		k.unset = true
	}
	return nil
}

// setDefaults says what holds as long as nothing is set.
func (k *configStore) setDefaults(c console.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unset {
		k.defaults = []byte(console.Export(c))
	}
}

// put has the newest configuration written to flash, in its own time: to make its text takes as long as many changes, so that
// nobody waits for it.
func (k *configStore) put(c console.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.newest = &c
	if k.keeper != nil {
		k.keeper.PutLater(k.write)
	}
}

// noted has notes written that have changed. The caller holds mu.
func (k *configStore) noted() {
	k.changed = true
	if k.keeper != nil {
		k.keeper.PutLater(k.write)
	}
}

// write returns what is to be written, or nil. What is kept already is not written again: programs may change what is not
// kept, as entries of address lists with a timeout, all day. Nothing is while neither text nor the defaults are known.
func (k *configStore) write() []byte {
	k.mu.Lock()
	newest := k.newest
	k.mu.Unlock()
	var made []byte
	if newest != nil {
		made = []byte(console.Export(*newest))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.newest == newest { // else it is written soon
		k.newest = nil
	}
	same := made == nil || k.text != nil && bytes.Equal(made, k.text)
	if same && !k.changed && k.trouble == nil && !k.erased {
		return nil
	}
	if made != nil {
		k.text = made
	}
	text, notes := k.text, maps.Clone(k.notes)
	delete(notes, noteDefaults)
	if text == nil {
		if text = k.defaults; text == nil {
			return nil
		}
		notes[noteDefaults] = "yes"
	}
	k.changed, k.erased = false, false
	return joinNotes(text, notes)
}

// failing returns why the newest configuration may not be kept, as far as is known yet.
func (k *configStore) failing() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trouble
}

// flush writes what is not written yet, and keeps nothing from then on. If it is
// called again there is nothing to do.
func (k *configStore) flush() error {
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
func (k *configStore) close() {
	if k.last != nil {
		_ = noteStore{k}.put(k.last()) // without flash the log has said so
	}
	_ = k.flush() // it logs its error
	if k.store == nil || !k.writing.TryLock() {
		return
	}
	defer k.writing.Unlock()
	if err := k.store.Close(); err != nil {
		k.log.Printf(kmsg.Warning, "%v", err)
	}
}

// erase makes the next start use the defaults. Nothing is kept from then on.
func (k *configStore) erase() error {
	if k.store == nil {
		return nil // what was never kept is gone with the restart
	}
	err := k.flush()
	if !errors.Is(err, context.DeadlineExceeded) { // else the flash hangs
		err = k.store.Erase()
	}
	if err != nil {
		// The router goes on, so it goes on keeping changes.
		k.mu.Lock()
		k.keeper, k.erased = store.NewKeeper(k.save, k.report), true
		k.mu.Unlock()
	}
	return err
}

// hasWord reports whether the kernel's command line has a word.
func (r *Router) hasWord(word string) bool {
	return slices.Contains(strings.Fields(r.commandLine), word)
}

// loaded is a configuration as it was read from flash or from the image.
type loaded struct {
	config console.Config
	// err joins all that was wrong with it, for the log.
	err error
	// refused means that config must not be applied: it is wrong as a whole, or lines of the
	// firewall are missing.
	refused bool
}

// load reads the configuration from flash or, if there is none, the image's default.
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
	if err == nil {
		r.kept.setDefaults(config)
	}
	// It came with the image: one wrong line means that the image is wrong.
	return loaded{config, err, err != nil}
}

// errLocked is why a version is of no use that does not understand what another has kept of the users.
var errLocked = errors.New("nobody can log in: it is not understood who has a password; the reset button, or " + resetWord +
	" on the kernel's command line, starts with the defaults, and a version that understands it lets in who could log in before")

// loadKept reads the text from flash. A line that this version does not know is left out,
// and the rest holds. There are exceptions, because a missing line may be one that
// forbids something: without a line of the firewall all is refused, without a line of
// SOCKS or of SSH that service is disabled, and without one of a user nobody logs in without a password.
func loadKept(text []byte, b board.Board) loaded {
	config, err := console.Load(keptName, bytes.NewReader(text))
	l := loaded{config: config, err: err}
	if err != nil {
		lines, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return loaded{config, err, true}
		}
		l.err = nil
		mend, lock := false, false
		for _, e := range lines.Unwrap() {
			var bad *console.BadLine
			if !errors.As(e, &bad) || bad.Without.Has(console.CloseRouter) {
				l.refused = true
			}
			if bad != nil && bad.Without.Has(console.DisableSOCKS) && l.config.Socks.Enabled {
				l.config.Socks.Enabled = false
				e = fmt.Errorf("%w; the SOCKS service is disabled", e)
			}
			if bad != nil && bad.Without.Has(console.DisableLogins) && l.config.DisableServices() {
				e = fmt.Errorf("%w; nobody can log in over the network", e)
			}
			if bad != nil {
				mend = mend || bad.Without.Has(console.DisableLogins)
				switch {
				case bad.User != "":
					e = fmt.Errorf("%w; user %s can log in at a serial line", e, bad.User)
				case bad.Without.Has(console.LockUsers):
					lock = true
					e = fmt.Errorf("%w; nobody can log in without a password", e)
				}
			}
			l.err = errors.Join(l.err, e)
			// In full, so that it can be typed again.
			if bad != nil && bad.Text != "" {
				l.err = errors.Join(l.err, fmt.Errorf("kept out: %s", strings.ReplaceAll(bad.Text, "\\\n", "")))
			}
		}
		if mend {
			for _, name := range l.config.MendUsers(lock, password.Never) {
				l.err = errors.Join(l.err, fmt.Errorf("kept out: user %s, whose group is not known", name))
			}
			if l.config.Locked(password.Never) {
				l.err = errors.Join(l.err, errLocked)
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
