package socks

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// given checks that the sums of the server are those of the memory of its connections.
func given(t *testing.T, s *Server) int {
	t.Helper()
	var anyone, fast int
	for _, c := range s.conns {
		anyone += c.memory
		for _, f := range []*flow{&c.tx, &c.rx} {
			if f.apart {
				fast += f.memory
			} else {
				anyone += f.memory
			}
		}
	}
	assert.Equal(t, anyone, s.memoryAny)
	assert.Equal(t, fast, s.memoryFast)
	assert.LessOrEqual(t, fast, s.socketMemory-s.socketMemory/anyPart)
	return anyone + fast
}

func option(t *testing.T, fd, level, name int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, level, name)
	require.NoError(t, err)
	return n
}

// TestSocketMemory opens more and more connections. The first get more memory, the last ones
// the least, and those that end give theirs back.
func TestSocketMemory(t *testing.T) {
	const memory = anyPart << 20
	u := start(t, func(o *options) { o.SocketMemory = memory })
	near, _ := u.connect(t)
	u.Server.mu.Lock()
	first := u.conns[1]
	assert.Equal(t, memory/anyPart/firstPart, first.memory)
	for _, fd := range []int{first.client, first.remote} {
		assert.Equal(t, memory/anyPart/firstPart/2, option(t, fd, unix.SOL_SOCKET, unix.SO_SNDBUF))
		assert.Equal(t, max(memory/anyPart/firstPart/2, roomyReceive), option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF))
	}
	u.Server.mu.Unlock()
	var all []client
	for range 150 {
		c, _ := u.connect(t)
		all = append(all, c)
	}
	u.Server.mu.Lock()
	assert.LessOrEqual(t, given(t, u.Server), memory+len(all)*leastMemory)
	late := u.conns[151]
	assert.Equal(t, leastMemory, late.memory)
	for _, fd := range []int{late.client, late.remote} {
		assert.Equal(t, roomyReceive, option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF), "a window of less than one packet may follow")
	}
	u.Server.mu.Unlock()

	// Bytes still move with the smallest window.
	last, far := u.connect(t)
	data := make([]byte, 200_000)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	go func() { far.Write(data) }()
	assert.True(t, string(data) == last.receive(len(data)))

	for _, c := range append(all, near, last) {
		require.NoError(t, c.SetLinger(0))
		c.Close()
	}
	u.awaitCount(t, 0)
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	assert.Zero(t, given(t, u.Server))
}

// TestSocketMemoryMoves checks that directions whose bytes move get memory, that one whose
// receiver does not read gets none, and that quiet ones give it back.
func TestSocketMemoryMoves(t *testing.T) {
	const memory = anyPart << 20
	u := start(t, func(o *options) { o.SocketMemory = memory })
	stuckNear, stuckFar := u.connect(t)
	defer stuckNear.Close()
	stuckFar.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	stuck, err := stuckFar.Write(make([]byte, 8<<20))
	require.ErrorContains(t, err, "timeout")
	assert.Less(t, stuck, 7<<20)

	near, far := u.connect(t)
	stop := make(chan struct{})
	streamed := make(chan error, 1)
	go func() {
		b := make([]byte, 32<<10)
		for {
			select {
			case <-stop:
				streamed <- nil
				return
			default:
			}
			if _, err := far.Write(b); err != nil {
				streamed <- err
				return
			}
		}
	}()
	read := make(chan struct{})
	go func() { defer close(read); io.Copy(io.Discard, near) }()
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		return u.conns[2].rx.fast
	}, patience, time.Millisecond)
	// More than 64 kB, the largest window that is not scaled.
	require.Eventually(t, func() bool { return sendWindow(t, far) > 1<<16 }, patience, time.Millisecond)
	u.Server.mu.Lock()
	c := u.conns[2]
	assert.LessOrEqual(t, c.memory+c.rx.memory, mostMemory)
	assert.Zero(t, c.tx.memory, "nothing moves that way")
	want := (c.memory + c.rx.memory) / 2
	assert.InDelta(t, want, option(t, c.remote, unix.SOL_SOCKET, unix.SO_RCVBUF), 4)
	// The kernel may lower it by the part of a packet's memory that is not data.
	assert.Greater(t, option(t, c.remote, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP), want/3)
	assert.InDelta(t, want*2/3, option(t, c.client, unix.SOL_SOCKET, unix.SO_SNDBUF), 4)
	given(t, u.Server)
	u.Server.mu.Unlock()

	close(stop)
	require.NoError(t, <-streamed)
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		given(t, u.Server)
		return u.conns[2].rx.memory == 0 && !u.conns[2].rx.fast
	}, 5*lookTime, 10*time.Millisecond)
	u.Server.mu.Lock()
	assert.Equal(t, max(c.memory/2, roomyReceive), option(t, c.remote, unix.SOL_SOCKET, unix.SO_RCVBUF))
	given(t, u.Server)
	u.Server.mu.Unlock()

	// It still works after it was quiet.
	large := make([]byte, 4<<20)
	require.NoError(t, far.SetWriteDeadline(time.Now().Add(patience)))
	_, err = far.Write(large)
	require.NoError(t, err)
	require.NoError(t, far.CloseWrite())
	select {
	case <-read:
	case <-time.After(patience):
		t.Error("the end has not arrived")
	}
}

