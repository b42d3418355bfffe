package main

import "strings"

// traceName is what the shipped program has of a function's name: its package, with a dot behind it and
// without the path of Postern's module. The place in a stack trace says which function it is. The names
// that the runtime compares, and those of its own functions that it shows in traces, are kept. This
// file is also a part of the boards' linker (linkerPatches).
func traceName(name string) string {
	switch name {
	case "reflect.makeFuncStub", "reflect.methodValueCall", "runtime.gopanic":
		return name
	}
	path := name
	if i := strings.IndexAny(path, "[("); i >= 0 {
		path = path[:i] // type arguments and receivers contain other paths
	}
	slash := strings.LastIndexByte(path, '/') + 1
	dot := strings.IndexByte(path[slash:], '.')
	if dot < 0 {
		return name
	}
	end := slash + dot + 1
	if exported := strings.TrimLeft(name[end:], "(*"); name[:end] == "runtime." && exported != "" && 'A' <= exported[0] && exported[0] <= 'Z' {
		return name
	}
	return strings.TrimPrefix(name[:end], "github.com/postern-router/postern/")
}
