package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/files"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
)

// This file has the router's files, which users reach by SFTP and by /file. They are in memory, and gone at a restart: a
// flash of 4 MB has no room for them.

const (
	// maxFiles is how many files the router holds, and fileRoom how many bytes all of them have.
	maxFiles = 32
	fileRoom = console.MaxImport

	// exportFile and sensitiveFile are what /export and /export show-sensitive say at the moment at which they are read.
	exportFile    = "export.rsc"
	sensitiveFile = "export-sensitive.rsc"
	// autoSuffix ends the name of a file that is imported as soon as it is there, imageSuffix that of an image of a newer version.
	autoSuffix  = ".auto.rsc"
	imageSuffix = ".img"
	// partSuffix is behind the names of files that WinSCP has not written whole yet. It renames them then.
	partSuffix = ".filepart"

	// imageTime is how long the upload of an image may take, and imagePause how long no piece of it may come: meanwhile there is no
	// other upgrade.
	imageTime  = 30 * time.Minute
	imagePause = 2 * time.Minute
	// maxSaid is how many lines of an import's output the log is told.
	maxSaid = 20
)

// fileStore has the files that the router holds.
type fileStore struct {
	mu   sync.Mutex
	all  []keptFile // in the order of their names
	last uint32
}

// keptFile is a file. Its content is never changed in place.
type keptFile struct {
	number               uint32
	name, owner, content string
	at                   time.Time
}

// user is somebody who uses files: those of others only if he may do everything anyway.
type fileUser struct {
	name string
	all  bool
}

func (u fileUser) may(f keptFile) error {
	if f.owner != u.name && !u.all {
		return console.ErrNotPermitted
	}
	return nil
}

func (s *fileStore) list() []keptFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// find returns the place of a file, which is that where it would be if it is not there. The caller holds mu.
func (s *fileStore) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.all, name, func(f keptFile, name string) int { return cmp.Compare(f.name, name) })
}

// get returns a file that a user may use.
func (s *fileStore) get(u fileUser, name string) (keptFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(name)
	if !ok {
		return keptFile{}, files.ErrNotThere
	}
	return s.all[i], u.may(s.all[i])
}

// mayPut returns an error if a user may not make or replace a file, or there is no room for as many bytes.
func (s *fileStore) mayPut(u fileUser, name string, bytes int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkPut(u, name, bytes)
}

// checkPut is mayPut for a caller that holds mu.
func (s *fileStore) checkPut(u fileUser, name string, bytes int) error {
	if err := files.CheckName(name); err != nil {
		return err
	}
	if name == exportFile || name == sensitiveFile {
		return fmt.Errorf("failure: %s is made by the router when it is read, and cannot be written", name)
	}
	i, there := s.find(name)
	if there {
		if err := u.may(s.all[i]); err != nil {
			return err
		}
	} else if len(s.all) == maxFiles {
		return fmt.Errorf("failure: there are %d files, and there can be no more: /file remove", maxFiles)
	}
	for j, f := range s.all {
		if !there || j != i {
			bytes += len(f.content)
		}
	}
	if bytes > fileRoom {
		return fmt.Errorf("failure: all files would have %d bytes, and there is room for %d: /file remove", bytes, fileRoom)
	}
	return nil
}

// put makes a file, or replaces it.
func (s *fileStore) put(u fileUser, name, content string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkPut(u, name, len(content)); err != nil {
		return err
	}
	s.last++
	f := keptFile{number: s.last, name: name, owner: u.name, content: content, at: time.Now()}
	i, there := s.find(name)
	if there {
		s.all[i] = f
	} else {
		s.all = slices.Insert(s.all, i, f)
	}
	return nil
}

// remove removes a file.
func (s *fileStore) remove(u fileUser, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(name)
	if !ok {
		return files.ErrNotThere
	}
	if err := u.may(s.all[i]); err != nil {
		return err
	}
	s.all = slices.Delete(s.all, i, i+1)
	return nil
}

// removeNumbers removes files: all of them or, if the user may not remove one, none. Those that have gone meanwhile do not matter.
func (s *fileStore) removeNumbers(u fileUser, numbers []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkRemove(u, numbers); err != nil {
		return err
	}
	s.all = slices.DeleteFunc(s.all, func(f keptFile) bool { return slices.Contains(numbers, f.number) })
	return nil
}

