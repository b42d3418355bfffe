package sftp

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/files"
)

const (
	// maxHandles is how many files and folders a session may have open.
	maxHandles = 16
	// maxTaken is how many names a session remembers of files that it has written and that are not there any more.
	maxTaken = 16
	// maxTold bounds what a session tells people, in bytes.
	maxTold = 16 << 10
)

// Files are what is served: a files.Client.
type Files interface {
	List() ([]files.File, error)
	Read(name string) ([]byte, error)
	Check(name string) (streamed bool, err error)
	Create(name string) error
	Append(piece []byte) error
	Commit() error
	Abort() error
	Put(name string, content []byte) error
	Remove(name string) error
	Rename(from, to string) error
}

// Memory bounds what files all sessions of a process hold.
type Memory struct {
	mu   sync.Mutex
	left int
}

// NewMemory returns a Memory of so many bytes.
func NewMemory(bytes int) *Memory { return &Memory{left: bytes} }

// take reports whether there is room for more bytes; it gives room back if more is negative.
func (m *Memory) take(more int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if more > m.left {
		return false
	}
	m.left -= more
	return true
}

// Serve serves a client of SFTP until it closes its end (then the error is nil) or sends what is no packet. Why something was
// refused is also written to told. all are the files; memory bounds what is held of them.
func Serve(client io.ReadWriter, told io.Writer, all Files, memory *Memory) error {
	s := &session{out: client, told: told, files: all, memory: memory, handles: map[string]*handle{}, taken: map[string]files.File{}}
	defer s.end()
	var buffer []byte
	for {
		packet, rest, err := readPacket(client, buffer)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		buffer = rest
		if err := s.serve(packet); err != nil {
			return err
		}
	}
}

// session is a client.
type session struct {
	out     io.Writer
	told    io.Writer
	toldAll int
	files   Files
	memory  *Memory
	answer  []byte // of an earlier packet, for the next

	begun   bool
	last    uint64
	handles map[string]*handle
	// streaming is the handle of the upload that goes to its place as it comes.
	streaming *handle
	// taken are the files that were written and were used up then, as an import is: clients look at what they have written, and set
	// its times.
	taken map[string]files.File
	// lost is the file that was closed last and did not come into being, and why: paramiko does not look at how a close went, but
	// for the file.
	lost    string
	lostFor error
}

// handle is a file or a folder that is open.
type handle struct {
	name string
	// folder says that it is the root, told that its files were told.
	folder, told bool

	flags uint32
	// content is that of a file, whose capacity is taken of Memory. It is put when the handle is closed, if changed says so.
	content []byte
	changed bool
	// streamed says that content is none, as it goes to its place: at is how much has gone there.
	streamed bool
	at       uint64
	// failed is the first error of a write: the file is not whole.
	failed   error
	modified time.Time
}

// file is what is told of a handle.
func (h *handle) file() files.File {
	f := files.File{Name: h.name, Size: int64(len(h.content)), Modified: h.modified}
	if h.streamed {
		f.Size = int64(h.at)
	}
	return f
}

// status is an error with a code of the protocol.
type status struct {
	code uint32
	text string
}

func (s status) Error() string { return s.text }

var (
	errNotThere    = status{statusNotThere, "no such file"}
	errUnsupported = status{statusUnsupported, "the router has no such thing"}
	errHandle      = status{statusFailure, "no such handle"}
	errHandles     = status{statusFailure, fmt.Sprintf("%d files are open, and there can be no more", maxHandles)}
	errMalformed   = status{statusBadMessage, "the request is not whole"}
	errFolder      = status{statusFailure, "it is a folder"}
	errNoFolder    = status{statusFailure, "it is no folder"}
	errNoFolders   = status{statusDenied, "the router has no folders"}
	errReadOnly    = status{statusDenied, "the router makes this file: it cannot be written"}
	errThere       = status{statusFailure, "a file of that name is there already"}
	errNotRead     = status{statusDenied, "the file was not opened to be read"}
	errNotWritten  = status{statusDenied, "the file was not opened to be written"}
	errFull        = status{statusFailure, "failure: the files that are open take too much memory; try again later"}
	errOrder       = status{statusFailure, "failure: an image is written from its beginning to its end, without a gap"}
	errOne         = status{statusFailure, "failure: an image is being written: one at a time"}
)