// sendWindow returns how much the other side of c lets it send, in bytes.
func sendWindow(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	var info *unix.TCPInfo
	require.NoError(t, raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}))
	require.NoError(t, err)
	return int(info.Snd_wnd)
}

// TestSocketMemoryOfTheFast checks that a direction that has moved a lot in a short time gets
// more than the part for all connections, and that it passes the same bytes when they are
// spliced.
func TestSocketMemoryOfTheFast(t *testing.T) {
	const memory = anyPart * mostMemory
	u := start(t, func(o *options) { o.SocketMemory = memory })
	near, far := u.connect(t)
	data := make([]byte, 16*fastSize)
	rand.NewChaCha8([32]byte{}).Read(data)
	send := func(size int) (has int, fast bool) {
		written := make(chan error, 1)
		go func() {
			_, err := far.Write(data[:size])
			written <- err
		}()
		require.True(t, string(data[:size]) == near.receive(size))
		require.NoError(t, <-written)
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		assert.False(t, u.conns[1].tx.fast, "nothing moves that way")
		return given(t, u.Server), u.conns[1].rx.fast
	}
	has, fast := send(fastSize / 2)
	assert.False(t, fast)
	assert.Greater(t, has, leastMemory)
	assert.LessOrEqual(t, has, memory/anyPart)
	has, fast = send(len(data))
	assert.True(t, fast)
	assert.Equal(t, mostMemory, has)
}

// TestSocketMemoryBesideTheFast makes fast connections until nothing is left of their part.
// The next one, and all that come later, must get their share of the part for all as if the
// fast ones were not there.
func TestSocketMemoryBesideTheFast(t *testing.T) {
	u := start(t, func(o *options) { o.SocketMemory = anyPart << 20 })
	data := make([]byte, 32<<10)
	stream := func() (end func()) {
		near, far := u.connect(t)
		var both sync.WaitGroup
		both.Go(func() {
			for {
				if _, err := far.Write(data); err != nil {
					return
				}
			}
		})
		both.Go(func() { io.Copy(io.Discard, near) })
		return func() {
			near.Close()
			far.Close()
			both.Wait()
		}
	}
	// state returns the memory of the direction in which the connection with that number
	// moves bytes.
	state := func(number uint64) (fast, apart bool) {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		given(t, u.Server)
		f := u.conns[number].rx
		return f.fast, f.apart
	}
	var ends []func()
	var last uint64
	for apart := true; apart; _, apart = state(last) {
		require.Less(t, len(ends), 20, "there is more and more")
		ends = append(ends, stream())
		last = uint64(len(ends))
		require.Eventually(t, func() bool { fast, _ := state(last); return fast }, patience, time.Millisecond)
	}
	// The last one came too late, and has memory from the part for all.
	assert.Greater(t, len(ends), 3)
	u.connect(t)
	u.Server.mu.Lock()
	assert.Greater(t, u.conns[last+1].memory, leastMemory)
	u.Server.mu.Unlock()
	for _, end := range ends[:last-1] {
		end()
	}
	require.Eventually(t, func() bool { _, apart := state(last); return apart }, patience, time.Millisecond, "what it has moves over")
	ends[last-1]()
	for _, c := range u.Connections() {
		u.CloseConnection(c.Number)
	}
	u.awaitCount(t, 0)
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	assert.Zero(t, given(t, u.Server))
}

