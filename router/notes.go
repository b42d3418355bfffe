package router

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/store"
)

// This file keeps what the router itself needs at its next start in the slots of the configuration, where the flash
// has no room for a partition of the state (stateStore). Behind the configuration there are lines
//
//	# NAME=WORD
//
// one for each word of a value, which are comments to the configuration, also for earlier versions. The configuration
// stays as it is, byte by byte, and a cut leaves it as a cut in any write does (package store). Each write of a note
// wears a slot as a change of the configuration does: so who keeps notes writes them seldom.
//
// While nothing is set there is no configuration to be behind. Then the text of the defaults is written with them, and
// the note noteDefaults says that it does not count: the image's defaults hold, also those of the next image. (To an
// earlier version it is a configuration that works.)

// noteDefaults is the note that says so.
const noteDefaults = "defaults"

// maxNote is how many bytes the value of a note has at most. Two slots of 64 KiB are the smallest that there are, and most
// of one is the configuration's.
const maxNote = 24 << 10

// isNote reports whether name can be that of a note. No other comment at the end of a text is taken for one.
func isNote(name string) bool {
	return name == noteDefaults || name == stateLeases || name == stateHostKey || strings.HasPrefix(name, stateClient)
}

// cutNotes splits what is on flash into the configuration and the notes behind it.
func cutNotes(text []byte) (config []byte, notes map[string]string) {
	words := map[string][]string{}
	for {
		at := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n') + 1
		note, ok := strings.CutPrefix(strings.TrimSuffix(string(text[at:]), "\n"), "# ")
		name, word, found := strings.Cut(note, "=")
		if !ok || !found || !isNote(name) {
			break
		}
		words[name] = append(words[name], word)
		text = text[:at]
	}
	notes = map[string]string{}
	for name, all := range words {
		slices.Reverse(all)
		notes[name] = strings.Join(all, " ")
	}
	return text, notes
}

// joinNotes returns what is written to flash. That of the host key is last, where earlier versions look for it.
func joinNotes(config []byte, notes map[string]string) []byte {
	text := slices.Clone(config)
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		for word := range strings.FieldsSeq(notes[name]) {
			text = append(text, "# "+name+"="+word+"\n"...)
		}
	}
	return text
}

// saveFitting is the store's Save. A configuration that has no room with leases behind it is kept without them.
func (k *configStore) saveFitting(text []byte) error {
	err := k.store.Save(text)
	if !errors.Is(err, store.ErrTooLong) {
		return err
	}
	config, notes := cutNotes(text)
	if notes[stateLeases] == "" {
		return err
	}
	delete(notes, stateLeases)
	if err := k.store.Save(joinNotes(config, notes)); err != nil {
		return err
	}
	k.log.Printf(kmsg.Warning, "leases are not kept over a restart: with the configuration they are too long for the flash")
	return nil
}

// noteStore keeps values in the slots of the configuration.
type noteStore struct{ *configStore }

// kept reports whether notes are written: not before the first change if the configuration on flash was not read, as
// then they would take its place.
func (n noteStore) kept() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.keeper != nil && (n.text != nil || n.newest != nil || n.defaults != nil)
}

func (noteStore) room() int { return maxNote }

func (n noteStore) get(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.notes[name]
}

// put changes values. They are written soon, with the configuration: if that fails the log says that it is not kept.
func (n noteStore) put(change map[string]string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keeper == nil {
		return errors.New("there is no flash for it")
	}
	if n.notes == nil {
		n.notes = map[string]string{}
	}
	same := true
	for name, value := range change {
		same = same && n.notes[name] == value
		n.notes[name] = value
	}
	if !same {
		n.noted()
	}
	return nil
}
