package socks

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/password"
)

// Bounds of logins with a password.
const (
	// maxTries is how many passwords wait to be checked.
	maxTries = 32
	// maxGuessers is how many addresses are remembered from which a wrong password came, and
	// guesserTime for how long after the last one.
	maxGuessers = 256
	guesserTime = 10 * time.Minute
	// firstDelay is what a wrong password delays the next one from the same address. Each
	// doubles it, up to maxDelay, which is within the time for the handshake: a client with
	// the right password can still be served.
	firstDelay = time.Second
	maxDelay   = 8 * time.Second
	// checkPause is for how long there is no check after one of a wrong password, as a multiple
	// of what that took: guesses from many addresses leave most of the processor to the relay.
	checkPause = 2
)

var (
	errWrongPassword = errors.New("wrong name or password")
	errManyTries     = errors.New("too many passwords wait to be checked")
	errNoUsers       = errors.New("a password is asked for, but there are no users")
)

// account is a user who may log in.
type account struct {
	User
	// mark is that of the name and password that matched last, if known. With it the next
	// connection of the user need not wait for a check.
	mark  mark
	known bool
	// tx and rx bound what the connections of the user move.
	tx, rx bucket
}

// mark stands for a name and password: a hash with a key that nobody else has.
type mark [blake2b.Size256]byte

// randomKey returns a key for marks.
func randomKey() (key [blake2b.Size256]byte, err error) {
	if n, err := unix.Getrandom(key[:], 0); err != nil || n != len(key) {
		return key, fmt.Errorf("random key: %d bytes: %w", n, err)
	}
	return key, nil
}

// newMarks returns the hash with such a key. One serves for all marks: a new one for each
// connection would be most of what that costs in memory.
func newMarks() (hash.Hash, error) {
	key, err := randomKey()
	if err != nil {
		return nil, err
	}
	return blake2b.New256(key[:])
}

func (s *Server) mark(name, password []byte) (m mark) {
	h := s.marks
	h.Reset()
	h.Write([]byte{byte(len(name))}) // at most maxField
	h.Write(name)
	h.Write(password)
	h.Sum(m[:0])
	return m
}

// setUsers makes the accounts of users. A user whose password is the same keeps his.
func (s *Server) setUsers(users []User) {
	old := s.accounts
	s.accounts, s.decoy = make(map[string]*account, len(users)), ""
	for _, u := range users {
		if u.Disabled {
			continue
		}
		a := old[u.Name]
		if a == nil || a.Password != u.Password {
			a = &account{tx: fullBucket, rx: fullBucket}
		}
		u.Comment = ""
		a.User = u
		s.accounts[u.Name] = a
		s.decoy = u.Password
	}
}

// lost returns why a connection of a may not go on, or nil. users are those of the
// configuration.
func (s *Server) lost(a *account, users []User) error {
	switch {
	case s.accounts[a.Name] == a:
		return nil
	case s.accounts[a.Name] != nil:
		return errNewPassword
	case slices.ContainsFunc(users, func(u User) bool { return u.Name == a.Name }):
		return errUserDisabled
	}
	return errUserRemoved
}

// try is a name and password that wait to be checked, for one or more connections from the
// same address: a browser opens many at once.
type try struct {
	from           netip.Addr
	name, password string
	mark           mark
	conns          []*conn
	// counted says that it counts as a wrong password of its address, until it turns out to
	// be right. A client that hangs up does not change that.
	counted bool
}

// guesser is an address from which wrong passwords came.
type guesser struct {
	wrong int
	last  time.Duration // when the last one came
	next  time.Duration // when the next may be looked at
}

// login has the name and password of c's client checked. c waits until that is done.
func (s *Server) login(c *conn, name, password []byte) {
	c.step = stepChecking
	if len(s.accounts) == 0 {
		s.end(c, errNoUsers)
		return
	}
	from, m := c.src.Addr(), s.mark(name, password)
	// What most connections need has no try.
	if a := s.accounts[string(name)]; a != nil && a.remembers(m) && s.guessers[from] == nil {
		s.letIn(c, a)
		return
	}
	same := func(t *try) bool { return t.from == from && t.mark == m }
	if t := s.checking; t != nil && same(t) {
		t.join(c)
		return
	}
	if i := slices.IndexFunc(s.tries, same); i >= 0 {
		s.tries[i].join(c)
		return
	}
	t := &try{from: from, name: string(name), password: string(password), mark: m}
	if err := s.makeRoom(from); err != nil {
		c.user = t.name
		s.end(c, err)
		return
	}
	t.join(c)
	s.tries = append(s.tries, t)
	s.runTries()
}