// TestMemoryIsShort makes the machine's memory short: at first garbage is collected, then no
// connections are accepted, and then those that were silent for longest are closed.
func TestMemoryIsShort(t *testing.T) {
	u := start(t, func(o *options) { o.SocketMemory = 1 << 20 })
	const all = 1200
	free := uint64(all)
	u.Server.mu.Lock()
	u.machineMemory = func() (uint64, uint64) { return free, all }
	u.Server.mu.Unlock()
	set := func(n uint64) {
		u.Server.mu.Lock()
		free = n
		u.Server.mu.Unlock()
	}
	first, _ := u.connect(t)
	silent, _ := u.connect(t)
	third, thirdFar := u.connect(t)
	pass := func(c client, far io.Reader) {
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
	}

	collected := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	before := collected()
	set(all/collectPart - 1)
	require.Eventually(t, func() bool {
		pass(third, thirdFar) // the loop has to look
		return collected() > before
	}, patience, time.Millisecond)

	set(all/tightPart - 1)
	waiting := make(chan client, 1)
	go func() {
		c, _ := u.connect(t)
		waiting <- c
	}()
	select {
	case <-waiting:
		t.Fatal("accepted with little memory")
	case <-time.After(100 * time.Millisecond):
	}
	pass(third, thirdFar)
	u.awaitCount(t, 3)
	set(all / tightPart)
	fourth := <-waiting
	u.awaitCount(t, 4)

	// Connections that hold no bytes stay: what they give back is nothing.
	set(all/shortPart - 1)
	require.Eventually(t, func() bool {
		pass(third, thirdFar)
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		return u.relieveAt > 0
	}, patience, time.Millisecond)
	u.awaitCount(t, 4)
	set(all / tightPart)
	require.NoError(t, silent.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	for err := error(nil); err == nil; {
		_, err = silent.Write(make([]byte, 1<<20)) // nobody reads it
	}

	u.Server.mu.Lock()
	u.relieveAt = 0
	u.conns[1].last, u.conns[2].last = u.now, u.now-time.Minute
	ended := false
	u.machineMemory = func() (uint64, uint64) {
		ended = ended || len(u.conns) < 4
		if ended {
			return all, all
		}
		return all/shortPart - 1, all
	}
	u.Server.mu.Unlock()
	pass(third, thirdFar) // the loop has to look
	u.awaitCount(t, 3)
	_, err := silent.Read(make([]byte, 1))
	require.Error(t, err)
	u.Server.mu.Lock()
	assert.NotContains(t, u.conns, uint64(2))
	given(t, u.Server)
	u.Server.mu.Unlock()
	for _, c := range []client{first, third, fourth} {
		c.Close()
	}
}

// TestMemoryIsAskedForOnce: each turn of the loop makes the system call once, while there is enough.
func TestMemoryIsAskedForOnce(t *testing.T) {
	asked := 0
	s := newServer(Options{SocketMemory: 1 << 20}, defaultLimits())
	s.machineMemory = func() (uint64, uint64) { asked++; return 100, 100 }
	s.relieveMemory()
	assert.Equal(t, 1, asked)
	s.socketMemory = 0
	s.relieveMemory()
	assert.Equal(t, 1, asked)
}

// TestPartOfALargeBuffer: the sizes of a flow that is not fast are more than an int of 32 bits takes, multiplied.
func TestPartOfALargeBuffer(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	f := &flow{receive: mostMemory / 2, window: mostMemory / 2}
	f.resize(fd)
	for _, clamp := range []int{mostMemory / 4, 1 << 10} { // as the kernel does
		require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, clamp))
		f.learn(fd)
		assert.Equal(t, clamp < leastWindow, f.cramped(), "of %d bytes it takes %d", f.receive, clamp)
	}
}

