// Command linked prints what depends on the descriptors of types: what the garbage collector keeps, what interfaces
// and reflection find, what maps compare. For TestLinkedTypes, which runs it as a program of two linkers.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"unique"
	"weak"
)

type node struct {
	next *node
	v    int
}
type inner struct {
	n int
	p *node
	s string
	i any
}
type mixed struct {
	a   uint8
	arr [3]inner
	f   func() int
	m   map[string]*node
	c   chan inner
}

var g mixed
var gs [7]mixed
var gp = struct {
	x int
	q [5]*inner
	e error
}{x: 1}
var gm = map[key]inner{}

type key struct {
	a int
	s string
	p *node
}

// On-demand masks, with a small struct inside.
type huge struct {
	pad  int
	in   [30000]small
	tail [10]mixed
}
type small struct {
	n int
	p *node
}

var gh huge

func list(n int) *node {
	var h *node
	for i := range n {
		h = &node{h, i}
	}
	return h
}
func sum(h *node) (s int) {
	for ; h != nil; h = h.next {
		s += h.v
	}
	return
}

func fill(m *mixed) {
	for i := range m.arr {
		m.arr[i] = inner{i, list(20), fmt.Sprint("s", i), list(10)}
	}
	x := list(30)
	m.f = func() int { return sum(x) }
	m.m = map[string]*node{"a": list(5)}
	m.c = make(chan inner, 4)
	m.c <- inner{9, list(7), "c", nil}
}
func check(m *mixed) string {
	t := 0
	for i := range m.arr {
		t += sum(m.arr[i].p) + sum(m.arr[i].i.(*node)) + len(m.arr[i].s)
	}
	in := <-m.c
	m.c <- in
	return fmt.Sprint(t, m.f(), sum(m.m["a"]), sum(in.p), in.s)
}
func garbage() {
	var keep [][]byte
	for i := range 200 {
		b := make([]byte, 16+i*8)
		for j := range b {
			b[j] = 0xaa
		}
		keep = append(keep, b)
	}
	runtime.KeepAlive(keep)
	runtime.GC()
}

type timeoutErr struct{ s string }

func (e *timeoutErr) Error() string                                            { return e.s }
func (e *timeoutErr) Timeout() bool                                            { return true }
func (e *timeoutErr) Temporary() bool                                          { return false }
func (e *timeoutErr) Unused(x [3]uint16, y map[uint8]string) (string, [9]int8) { return "", [9]int8{} }

type wrapErr struct {
	error
	code int
}

func (w wrapErr) Unwrap() error   { return w.error }
func (w wrapErr) Is(t error) bool { return t == io.ErrShortWrite }

type valErr int

func (v valErr) Error() string { return "val" }

type str struct {
	A int
	b string
	C []inner2
	D map[string]*inner2
	E any
	sub
}
type inner2 struct{ X, y int }
type sub struct {
	Z string `k:"v"`
}

func (i inner2) String() string { return fmt.Sprintf("<%d>", i.X) }

type ptrStr struct{ x int }

func (p *ptrStr) String() string { return fmt.Sprint("ptr", p.x) }

type onlyReflect struct {
	F ptrStr
	G *ptrStr
	h ptrStr
}
type fmter struct{}

func (fmter) Format(f fmt.State, c rune) { io.WriteString(f, "FMT"+string(c)) }

type local1 = struct {
	A int
	B string
}

func gen[T comparable](a, b T) string {
	var x any = a
	_, s := x.(fmt.Stringer)
	_, e := x.(error)
	return fmt.Sprintf("%T %v %v %v %v", a, a == b, s, e, x)
}

type box[T any] struct {
	v T
	p *T
}

func (b box[T]) Get() T   { return b.v }
func (b *box[T]) Set(v T) { b.v = v; b.p = &v }

type getter[T any] interface{ Get() T }

func mk[T any](v T) any { return &box[T]{v: v, p: &v} }
func use[T any](x any) string {
	g, ok := x.(getter[T])
	if !ok {
		return "no"
	}
	return fmt.Sprint(g.Get())
}