// mayRemove returns the error that removeNumbers would.
func (s *fileStore) mayRemove(u fileUser, numbers []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkRemove(u, numbers)
}

// checkRemove is mayRemove with the lock held.
func (s *fileStore) checkRemove(u fileUser, numbers []uint32) error {
	for _, f := range s.all {
		if slices.Contains(numbers, f.number) && u.may(f) != nil {
			return u.may(f)
		}
	}
	return nil
}

// rename gives a file another name, and replaces what has that.
func (s *fileStore) rename(u fileUser, from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(from)
	if !ok {
		return files.ErrNotThere
	}
	f := s.all[i]
	if err := u.may(f); err != nil || from == to {
		return err
	}
	s.all = slices.Delete(s.all, i, i+1)
	if err := s.checkPut(u, to, len(f.content)); err != nil {
		s.all = slices.Insert(s.all, i, f)
		return err
	}
	f.name = to
	if i, there := s.find(to); there {
		s.all[i] = f
	} else {
		s.all = slices.Insert(s.all, i, f)
	}
	return nil
}

// fileUser is the user of that name, with what he may do at that moment.
func (st state) fileUser(name string) fileUser {
	name = cmp.Or(name, console.Admin)
	return fileUser{name, st.config.May(name)&console.MayPolicy != 0}
}

// showFiles gives the console the files, for a user.
func (r *Router) showFiles(live *console.Live, u fileUser) {
	live.Files = func() ([]console.FileState, error) {
		var all []console.FileState
		for _, f := range r.files.list() {
			all = append(all, console.FileState{Number: f.number, Name: f.name, Size: len(f.content), Owner: f.owner, Modified: f.at})
		}
		return all, nil
	}
	live.MayKeepFile = func(name string, bytes int) error { return r.files.mayPut(u, name, bytes) }
	live.KeepFile = func(name, content string) error { return r.files.put(u, name, content) }
	live.ReadFile = func(name string) (string, error) { return r.readFile(u, name) }
	live.MayRemoveFiles = func(numbers []uint32) error { return r.files.mayRemove(u, numbers) }
	live.RemoveFiles = func(numbers []uint32) error { return r.files.removeNumbers(u, numbers) }
}

// readFile returns the content of a file, for a user.
func (r *Router) readFile(u fileUser, name string) (string, error) {
	f, err := r.files.get(u, name)
	if errors.Is(err, files.ErrNotThere) {
		return "", fmt.Errorf("failure: no such file: %s; /file print lists those that there are", console.Printable(name))
	}
	return f.content, err
}

// serveFiles holds a session of SFTP and closes conn when it is over. User has logged in, by the login of that number; if first is
// set that was without a password, which has to be set before anything else.
func (r *Router) serveFiles(conn net.Conn, from session.Origin, user string, number uint64, first bool) {
	leave, err := r.enterNetwork(user)
	if err != nil {
		_ = files.Serve(conn, refusedFiles(err))
		return
	}
	defer leave()
	if first {
		_ = files.Serve(conn, refusedFiles(errors.New("failure: set a password first: by a shell, or the page")))
		return
	}
	f := &fileSession{r: r, s: &session.Session{Session: console.Session{User: user, Width: programWidth}, Origin: from, Login: number}}
	if err := files.Serve(conn, f.handler()); err != nil && !errors.Is(err, net.ErrClosed) {
		r.log.Printf(kmsg.Info, "session of SFTP: %v", err)
	}
}

// refusedFiles answers everything with an error.
func refusedFiles(err error) files.Handler {
	return files.Handler{
		List:   func() ([]files.File, error) { return nil, err },
		Read:   func(string) (string, error) { return "", err },
		Check:  func(string) (bool, error) { return false, err },
		Create: func(string) (files.Upload, error) { return nil, err },
		Remove: func(string) error { return err },
		Rename: func(string, string) error { return err },
	}
}

// fileSession is a session of SFTP.
type fileSession struct {
	r *Router
	s *session.Session
	// sizes are those of the exports for a user with these policies, of a configuration of that revision.
	revision uint64
	denied   console.Policies
	sizes    map[string]int64
}

func (f *fileSession) handler() files.Handler {
	return files.Handler{List: f.list, Read: f.read, Check: f.check, Create: f.create, Remove: f.remove, Rename: f.rename}
}