// TestPartOfASmallerBuffer: what the kernel takes of a buffer is known when the buffer becomes smaller, and it is not taken
// for enough before anything was measured. The kernel says it once.
func TestPartOfASmallerBuffer(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	s := newServer(Options{SocketMemory: 1 << 20}, defaultLimits())
	c, f := &conn{memory: leastMemory}, &flow{}
	s.limitSource(c, fd, f)
	assert.Equal(t, leastReceive, option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF))
	f.moved = 1
	f.resize(fd)
	assert.Equal(t, crampedReceive, option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF), "nothing is measured")
	f.full = true
	f.resize(fd)
	assert.Equal(t, leastReceive, option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF), "the same, but what comes waits")
	f.full, f.memory = false, 16<<10
	s.limitSource(c, fd, f)
	large := option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, large/4)) // as the kernel does
	f.learn(fd)
	assert.False(t, f.cramped())
	f.memory = 0
	s.limitSource(c, fd, f)
	assert.True(t, f.cramped())
	assert.Equal(t, crampedReceive, option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF))
}

// TestHeldIsMemory: what waits at a socket is counted by the memory that it takes, which for pieces of one byte is a
// hundred times as much as their bytes.
func TestHeldIsMemory(t *testing.T) {
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer l.Close()
	raw, err := l.SyscallConn()
	require.NoError(t, err)
	c := conn{client: none, remote: none, udp: &association{peers: inlet{fd: none}}}
	require.NoError(t, raw.Control(func(fd uintptr) { c.udp.client.fd = int(fd) }))
	assert.False(t, c.holdsMemory(), "an association without datagrams")
	from, err := net.DialUDP("udp4", nil, l.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer from.Close()
	for i := range 20 {
		_, err = from.Write([]byte{0})
		require.NoError(t, err)
		if i == 1 {
			assert.False(t, c.holdsMemory(), "two small packets")
		}
	}
	assert.True(t, c.holdsMemory())
}

// TestMemoryOfConnections counts what is allocated for each of some connections, also what is garbage once they are
// established: the collector leaves that alone until there is some MB of it.
func TestMemoryOfConnections(t *testing.T) {
	const conns = 400
	for _, c := range []struct {
		name    string
		version int
		auth    AuthMethod
		before  []string // the request
		answers []int    // how long each is
	}{
		{"version 4", version4, AuthNone, nil, []int{8}},
		{"version 5", version5, AuthNone, []string{greeting}, []int{2, maxReply}},
		{"version 5, a password", version5, AuthPassword, []string{greetingPassword, login("alice", "secret")}, []int{2, 2, maxReply}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				o.Logf, o.matches = nil, (&passwordChecks{}).matches
				o.cfg.Version, o.cfg.AuthMethod, o.cfg.MaxConnections = c.version, c.auth, MaxMaxConnections
				o.cfg.Users = []User{{Name: "alice", Password: hashOf("secret")}}
			})
			to := listen(t, "127.0.0.1").Addr().String() // its connections wait to be accepted
			request := ask(commandConnect, to, "ftp")
			if c.version == version5 {
				request = ask5(commandConnect, to)
			}
			each := u.allocated(t, conns, append(c.before, request), c.answers)
			t.Logf("%d bytes for each connection", each)
			assert.Less(t, each, 700, "bytes for each connection")
			u.awaitCount(t, conns+1)
		})
	}
}

// allocated makes so many connections, and one before them, and returns how many bytes were allocated for each. messages are
// sent in turn, and each has an answer of that many bytes. The connections last until the end of the test.
func (u *setup) allocated(t *testing.T, conns int, messages []string, answers []int) int {
	t.Helper()
	var sent [][]byte
	for _, m := range messages {
		sent = append(sent, []byte(m))
	}
	server := netip.MustParseAddrPort(u.addr)
	at, answer := &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())}, make([]byte, maxReply)
	var clients []int
	t.Cleanup(func() {
		for _, fd := range clients {
			unix.Close(fd)
		}
	})
	connect := func() { // itself allocates next to nothing
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		clients = append(clients, fd)
		require.NoError(t, unix.Connect(fd, at))
		for i, m := range sent {
			_, err = unix.Write(fd, m)
			require.NoError(t, err)
			for left := answers[i]; left > 0; {
				n, err := unix.Read(fd, answer[:left])
				if err == unix.EINTR {
					continue
				}
				require.NoError(t, err)
				require.NotZero(t, n, "the end instead of answer %d", i)
				left -= n
			}
		}
	}
	connect()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range conns {
		connect()
	}
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc-before.TotalAlloc) / conns
}