type wire struct {
	A uint16
	B [3]uint8
	C int32
	D struct{ E, F uint8 }
}

func try(name string, f func()) {
	defer func() { r := recover(); fmt.Printf("%s: %T %v\n", name, r, r) }()
	f()
}

func main() {
	debug.SetGCPercent(5)
	fill(&g)
	for i := range gs {
		fill(&gs[i])
	}
	for i := range gp.q {
		gp.q[i] = &inner{i, list(5), "q", nil}
	}
	gp.e = &timeoutErr{"gp"}
	for i := range gh.in {
		if i%100 == 0 {
			gh.in[i] = small{i, list(3)}
		}
	}
	fill(&gh.tail[9])
	hh := new(huge)
	for i := range hh.in {
		if i%77 == 0 {
			hh.in[i] = small{i, list(4)}
		}
	}
	fill(&hh.tail[3])
	hs := make([]mixed, 9)
	for i := range hs {
		fill(&hs[i])
	}
	bigk := map[[40]int]mixed{}
	var k40 [40]int
	for i := range 50 {
		k40[3] = i
		var m mixed
		fill(&m)
		bigk[k40] = m
	}
	for i := range 500 {
		gm[key{i, fmt.Sprint(i), nil}] = inner{i, list(3), "m", list(2)}
	}
	var fs []func() int
	for i := range 100 {
		a, b, c := list(i), &inner{i, list(2), "x", nil}, [3]*node{list(1), list(2), list(3)}
		fs = append(fs, func() int { return sum(a) + sum(b.p) + sum(c[2]) + b.n })
	}
	var wg sync.WaitGroup
	ch := make(chan mixed)
	for range 4 {
		wg.Go(func() {
			for range 5 {
				var m mixed
				fill(&m)
				ch <- m
				garbage()
			}
		})
	}
	go func() { wg.Wait(); close(ch) }()
	n := 0
	for m := range ch {
		if check(&m) == check(&g) {
			n++
		}
	}
	fmt.Println("chan", n)
	for range 10 {
		garbage()
	}
	fmt.Println(check(&g))
	for i := range gs {
		fmt.Println(check(&gs[i]))
	}
	fmt.Println(check(&gh.tail[9]), check(&hh.tail[3]))
	t := 0
	for i := range gh.in {
		t += sum(gh.in[i].p) + sum(hh.in[i].p)
	}
	for i := range hs {
		check(&hs[i])
	}
	for k, m := range bigk {
		t += k[3] + len(check(&m))
	}
	for k, v := range gm {
		t += k.a + sum(v.p) + sum(v.i.(*node))
	}
	for _, f := range fs {
		t += f()
	}
	for _, q := range gp.q {
		t += sum(q.p)
	}
	fmt.Println("sum", t, gp.e)

	var err error = fmt.Errorf("w: %w", wrapErr{&timeoutErr{"t"}, 3})
	var te *timeoutErr
	var ne net.Error
	var we wrapErr
	var iface interface{ Timeout() bool }
	fmt.Println(errors.As(err, &te), errors.As(err, &ne), errors.As(err, &we), errors.As(err, &iface), errors.Is(err, io.ErrShortWrite), errors.Is(err, io.EOF), we.code)
	_, ok := errors.AsType[valErr](errors.Join(err, valErr(2)))
	fmt.Println(ok)
	_, ok = err.(interface{ Timeout() bool })
	fmt.Println(ok)
	_, ok = any(te).(interface {
		Temporary() bool
		Timeout() bool
		Error() string
	})
	fmt.Println(ok)
	_, ok = any(te).(interface {
		Unused([3]uint16, map[uint8]string) string
	})
	fmt.Println(ok)
	_, e := net.Dial("tcp", "127.0.0.1:1")
	var oe *net.OpError
	fmt.Println(errors.As(e, &oe), errors.As(e, &ne), oe.Op)
	_, e = os.Open("/none")
	var pe *os.PathError
	fmt.Println(errors.As(e, &pe), errors.Is(e, os.ErrNotExist), e)

	v := str{1, "b", []inner2{{1, 2}}, map[string]*inner2{"k": {3, 4}}, inner2{5, 6}, sub{"z"}}
	v2 := str{1, "b", []inner2{{1, 2}}, map[string]*inner2{"k": {3, 4}}, inner2{5, 6}, sub{"z"}}
	fmt.Printf("%v %+v %T\n", v.C, v.E, v)
	fmt.Println(reflect.DeepEqual(v, v2))
	v2.C[0].y = 9
	fmt.Println(reflect.DeepEqual(v, v2))
	fmt.Printf("%v %+v %#v %d\n", v.sub, v.sub, v.sub, fmter{})
	o := &onlyReflect{ptrStr{1}, &ptrStr{2}, ptrStr{3}}
	fmt.Printf("%+v %v\n", *o, reflect.ValueOf(o).Elem().Field(0).Addr().Interface())
	fmt.Println(reflect.New(reflect.TypeOf(ptrStr{})).Interface().(fmt.Stringer), reflect.TypeFor[str]().NumField(), reflect.TypeFor[sub]().Field(0).Tag, reflect.TypeFor[str]().Field(5).Name)
	fmt.Println(reflect.TypeFor[*ptrStr]().Implements(reflect.TypeFor[fmt.Stringer]()), reflect.TypeFor[valErr]().AssignableTo(reflect.TypeFor[error]()))
	mt := reflect.MapOf(reflect.TypeFor[key](), reflect.TypeFor[inner]())
	mv := reflect.MakeMap(mt)
	mv.SetMapIndex(reflect.ValueOf(key{a: 4}), reflect.ValueOf(inner{n: 8}))
	garbage()
	_, same := mv.Interface().(map[key]inner)
	fmt.Println(mv.Len(), same, mv.MapIndex(reflect.ValueOf(key{a: 4})).Field(0))
	sv := reflect.MakeSlice(reflect.SliceOf(reflect.TypeFor[mixed]()), 2, 2)
	fill(sv.Index(1).Addr().Interface().(*mixed))
	garbage()
	fmt.Println(check(sv.Index(1).Addr().Interface().(*mixed)))
	cv := reflect.MakeChan(reflect.ChanOf(reflect.BothDir, reflect.TypeFor[inner]()), 1)
	cv.Send(reflect.ValueOf(inner{n: 3, p: list(4)}))
	garbage()
	r, _ := cv.Recv()
	fmt.Println(sum(r.Interface().(inner).p))
	st := reflect.StructOf([]reflect.StructField{{Name: "A", Type: reflect.TypeFor[int]()}, {Name: "B", Type: reflect.TypeFor[string]()}})
	x := reflect.New(st).Elem().Interface()
	_, same = x.(local1)
	fmt.Println("structof", same)
	av := reflect.New(reflect.ArrayOf(3, reflect.TypeFor[inner]())).Elem()
	av.Index(2).Set(reflect.ValueOf(inner{p: list(9)}))
	garbage()
	fmt.Println(sum(av.Index(2).Interface().(inner).p))
	fn := reflect.MakeFunc(reflect.TypeFor[func(inner, *mixed) (int, error)](), func(a []reflect.Value) []reflect.Value {
		garbage()
		return []reflect.Value{reflect.ValueOf(sum(a[0].Interface().(inner).p)), reflect.Zero(reflect.TypeFor[error]())}
	})
	fmt.Println(fn.Interface().(func(inner, *mixed) (int, error))(inner{p: list(8)}, &g))
	mval := reflect.ValueOf(inner2.String).Call([]reflect.Value{reflect.ValueOf(inner2{X: 77})})
	fmt.Println(mval[0])

	var buf bytes.Buffer
	w := wire{1, [3]uint8{2, 3, 4}, -5, struct{ E, F uint8 }{6, 7}}
	var w2 wire
	fmt.Println(binary.Write(&buf, binary.BigEndian, w), buf.Bytes(), binary.Read(&buf, binary.BigEndian, &w2), w == w2)
	ss := []mixed{{a: 3}, {a: 1}, {a: 2}}
	fill(&ss[0])
	sort.Slice(ss, func(i, j int) bool { return ss[i].a < ss[j].a })
	garbage()
	fmt.Println(ss[0].a, ss[2].a, check(&ss[2]))
	slices.SortFunc(ss, func(a, b mixed) int { return int(b.a) - int(a.a) })
	fmt.Println(ss[0].a, check(&ss[0]))

	h1, h2 := unique.Make(struct {
		a string
		b int
	}{"x" + fmt.Sprint(1), 2}), unique.Make(struct {
		a string
		b int
	}{"x1", 2})
	garbage()
	fmt.Println(h1 == h2, h1.Value())
	fmt.Println(netip.MustParseAddr("fe80::1%eth0") == netip.MustParseAddr("fe80::1%eth"+fmt.Sprint(0)))
	wp := weak.Make(&node{nil, 1})
	garbage()
	fmt.Println(wp.Value() == nil)
	var sm sync.Map
	for i := range 300 {
		sm.Store(key{a: i, s: fmt.Sprint(i)}, inner{i, list(2), "", nil})
	}
	garbage()
	z, ok := sm.Load(key{a: 7, s: "7"})
	fmt.Println(ok, sum(z.(inner).p), sm.CompareAndSwap(inner2{1, 2}, 1, 2))
	anym := map[any]int{key{a: 1}: 1, inner2{1, 2}: 2, 3.5: 3, [2]string{"a", "b"}: 4, valErr(3): 5, struct{ x any }{inner2{4, 4}}: 6}
	fmt.Println(anym[key{a: 1}], anym[inner2{1, 2}], anym[3.5], anym[[2]string{"a", "b"}], anym[valErr(3)], anym[struct{ x any }{inner2{4, 4}}])
	sd := maphash.MakeSeed()
	fmt.Println(maphash.Comparable(sd, key{a: 1}) == maphash.Comparable(sd, key{a: 1}))
	var av2 atomic.Value
	av2.Store(inner2{1, 2})
	fmt.Println(av2.CompareAndSwap(inner2{1, 2}, inner2{3, 4}), av2.Load())
	fin := make(chan string, 2)
	func() {
		p := &mixed{a: 1}
		runtime.SetFinalizer(p, func(s any) { fin <- fmt.Sprintf("%T", s) })
		q := &ptrStr{5}
		runtime.SetFinalizer(q, func(s fmt.Stringer) { fin <- s.String() })
	}()
	for range 3 {
		garbage()
	}
	a, b := <-fin, <-fin
	fmt.Println(len(a) + len(b))
	fmt.Println(gen(inner2{1, 2}, inner2{1, 2}), gen(valErr(1), valErr(2)), gen(struct{ q int }{1}, struct{ q int }{1}))
	fmt.Println(use[int](mk(3)), use[string](mk(3)), use[inner2](mk(inner2{8, 8})))

	try("assert concrete", func() { _ = any(3).(inner2) })
	try("assert iface", func() { _ = any(v).(fmt.Stringer) })
	try("assert iface2", func() { var r io.Reader = &buf; _ = r.(io.Seeker) })
	try("compare", func() { var a, b any = []int{1}, []int{1}; _ = a == b })
	try("unhashable", func() { anym[[]int{1}] = 2 })
	try("unhashable struct", func() { anym[struct{ x any }{[]int{1}}] = 2 })
	try("nil method", func() { var p *inner2; var s fmt.Stringer = p; _ = s.String() })
	try("err", func() { panic(&timeoutErr{"p"}) })
	try("index", func() { i := 5; _ = ss[i] })
	try("defer", func() {
		m := mixed{}
		fill(&m)
		defer func(m mixed, n *node) { garbage(); fmt.Println(check(&m), sum(n)) }(m, list(4))
		panic(inner2{1, 1})
	})
	type ik struct {
		n int
		x any
	}
	full, empty := map[ik]int{{1, 2}: 3}, map[ik]int{}
	try("lookup in full", func() { _ = full[ik{1, []int{1}}] })
	try("lookup in empty", func() { _ = empty[ik{1, []int{1}}] })
}