// end gives up what is open.
func (s *session) end() {
	for _, h := range s.handles {
		s.memory.take(-cap(h.content))
	}
}

// serve serves a packet. The error is one of the connection, or of a client that does not speak the protocol.
func (s *session) serve(packet []byte) error {
	kind := packet[0]
	r := &reader{rest: packet[1:]}
	id := r.uint32() // of fxpInit the version
	if r.bad || (kind == fxpInit) == s.begun {
		return errPacket
	}
	if kind == fxpInit {
		s.begun = true
		w := newWriter(s.answer, fxpVersion, version)
		w.string(posixRename)
		w.string("1")
		return s.send(w)
	}
	w, err := s.answerTo(kind, id, r)
	var fatal *connectionError
	if errors.As(err, &fatal) {
		return fatal.err
	}
	if err == nil && w == nil {
		err = status{code: statusOK}
	}
	if err != nil {
		w = s.status(id, err)
	}
	return s.send(w)
}

// connectionError is an error of the connection to the files.
type connectionError struct{ err error }

func (e *connectionError) Error() string { return e.err.Error() }

// status makes the answer of an error, and tells people what OpenSSH does not show.
func (s *session) status(id uint32, err error) *writer {
	st := status{code: statusFailure, text: err.Error()}
	var own status
	switch {
	case errors.As(err, &own):
		st = own
	case errors.Is(err, files.ErrNotThere):
		st.code = statusNotThere
	case errors.Is(err, console.ErrNotPermitted):
		st.code = statusDenied
	}
	// RFC 4251, section 9.2: nothing that a terminal would obey.
	st.text = console.Printable(st.text)
	if st.code == statusFailure || st.code == statusDenied {
		if line := st.text + "\r\n"; s.toldAll+len(line) <= maxTold {
			s.toldAll += len(line)
			_, _ = io.WriteString(s.told, line)
		}
	}
	w := newWriter(s.answer, fxpStatus, id)
	w.uint32(st.code)
	w.string(st.text)
	w.string("en")
	return w
}

func (s *session) send(w *writer) error {
	packet := w.finish()
	s.answer = packet[:0]
	_, err := s.out.Write(packet)
	return err
}

// ofFiles makes an error of the connection to the files one that ends the session.
func ofFiles(err error) error {
	if err != nil && !files.Refused(err) {
		return &connectionError{err}
	}
	return err
}

// nameOf is the name of the file that a path means, "" for the root. There are no folders.
func nameOf(p string) (string, error) {
	name := strings.TrimPrefix(path.Clean("/"+p), "/")
	if strings.Contains(name, "/") {
		return "", errNotThere
	}
	return name, nil
}

// answerTo answers a request. Without an error nil is the status OK.
func (s *session) answerTo(kind byte, id uint32, r *reader) (*writer, error) {
	switch kind {
	case fxpOpen:
		p, flags := r.string(), r.uint32()
		r.attributes()
		if r.bad {
			return nil, errMalformed
		}
		h, err := s.open(p, flags)
		if err != nil {
			return nil, err
		}
		return s.handed(id, h), nil
	case fxpOpendir:
		p := r.string()
		if r.bad {
			return nil, errMalformed
		}
		name, err := nameOf(p)
		switch {
		case err != nil:
			return nil, err
		case name != "":
			if _, err := s.find(name); err != nil {
				return nil, err
			}
			return nil, errNoFolder
		case len(s.handles) == maxHandles:
			return nil, errHandles
		}
		return s.handed(id, &handle{folder: true}), nil
	case fxpClose, fxpRead, fxpWrite, fxpFstat, fxpFsetstat, fxpReaddir:
		name := r.string()
		h := s.handles[name]
		if h == nil && !r.bad {
			return nil, errHandle
		}
		if r.bad {
			return nil, errMalformed
		}
		return s.withHandle(kind, id, name, h, r)
	case fxpLstat, fxpStat, fxpSetstat:
		p := r.string()
		if kind == fxpSetstat {
			r.attributes()
		}
		if r.bad {
			return nil, errMalformed
		}
		f, err := s.stat(p)
		if err == error(errNotThere) {
			f, err = s.written(p)
		}
		if err != nil || kind == fxpSetstat {
			return nil, err // there is nothing to set
		}
		w := newWriter(s.answer, fxpAttrs, id)
		w.attributes(f)
		return w, nil
	case fxpRealpath:
		p := r.string()
		if r.bad {
			return nil, errMalformed
		}
		w := newWriter(s.answer, fxpName, id)
		w.uint32(1)
		p = path.Clean("/" + p)
		w.string(p)
		w.string(p)
		w.uint32(0)
		return w, nil
	case fxpRemove:
		p := r.string()
		if r.bad {
			return nil, errMalformed
		}
		f, err := s.writable(p)
		if err != nil {
			return nil, err
		}
		if _, ok := s.taken[f.Name]; ok {
			delete(s.taken, f.Name)
			return nil, nil
		}
		return nil, ofFiles(s.files.Remove(f.Name))
	case fxpRename:
		from, to := r.string(), r.string()
		if r.bad {
			return nil, errMalformed
		}
		return nil, s.rename(from, to, false)
	case fxpExtended:
		if request := r.string(); request == posixRename {
			from, to := r.string(), r.string()
			if r.bad {
				return nil, errMalformed
			}
			return nil, s.rename(from, to, true)
		}
		return nil, errUnsupported
	case fxpMkdir, fxpRmdir:
		return nil, errNoFolders
	}
	return nil, errUnsupported
}

