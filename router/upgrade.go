package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
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
	// upgradeEnd is how long a restart waits for an image that is being written: in place, an
	// image that is not finished is lost.
	upgradeEnd = 3 * time.Minute
)

// readVersion reads the name and date of this version from the file at path.
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

// upgradeTo has one process fetch an image from a web server, and another, which can do nothing
// else, write it. What they print goes to out. On success the router restarts. The end of ctx
// ends the fetching; a complete image is written to its end.
func (r *Router) upgradeTo(ctx context.Context, a console.UpgradeArguments, out io.Writer) error {
	if a.Release {
		a.From = r.releaseURL()
	}
	task, leave, err := r.beginUpgrade()
	if err != nil {
		return err
	}
	defer leave()
	task.Force, task.Newer = a.Force, a.Release
	var source imageSource
	if strings.HasPrefix(a.From, "/") {
		f, disk, err := openImage(r.root+"/sys", a.From)
		if err != nil {
			return fmt.Errorf("failure: %w", err)
		}
		defer f.Close()
		source, task.Disk = fromFile(f), disk
	} else {
		source = r.fromURL(a.From, r.effective(r.snapshot()).Resolvers())
	}
	if err := r.install(ctx, a.From, task, source, out); err != nil {
		r.log.Printf(kmsg.Warning, "upgrade from %s: it did not succeed", a.From)
		return err
	}
	r.log.Printf(kmsg.Notice, "upgrade from %s: the image is written, restarting", a.From)
	r.upgrades.setStatus("system will reboot shortly")
	_, _ = io.WriteString(out, "system will reboot shortly\n") // whoever is left
	r.request(console.Reboot)
	return nil
}

// beginUpgrade lets nobody else use the slots until leave is called, and returns the task of an upgrade of this router.
func (r *Router) beginUpgrade() (task upgrade.Task, leave func(), err error) {
	if r.isStopped() {
		return task, nil, errStopped
	}
	if err := r.upgrades.enter(lookTime); err != nil {
		return task, nil, err
	}
	p, err := r.places()
	if err != nil {
		r.upgrades.leave()
		return task, nil, fmt.Errorf("failure: %w", err)
	}
	return upgrade.Task{Running: r.upgrades.running, InPlace: p.inPlace, Slots: p.slots, States: p.states, Current: max(0, p.current)}, r.upgrades.leave, nil
}

// install has a process write an image that comes from source, which the log calls name.
func (r *Router) install(ctx context.Context, name string, task upgrade.Task, source imageSource, out io.Writer) error {
	r.keepPorts()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.upgrades.setStop(cancel)
	defer r.upgrades.setStop(nil)
	r.log.Printf(kmsg.Notice, "upgrade from %s", name)
	r.upgrades.setStatus("waiting for the image")
	err := r.runUpgrade(ctx, cancel, task, source, io.MultiWriter(&statusWriter{upgrades: &r.upgrades}, out))
	if err != nil {
		r.upgrades.setStatus("ERROR: " + strings.TrimPrefix(err.Error(), "failure: "))
	}
	return err
}

// statusWriter keeps the last line that an upgrade has printed as its status, for who does not read along, such as the page.
type statusWriter struct {
	upgrades *upgrades
	line     []byte
}

// maxStatus bounds a status, in bytes.
const maxStatus = 200

func (w *statusWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b == '\n':
			w.upgrades.setStatus(string(w.line))
			w.line = w.line[:0]
		case len(w.line) < maxStatus:
			w.line = append(w.line, b)
		}
	}
	return len(p), nil
}

// setStatus says what /system package update tells of an upgrade.
func (u *upgrades) setStatus(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status = console.Printable(text[:min(len(text), maxStatus)])
}

// imageSource writes an image to body until it has all, body takes no more or ctx ends.
// The error is why the image is not whole.
type imageSource func(ctx context.Context, body *os.File) error

// fromURL is an image that an unprivileged process fetches from a web server. These name
// servers look names up.
func (r *Router) fromURL(url string, servers []netip.Addr) imageSource {
	return func(ctx context.Context, body *os.File) error {
		return r.supervisor.Run(ctx, fetch.Job(url, servers, body))
	}
}

// fromFile is an image in a file or at the beginning of a disk.
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

// openImage opens a file or a disk, and reports which it is. It opens nothing else: some
// devices do something when they are opened, and some files of /proc, which have no size, make
// a reader wait for ever.
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

// disks lists the disks that the kernel has, with their partitions.
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