func (t *try) join(c *conn) {
	t.conns = append(t.conns, c)
	c.try = t
}

// leaveTry has c not wait for its password any more, when c ends. A check that runs goes on.
func (s *Server) leaveTry(c *conn) {
	t := c.try
	if t == nil {
		return
	}
	c.try = nil
	t.conns = slices.DeleteFunc(t.conns, func(o *conn) bool { return o == c })
	if len(t.conns) == 0 {
		s.dropTry(t)
	}
}

// dropTry removes t from those that wait.
func (s *Server) dropTry(t *try) {
	s.tries = slices.DeleteFunc(s.tries, func(o *try) bool { return o == t })
}

// makeRoom makes room for a try of that address. If there is none, the newest try of the
// address that has most of them, together with wrong passwords before, gives way, unless
// that is this address itself.
func (s *Server) makeRoom(from netip.Addr) error {
	if len(s.tries) < maxTries {
		return nil
	}
	weights := map[netip.Addr]int{}
	weigh := func(a netip.Addr) int {
		if weights[a] == 0 {
			weights[a] = s.wrong(a)
		}
		weights[a]++
		return weights[a]
	}
	for _, t := range s.tries {
		weigh(t.from)
	}
	heaviest := s.tries[0]
	for _, t := range s.tries {
		if weights[t.from] >= weights[heaviest.from] {
			heaviest = t
		}
	}
	if weights[heaviest.from] <= weigh(from) {
		return errManyTries
	}
	s.dropTry(heaviest)
	s.settle(heaviest, nil, errManyTries)
	return nil
}

// runTries looks at the tries whose address may have one looked at, and starts a check if none
// runs.
func (s *Server) runTries() {
	for i := 0; i < len(s.tries); {
		t := s.tries[i]
		if g := s.guessers[t.from]; !t.counted && g != nil && g.next > s.now {
			s.checkAt = min(s.checkAt, g.next)
			i++
			continue
		}
		if a := s.remembered(t); a != nil {
			s.tries = slices.Delete(s.tries, i, i+1)
			s.right(t, a)
			continue
		}
		if !t.counted {
			// Its client can know from now on that this is not the password that is remembered.
			t.counted = true
			s.countWrong(t.from)
		}
		i++
	}
	if s.checking != nil {
		return
	}
	if s.nextCheck > s.now && len(s.tries) > 0 {
		s.checkAt = min(s.checkAt, s.nextCheck)
		return
	}
	var next *try
	for _, t := range s.tries {
		if t.counted && (next == nil || s.wrong(t.from) < s.wrong(next.from)) {
			next = t
		}
	}
	if next == nil {
		return
	}
	s.dropTry(next)
	s.checking = next
	began := s.now
	a, hash := s.accounts[next.name], s.decoy
	if a != nil {
		hash = a.Password
	}
	s.running.Go(func() {
		// It is as slow for a user who does not exist.
		matched := s.matches(hash, next.password)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.checking = nil
		if s.closed {
			return
		}
		s.tick()
		if !matched {
			s.nextCheck = s.now + checkPause*(s.now-began)
		}
		s.checked(next, a, matched)
		s.poller.wake() // there may be more to do, and another time to wait
	})
}

// remembered returns the account whose name and password t is, if that is known without
// a check.
func (s *Server) remembered(t *try) *account {
	if a := s.accounts[t.name]; a != nil && a.remembers(t.mark) {
		return a
	}
	return nil
}

// remembers reports whether m is that of the name and password that matched last.
func (a *account) remembers(m mark) bool {
	return a.known && subtle.ConstantTimeCompare(a.mark[:], m[:]) == 1
}

// checked ends the check of t, which was made with the hash of a, or with that of somebody
// else if a is nil.
func (s *Server) checked(t *try, a *account, matched bool) {
	if matched && a != nil && s.accounts[t.name] == a {
		a.mark, a.known = t.mark, true
		s.right(t, a)
	} else {
		s.settle(t, nil, errWrongPassword)
	}
	s.runTries()
}