// handed gives the client a handle.
func (s *session) handed(id uint32, h *handle) *writer {
	s.last++
	name := strconv.FormatUint(s.last, 36)
	s.handles[name] = h
	w := newWriter(s.answer, fxpHandle, id)
	w.string(name)
	return w
}

// stat looks for what a path means. The root is a File without a name.
func (s *session) stat(p string) (files.File, error) {
	name, err := nameOf(p)
	if err != nil || name == "" {
		return files.File{}, err
	}
	f, err := s.find(name)
	if err == error(errNotThere) && name == s.lost {
		return f, status{statusNotThere, s.lostFor.Error()}
	}
	return f, err
}

// written looks for a file that the session is about to write. It is not there yet, but SSHFS asks for what it has just opened, and
// gives up if it is not.
func (s *session) written(p string) (files.File, error) {
	if name, err := nameOf(p); err == nil {
		for _, h := range s.handles {
			if h.name == name && h.flags&openWrite != 0 {
				return h.file(), nil
			}
		}
	}
	return files.File{}, errNotThere
}

// find looks for a file.
func (s *session) find(name string) (files.File, error) {
	all, err := s.list()
	if err != nil {
		return files.File{}, err
	}
	if i := slices.IndexFunc(all, func(f files.File) bool { return f.Name == name }); i >= 0 {
		return all[i], nil
	}
	return files.File{}, errNotThere
}

