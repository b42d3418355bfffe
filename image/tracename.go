package main

import "strings"

// traceName is the name of a function in a stack trace of the shipped program: without the path
// of Postern's module and, as the runtime prints it, without types in brackets. This file is also a
// part of the boards' linker (linkerPatches).
func traceName(name string) string {
	if i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); i >= 0 && j > i {
		name = name[:i] + "[...]" + name[j+1:]
	}
	return strings.ReplaceAll(name, "github.com/postern-router/postern/", "")
}
