//go:build !arm && !mips && !mipsle

package service

import "golang.org/x/sys/unix"

// mapCalls are the system calls that map memory.
func mapCalls() []uint32 { return []uint32{unix.SYS_MMAP} }

// wordCalls are those that 32-bit machines have besides, or instead of, the ones of all.
func wordCalls() []uint32 { return nil }

// fileCalls look at an open file, go to a place in it and advise the page cache.
func fileCalls() []uint32 { return []uint32{unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_FADVISE64} }