// list lists the files, and those that were used up.
func (s *session) list() ([]files.File, error) {
	all, err := s.files.List()
	if err != nil {
		return nil, ofFiles(err)
	}
	for _, f := range s.taken {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b files.File) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// writable looks for a file that may be removed or renamed.
func (s *session) writable(p string) (files.File, error) {
	f, err := s.stat(p)
	switch {
	case err != nil:
		return f, err
	case f.Name == "":
		return f, errFolder
	case f.ReadOnly:
		return f, errReadOnly
	}
	return f, nil
}

// rename renames a file. Unless over is set the new name must be free, as the draft has it.
func (s *session) rename(from, to string, over bool) error {
	f, err := s.writable(from)
	if err != nil {
		return err
	}
	name, err := nameOf(to)
	if err != nil {
		return errNoFolders
	}
	if err := files.CheckName(name); err != nil {
		return err
	}
	switch there, err := s.find(name); {
	case err == nil && there.ReadOnly:
		return errReadOnly
	case err == nil && !over && name != f.Name:
		return errThere
	case err != nil && err != error(errNotThere):
		return err
	}
	if _, ok := s.taken[f.Name]; ok {
		// WinSCP gives what it has written its name at the end. It was used up under the first.
		delete(s.taken, f.Name)
		s.take(name, f.Size)
		return nil
	}
	if err := ofFiles(s.files.Rename(f.Name, name)); err != nil {
		return err
	}
	return s.note(name, f.Size)
}

// take notes that a file was written and used up.
func (s *session) take(name string, size int64) {
	if len(s.taken) == maxTaken {
		clear(s.taken)
	}
	s.taken[name] = files.File{Name: name, Size: size, Modified: time.Now()}
}

// note notes what was written, unless it is there.
func (s *session) note(name string, size int64) error {
	delete(s.taken, name)
	if _, err := s.find(name); err == error(errNotThere) {
		s.take(name, size)
	} else if err != nil {
		return err
	}
	return nil
}

// open opens a file.
func (s *session) open(p string, flags uint32) (*handle, error) {
	name, err := nameOf(p)
	switch {
	case err != nil && flags&openCreate != 0:
		return nil, errNoFolders
	case err != nil:
		return nil, err
	case name == "":
		return nil, errFolder
	case flags&(openRead|openWrite) == 0:
		return nil, errUnsupported
	case len(s.handles) == maxHandles:
		return nil, errHandles
	}
	h := &handle{name: name, flags: flags}
	f, err := s.find(name)
	switch {
	case err != nil && err != error(errNotThere):
		return nil, err
	case err != nil && (flags&openWrite == 0 || flags&openCreate == 0):
		return nil, err
	case err == nil && flags&(openCreate|openNew) == openCreate|openNew:
		return nil, errThere
	}
	there := err == nil
	_, taken := s.taken[name]
	h.modified = f.Modified
	if flags&openWrite != 0 {
		if f.ReadOnly {
			return nil, errReadOnly
		}
		if err := files.CheckName(name); err != nil {
			return nil, err
		}
		if h.streamed, err = s.files.Check(name); err != nil {
			return nil, ofFiles(err)
		}
		if h.streamed && s.streaming != nil {
			return nil, errOne
		}
		if h.streamed {
			if err := s.files.Create(name); err != nil {
				return nil, ofFiles(err)
			}
			s.streaming = h
			return h, nil
		}
		h.changed = !there || flags&openTruncate != 0
	}
	if there && !taken && (flags&openWrite == 0 || flags&openTruncate == 0) {
		// All of it, so that it is of one moment. The size of what the router makes may be another by now.
		if !s.memory.take(int(f.Size)) {
			return nil, errFull
		}
		content, err := s.files.Read(name)
		if err != nil {
			s.memory.take(-int(f.Size))
			return nil, ofFiles(err)
		}
		if !s.memory.take(cap(content) - int(f.Size)) {
			s.memory.take(-int(f.Size))
			return nil, errFull
		}
		h.content = content
	}
	return h, nil
}

// withHandle answers a request about what is open.
func (s *session) withHandle(kind byte, id uint32, name string, h *handle, r *reader) (*writer, error) {
	switch kind {
	case fxpClose:
		delete(s.handles, name)
		s.memory.take(-cap(h.content))
		err := s.close(h)
		if s.lost, s.lostFor = "", err; err != nil {
			s.lost = h.name
		}
		return nil, err
	case fxpReaddir:
		return s.readFolder(id, h)
	case fxpFstat, fxpFsetstat:
		f := h.file()
		if kind == fxpFstat {
			w := newWriter(s.answer, fxpAttrs, id)
			w.attributes(f)
			return w, nil
		}
		size, hasSize := r.attributes()
		switch {
		case r.bad:
			return nil, errMalformed
		case hasSize && (h.folder || size != uint64(f.Size)):
			return nil, s.resize(h, size)
		}
		return nil, nil
	case fxpRead:
		offset, length := r.uint64(), r.uint32()
		switch {
		case r.bad:
			return nil, errMalformed
		case h.folder:
			return nil, errFolder
		case h.flags&openRead == 0 || h.streamed:
			return nil, errNotRead
		case offset >= uint64(len(h.content)):
			return nil, status{statusEOF, "end of file"}
		}
		data := h.content[offset:]
		w := newWriter(s.answer, fxpData, id)
		w.string(string(data[:min(uint64(len(data)), uint64(length), maxData)]))
		return w, nil
	}
	offset, data := r.uint64(), r.bytes()
	if r.bad {
		return nil, errMalformed
	}
	return nil, s.write(h, offset, data)
}

// write writes a piece of a file.
func (s *session) write(h *handle, offset uint64, data []byte) error {
	switch {
	case h.folder:
		return errFolder
	case h.flags&openWrite == 0:
		return errNotWritten
	case h.failed != nil:
		return h.failed
	}
	h.failed = s.writePiece(h, offset, data)
	if h.failed != nil && h == s.streaming {
		s.streaming = nil
		if err := ofFiles(s.files.Abort()); err != nil {
			return err
		}
	}
	return h.failed
}

func (s *session) writePiece(h *handle, offset uint64, data []byte) error {
	if h.streamed {
		if offset != h.at && h.flags&openAppend == 0 {
			return errOrder
		}
		for len(data) > 0 {
			n := min(len(data), files.MaxPiece)
			if err := s.files.Append(data[:n]); err != nil {
				return ofFiles(err)
			}
			data, h.at = data[n:], h.at+uint64(n)
		}
		return nil
	}
	if h.flags&openAppend != 0 {
		offset = uint64(len(h.content))
	}
	end := offset + uint64(len(data))
	if end < offset || end > console.MaxImport {
		return errTooLong
	}
	if end > uint64(len(h.content)) {
		if err := s.resize(h, end); err != nil {
			return err
		}
	}
	copy(h.content[offset:], data)
	h.changed = true
	return nil
}

var errTooLong = status{statusFailure, fmt.Sprintf("failure: a file is longer than %d bytes", console.MaxImport)}

// resize makes a file of another length.
func (s *session) resize(h *handle, size uint64) error {
	switch {
	case h.folder:
		return errFolder
	case h.flags&openWrite == 0:
		return errNotWritten
	case h.streamed:
		return errOrder
	case size > console.MaxImport:
		return errTooLong
	}
	// What a file that gets shorter had stays taken, as it stays there.
	if room := cap(h.content); int(size) > room {
		grown := min(max(int(size), 2*room), console.MaxImport)
		if !s.memory.take(grown - room) {
			return errFull
		}
		h.content = append(make([]byte, 0, grown), h.content...)
	}
	old := len(h.content)
	if h.content = h.content[:size]; int(size) > old {
		clear(h.content[old:])
	}
	h.changed = true
	return nil
}

// close closes a file: what was written comes into being.
func (s *session) close(h *handle) error {
	size := int64(len(h.content))
	switch {
	case h.failed != nil:
		return h.failed
	case h.streamed:
		s.streaming = nil
		size = int64(h.at)
		if err := ofFiles(s.files.Commit()); err != nil {
			return err
		}
	case !h.changed:
		return nil
	case s.streaming != nil:
		return errOne
	default:
		if err := ofFiles(s.files.Put(h.name, h.content)); err != nil {
			return err
		}
	}
	return s.note(h.name, size)
}

// readFolder lists the folder, once.
func (s *session) readFolder(id uint32, h *handle) (*writer, error) {
	switch {
	case !h.folder:
		return nil, errNoFolder
	case h.told:
		return nil, status{statusEOF, "end of the list"}
	}
	all, err := s.list()
	if err != nil {
		return nil, err
	}
	h.told = true
	w := newWriter(s.answer, fxpName, id)
	w.uint32(uint32(len(all) + 1))
	for _, f := range append([]files.File{{}}, all...) {
		w.string(cmp.Or(f.Name, "."))
		w.string(longName(f))
		w.attributes(f)
	}
	return w, nil
}

// permissions are those of the root, of a file, and of one that the router makes.
func permissions(f files.File) (mode uint32, text string) {
	switch {
	case f.Name == "":
		return 0o40700, "drwx------"
	case f.ReadOnly:
		return 0o100400, "-r--------"
	}
	return 0o100600, "-rw-------"
}

// longName is a line as ls -l has it.
func longName(f files.File) string {
	_, mode := permissions(f)
	return fmt.Sprintf("%s    1 router   router   %8d %s %s", mode, f.Size, f.Modified.UTC().Format("Jan _2 15:04"), cmp.Or(f.Name, "."))
}

func (w *writer) attributes(f files.File) {
	mode, _ := permissions(f)
	w.uint32(attrSize | attrPermissions | attrTimes)
	w.uint64(uint64(f.Size))
	w.uint32(mode)
	at := uint32(max(0, f.Modified.Unix()))
	w.uint32(at)
	w.uint32(at)
}
