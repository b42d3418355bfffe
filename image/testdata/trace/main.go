// Command trace ends with stack traces of all kinds, for TestTrace.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

type tree[T any] struct {
	left, right *tree[T]
	value       T
}

func grow[T any](depth int, value T) *tree[T] {
	if depth == 0 {
		return &tree[T]{value: value}
	}
	defer func() { _ = recover() }()
	return &tree[T]{grow(depth-1, value), grow(depth-1, value), value}
}

func (t *tree[T]) visit(f func(*tree[T])) {
	if t == nil {
		return
	}
	t.left.visit(f)
	f(t)
	t.right.visit(f)
}

type shower interface{ show(n int, words ...string) }

type quiet struct{ a, b, c int }

func (quiet) show(n int, words ...string) {
	if n > len(words) {
		fmt.Println(strings.TrimSpace(string(debug.Stack())))
		return
	}
	quiet{}.show(n+1, words...)
}

func main() {
	// Collections while the stack is deep read the tables of all functions on it.
	t := grow(8, "")
	n := 0
	t.visit(func(*tree[string]) {
		if n++; n%50 == 0 {
			runtime.GC()
			runtime.Gosched()
		}
	})
	fmt.Println(n)
	grow(2, quiet{}).visit(func(t *tree[quiet]) {
		var s shower = &t.value
		s.show(0, "a")
	})
	func() {
		defer func() {
			fmt.Println("recovered:", recover())
			fmt.Println(string(debug.Stack()))
		}()
		var none []int
		_ = none[len(os.Args)+n]
	}()
	debug.SetTraceback("all")
	wait := make(chan int)
	go func() { wait <- 1; <-wait }()
	<-wait
	func() {
		var none *quiet
		none.c++
	}()
}