// may returns an error if the user lacks a policy, or that for files at all.
func (f *fileSession) may(needs console.Policies) error {
	if f.r.snapshot().config.Denied(f.s.User)&(needs|console.MayFTP) != 0 {
		return console.ErrNotPermitted
	}
	return nil
}

func (f *fileSession) user() fileUser { return f.r.snapshot().fileUser(f.s.User) }

// export is what /export says to this user, as if he had typed it.
func (f *fileSession) export(name string) (string, error) {
	line := "/export"
	if name == sensitiveFile {
		line = "/export show-sensitive"
	}
	result, err := f.r.execute(f.s, line)
	return result.Output, err
}

func (f *fileSession) list() ([]files.File, error) {
	if err := f.may(console.MayRead); err != nil {
		return nil, err
	}
	st := f.r.snapshot()
	if denied := st.config.Denied(f.s.User); f.sizes == nil || f.revision != st.revision || f.denied != denied {
		f.sizes = map[string]int64{}
		for _, name := range []string{exportFile, sensitiveFile} {
			text, err := f.export(name)
			if errors.Is(err, console.ErrNotPermitted) {
				continue
			}
			if err != nil {
				return nil, err
			}
			f.sizes[name] = int64(len(text))
		}
		f.revision, f.denied = st.revision, denied
	}
	var all []files.File
	for name, size := range f.sizes {
		all = append(all, files.File{Name: name, Size: size, Modified: time.Now(), ReadOnly: true})
	}
	for _, k := range f.r.files.list() {
		all = append(all, files.File{Name: k.name, Size: int64(len(k.content)), Modified: k.at})
	}
	return all, nil
}

func (f *fileSession) read(name string) (string, error) {
	if err := f.may(console.MayRead); err != nil {
		return "", err
	}
	if name == exportFile || name == sensitiveFile {
		return f.export(name)
	}
	k, err := f.r.files.get(f.user(), name)
	return k.content, err
}

// isImage reports whether a file is an image of another version.
func isImage(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, partSuffix), imageSuffix)
}

// check reports whether the user may write a file of that name.
func (f *fileSession) check(name string) (streamed bool, err error) {
	if isImage(name) {
		return true, f.may(console.Result{Request: console.Upgrade}.Needs())
	}
	if err := f.may(console.Result{Request: console.Import}.Needs()); err != nil {
		return false, err
	}
	return false, f.r.files.mayPut(f.user(), name, 0)
}

func (f *fileSession) create(name string) (files.Upload, error) {
	streamed, err := f.check(name)
	switch {
	case err != nil:
		return nil, err
	case streamed:
		return f.r.takeImage(f.s, name)
	}
	return &fileUpload{session: f, name: name}, nil
}

func (f *fileSession) remove(name string) error {
	if err := f.may(console.MayWrite); err != nil {
		return err
	}
	return f.r.files.remove(f.user(), name)
}

func (f *fileSession) rename(from, to string) error {
	if err := f.may(console.MayWrite); err != nil {
		return err
	}
	switch {
	case isImage(to):
		return errors.New("failure: no file that the router holds is an image: write that to a name which ends with " + imageSuffix)
	case !strings.HasSuffix(to, autoSuffix):
		return f.r.files.rename(f.user(), from, to)
	}
	k, err := f.r.files.get(f.user(), from)
	if err == nil {
		err = f.importNow(to, k.content)
	}
	if err != nil {
		return err
	}
	// What has taken its place meanwhile was not imported, and stays.
	return f.r.files.removeNumbers(f.user(), []uint32{k.number})
}

// importNow runs the lines of a file as /import does: all of them or none.
func (f *fileSession) importNow(name, content string) error {
	if content == "" {
		return nil
	}
	by := actor(f.s.User, f.s.Origin)
	result, err := console.Result{}, error(nil)
	if !strings.HasSuffix(content, "\n") {
		// OpenSSH closes a file that its user has interrupted as if it were whole.
		err = errors.New("failure: the last line has no end, so it may not be the whole file")
	} else {
		result, err = f.r.importLines(f.s, content, console.ImportArguments{})
	}
	if err != nil {
		err = fmt.Errorf("%s: %w; nothing was changed", name, err)
		f.r.log.Printf(kmsg.Warning, "import by %s of %v", by, err)
		return err
	}
	f.r.log.Printf(kmsg.Notice, "import by %s of %s: executed successfully", by, name)
	n := 0
	for line := range strings.Lines(result.Output) {
		// What print and export show is for who may see it, and not for all who read the log.
		if !strings.HasPrefix(line, "warning: ") && !strings.HasPrefix(line, "Postern has no ") {
			continue
		}
		if n++; n > maxSaid {
			f.r.log.Printf(kmsg.Info, "import of %s: and more lines", name)
			break
		}
		f.r.log.Printf(kmsg.Info, "import of %s: %s", name, strings.TrimSpace(line))
	}
	return nil
}

