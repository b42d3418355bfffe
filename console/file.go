package console

import (
	"fmt"
	"strings"
	"time"
)

// This file has the files that the router holds in memory: what was uploaded by SFTP, or written by /export.
// https://help.mikrotik.com/docs/spaces/ROS/pages/2555971/File

const fileMenuPath = "file"

// FileState is a file that the router holds.
type FileState struct {
	Number uint32
	Name   string
	Size   int
	// Owner is the user who has written it, Modified when.
	Owner    string
	Modified time.Time
}

// KeptFile is a file that the router is to hold.
type KeptFile struct{ Name, Content string }

var removeFiles = command{name: "remove", help: "remove files", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
	able: func(l Live) bool { return l.RemoveFiles != nil }, run: (*execution).removeFiles}

func fileMenu() *menu {
	return &menu{
		path: fileMenuPath, help: "files that the router holds until it restarts", commands: commandsLike(tableCommands, "", removeFiles),
		needs: func(l Live) bool { return l.Files != nil }, rows: (*execution).fileRows,
		columns: []column{{"name", 24}, {"type", 6}, {"size", 9}, {"last-modified", 19}, {"owner", 0}},
		readOnly: []readOnly{
			{name: "name", help: "name of the file"},
			{name: "type", help: "script: lines that /import reads; file: anything else"},
			{name: "size", help: "its length in bytes"},
			{name: "last-modified", help: "when it was written"},
			{name: "owner", help: "user who has written it; others can use it who have policy " + strings.Join(MayPolicy.names(), ",")},
		},
	}
}

func (x *execution) fileRows() ([]row, error) {
	all, err := x.live.Files()
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, len(all))
	for _, f := range all {
		kind := "file"
		if strings.HasSuffix(f.Name, scriptSuffix) {
			kind = "script"
		}
		rows = append(rows, row{id: firstLive | ID(f.Number), removal: func(a *Action) { a.RemoveFiles = append(a.RemoveFiles, f.Number) },
			pairs: []Pair{textPair("name", f.Name), wordPair("type", kind), numberPair("size", f.Size),
				textPair("last-modified", f.Modified.UTC().Add(x.cfg.TimeZone).Format(time.DateTime)), textPair("owner", f.Owner)}})
	}
	return rows, nil
}

const scriptSuffix = ".rsc"

// fileName is the kind of the name of a file that there is, or will be.
func fileName() kind[string] {
	k := text(1, 255)
	k.accepts = "name of a file"
	parse := k.parse
	k.parse = func(s string) (string, error) { return parse(strings.TrimPrefix(s, "/")) }
	k.offers = func(x *execution, _ *menu) (all []Choice) {
		if x.live.Files == nil {
			return nil
		}
		files, _ := x.live.Files()
		for _, f := range files {
			all = append(all, Choice{f.Name, fmt.Sprintf("%d bytes, of %s", f.Size, f.Owner)})
		}
		return all
	}
	return k
}

// removeFiles removes files when the line is in force.
func (x *execution) removeFiles(m *menu, a arguments) error {
	if err := x.removeLive(m, a); err != nil {
		return err
	}
	return x.live.MayRemoveFiles(x.result.Action.RemoveFiles)
}

// exportTo writes an export to a file.
func (x *execution) exportTo(name, content string) error {
	switch {
	case x.live.KeepFile == nil:
		return unavailable("files")
	case x.live.Denied&MayWrite != 0:
		return ErrNotPermitted
	}
	name = strings.TrimSuffix(name, scriptSuffix) + scriptSuffix
	// Before what else the line changes is in force: a line that fails changes nothing.
	if err := x.live.MayKeepFile(name, len(content)); err != nil {
		return err
	}
	x.result.Action.Keep = append(x.result.Action.Keep, KeptFile{name, content})
	return nil
}
