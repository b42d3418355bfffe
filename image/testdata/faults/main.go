// Command faults is PID 1 of a machine. It reads and writes by pointers that are nil, in front of calls, jumps and branches, once to recover,
// and once in a process that ends by it. Where a line has the comment "faults", its function's fault is. It is for TestDelaySlotsFault.
package main

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

type thing struct {
	n    int
	next *thing
	f    func()
}

type namer interface{ name() }

func (*thing) name() {}

var (
	none       *thing // nil
	noFunction func()
	one        = &thing{n: 1}
	yes        = true
	counted    int
	call             = func() { counted++ }
	method     namer = one
)

func nothing() {}

func storeAtCall(p *thing) {
	p.n = 7 // faults
	nothing()
}

func loadAtCall(p *thing) {
	_ = *p // faults
	nothing()
}

func storeAtClosure(p *thing, f func()) {
	p.n = 7 // faults
	f()
}

func storeAtMethod(p *thing, m namer) {
	p.n = 7 // faults
	m.name()
}

func storeAtReturn(p *thing) {
	p.n = 7 // faults
}

func loadAtReturn(p *thing) int {
	return p.n // faults
}

func loadAtBranch(p *thing, c bool) int {
	n := p.n // faults
	if c {
		return n + 1
	}
	return n
}

func storeAtBranch(p *thing, n int) int {
	p.n = n // faults
	if n > 5 {
		return 2 * n
	}
	return n
}

func storeAtJump(p *thing, c bool) {
	if c {
		p.n = 7 // faults
	} else {
		nothing()
	}
	counted++
	nothing()
}

func loadInLoop(p *thing) (n int) {
	for {
		n++
		p = p.next // faults
		if n > 1<<20 {
			return n
		}
	}
}

func storeInLoop(p *thing) {
	for i := 0; ; i++ {
		p.n = i // faults
		p = p.next
	}
}

func callOfNil(f func()) {
	nothing()
	f() // faults
}

func methodOfNil(m namer) {
	nothing()
	m.name() // faults
}

// withDefer recovers itself, and what it returns is what was set before.
func withDefer(p *thing) (n int) {
	defer func() {
		if recover() != nil {
			n++
		}
	}()
	n = 41
	p.n = 7
	nothing()
	return 0
}

// kept has pointers that are needed behind the fault, while the garbage collector runs.
func kept(p *thing) (n int) {
	a := &thing{n: 20, next: &thing{n: 22}}
	func() {
		defer func() {
			_ = recover()
			garbage()
		}()
		b := &thing{n: 1, next: a}
		p.next = b
		nothing()
	}()
	return a.n + a.next.n
}

// garbage overwrites what is free.
func garbage() {
	for range 3 {
		runtime.GC()
		for range 1000 {
			one.next = &thing{n: 99}
		}
	}
}

// faults are what panics, by the names of their functions.
var faults = map[string]func(){
	"storeAtCall":    func() { storeAtCall(none) },
	"loadAtCall":     func() { loadAtCall(none) },
	"storeAtClosure": func() { storeAtClosure(none, call) },
	"storeAtMethod":  func() { storeAtMethod(none, method) },
	"storeAtReturn":  func() { storeAtReturn(none) },
	"loadAtReturn":   func() { counted += loadAtReturn(none) },
	"loadAtBranch":   func() { counted += loadAtBranch(none, yes) },
	"storeAtBranch":  func() { counted += storeAtBranch(none, counted) },
	"storeAtJump":    func() { storeAtJump(none, yes) },
	"loadInLoop":     func() { counted += loadInLoop(none) },
	"storeInLoop":    func() { storeInLoop(&thing{}) },
	"callOfNil":      func() { callOfNil(noFunction) },
	"methodOfNil":    func() { methodOfNil(nil) },
}

// recovered calls a function that panics, and prints where that was, as the log of a router has it (package console/session).
func recovered(name string, f func()) {
	defer func() {
		err := recover()
		garbage()
		pcs := make([]uintptr, 32)
		frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
		for more := true; more; {
			var frame runtime.Frame
			if frame, more = frames.Next(); !strings.HasPrefix(frame.Function, "runtime.") {
				fmt.Printf("%s: panic: %v in %s (%s:%d +0x%x)\n", name, err, frame.Function, frame.File, frame.Line, frame.PC-frame.Entry)
				return
			}
		}
	}()
	f()
}

func main() {
	if len(os.Args) > 1 && faults[os.Args[1]] != nil {
		faults[os.Args[1]]()
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		recovered(name, faults[name])
		// Who does not recover ends by it.
		p, err := os.StartProcess("/init", []string{"init", name}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err == nil {
			_, err = p.Wait()
		}
		fmt.Println(name, "ends:", err)
	}
	fmt.Println("withDefer:", withDefer(none))
	fmt.Println("kept:", kept(none))
	// All of it is to be on the serial line before the machine ends.
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}