// fileUpload is the upload of a file that is held, or imported.
type fileUpload struct {
	session *fileSession
	name    string
	content strings.Builder
}

func (u *fileUpload) Write(p []byte) (int, error) {
	if u.content.Len()+len(p) > fileRoom {
		return 0, fmt.Errorf("failure: a file is longer than %d bytes", fileRoom)
	}
	return u.content.Write(p)
}

func (u *fileUpload) Commit() error {
	if _, err := u.session.check(u.name); err != nil { // any more
		return err
	}
	if strings.HasSuffix(u.name, autoSuffix) {
		return u.session.importNow(u.name, u.content.String())
	}
	return u.session.r.files.put(u.session.user(), u.name, u.content.String())
}

func (u *fileUpload) Abort() { u.content.Reset() }

// imageUpload is the upload of an image to the process that writes it.
type imageUpload struct {
	to *io.PipeWriter
	// pause is for how long no piece may come, and came ends the wait for the next one.
	pause time.Duration
	came  func()
	// last is the latest piece. It goes on with the next one, or when the file is closed: what breaks off before that is no whole image.
	last []byte
	done chan error
	// ended says that the process has ended, with err.
	ended bool
	err   error
}

var errUploadEnded = errors.New("the upload was not finished")

// takeImage begins an upgrade with an image that is uploaded. The router does not restart after it: as in RouterOS that is for the user
// to do.
func (r *Router) takeImage(s *session.Session, name string) (*imageUpload, error) {
	task, leave, err := r.beginUpgrade()
	if err != nil {
		return nil, err
	}
	from, to := io.Pipe()
	u := &imageUpload{to: to, pause: r.imagePause, done: make(chan error, 1)}
	u.expect()
	r.logRequest(console.Upgrade, s.User, s.Origin)
	go func() {
		ctx, cancel := service.WithTimeout(context.Background(), imageTime)
		defer cancel()
		err := r.install(ctx, name, task, func(ctx context.Context, body *os.File) error {
			defer context.AfterFunc(ctx, func() { from.CloseWithError(context.Cause(ctx)) })()
			_, err := io.Copy(body, from)
			return err
		}, io.Discard)
		leave() // before anybody hears of the end, as the next upgrade may be begun then
		if err != nil {
			r.log.Printf(kmsg.Warning, "upgrade from %s: %v", name, err)
		} else {
			r.log.Printf(kmsg.Notice, "upgrade from %s: the image is written and verified; it starts when the router restarts", name)
		}
		from.CloseWithError(errUploadEnded)
		u.done <- err
	}()
	return u, nil
}

// wait waits for the end of the upgrade.
func (u *imageUpload) wait() error {
	if !u.ended {
		u.err, u.ended = <-u.done, true
	}
	return u.err
}

// expect waits for the next piece, and ends the upload if none comes. Time in which the machine stood still does not count.
func (u *imageUpload) expect() {
	ctx, cancel := service.WithTimeout(context.Background(), u.pause)
	stop := context.AfterFunc(ctx, func() { u.to.CloseWithError(fmt.Errorf("the upload was ended: nothing came for %v", u.pause)) })
	u.came = func() {
		stop()
		cancel()
	}
}

func (u *imageUpload) Write(p []byte) (int, error) {
	u.came() // nor does the time that a piece takes to be written
	defer u.expect()
	if len(u.last) > 0 {
		if _, err := u.to.Write(u.last); err != nil {
			return 0, cmp.Or(u.wait(), err) // which says why nobody reads any more
		}
	}
	u.last = append(u.last[:0], p...)
	return len(p), nil
}

func (u *imageUpload) Commit() error {
	_, _ = u.Write(nil) // wait says what came of it
	u.came()
	u.to.Close()
	return u.wait()
}

func (u *imageUpload) Abort() {
	u.came()
	u.to.CloseWithError(errUploadEnded)
	_ = u.wait()
}
