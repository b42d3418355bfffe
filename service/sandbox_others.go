//go:build !arm && !mips && !mipsle

package service

import "golang.org/x/sys/unix"

// mapCalls are the system calls that map memory.
func mapCalls() []uint32 { return []uint32{unix.SYS_MMAP} }

// wordCalls are those that 32-bit machines have beside, or instead of, the ones of all.
func wordCalls() []uint32 { return nil }