// right lets in those who wait for t, which is the name and password of a.
func (s *Server) right(t *try, a *account) {
	if t.counted {
		s.uncountWrong(t.from)
	}
	s.settle(t, a, nil)
}

// settle tells the connections that wait for t how it ended.
func (s *Server) settle(t *try, a *account, err error) {
	conns := t.conns
	t.conns = nil
	for _, c := range conns {
		c.try = nil
	}
	for _, c := range conns {
		if c.over {
			continue
		}
		c.user = t.name
		if err == nil {
			s.letIn(c, a)
			continue
		}
		s.end(c, err)
	}
}

// letIn tells c's client that it is a's, and goes on with its request.
func (s *Server) letIn(c *conn, a *account) {
	c.account, c.user, c.step = a, a.Name, stepRequest
	if err := reply(c.client, []byte{loginVersion, loginAccepted}); err != nil {
		s.end(c, err)
	} else if c.tx.try {
		s.readHandshake(c)
	}
}

// wrong returns how many wrong passwords of an address count.
func (s *Server) wrong(from netip.Addr) int {
	if g := s.guessers[from]; g != nil && s.now-g.last <= guesserTime {
		return g.wrong
	}
	return 0
}

// countWrong counts a wrong password of an address, which delays the next.
func (s *Server) countWrong(from netip.Addr) {
	g := s.guessers[from]
	if g == nil {
		if len(s.guessers) >= maxGuessers {
			s.forgetGuesser()
		}
		g = &guesser{}
		s.guessers[from] = g
	} else if s.now-g.last > guesserTime {
		*g = guesser{}
	}
	g.wrong++
	g.last = s.now
	g.next = s.now + min(firstDelay<<min(g.wrong-1, 10), maxDelay)
}

// uncountWrong takes one back that was right. What others of this address guessed before
// stays: a user could otherwise guess the passwords of others between his own logins.
func (s *Server) uncountWrong(from netip.Addr) {
	g := s.guessers[from]
	if g == nil {
		return
	}
	g.next = s.now
	if g.wrong--; g.wrong <= 0 {
		delete(s.guessers, from)
	}
}

// forgetGuesser forgets the address from which no wrong password has come for longest.
func (s *Server) forgetGuesser() {
	var oldest netip.Addr
	last := never
	for a, g := range s.guessers {
		if g.last < last {
			oldest, last = a, g.last
		}
	}
	delete(s.guessers, oldest)
}

// matches reports whether a password has a hash. An invalid hash matches none.
func matches(hash, secret string) bool {
	h, err := password.Parse(hash)
	return err == nil && h.Matches(secret)
}

// admit returns an error if c may not make its request: if it has no user and needs one, or if
// its user may have one connection only and has another. One whose client has ended what it
// sends gives way: who closes a connection and makes the next need not wait for the server at
// the other end.
func (s *Server) admit(c *conn) error {
	if c.account == nil {
		if s.needsPassword() {
			return notAllowed("the client has not given a password")
		}
		return nil
	}
	if !c.account.OnlyOne {
		return nil
	}
	// Not a count, which could be wrong for ever after a mistake.
	for _, o := range s.conns {
		switch {
		case o == c || o.account != c.account || o.state == handshaking:
		case o.tx.ending || o.tx.done:
			s.end(o, errGaveWay)
		default:
			return notAllowed("the user may have one connection (only-one), and has connection %d", o.number)
		}
	}
	return nil
}

// needsPassword reports whether clients must log in.
func (s *Server) needsPassword() bool {
	return s.cfg.Version == version5 && s.cfg.AuthMethod == AuthPassword
}

// unfit returns why the configuration would not let c in now, or nil. users are those of the
// configuration.
func (s *Server) unfit(c *conn, users []User) error {
	switch {
	case c.version == version5 && s.cfg.Version != version5 && (c.state != handshaking || c.step != stepFirst):
		return errVersion
	case c.account != nil:
		return s.lost(c.account, users)
	case c.state != handshaking && s.needsPassword():
		return errPasswordNow
	}
	return nil
}
