package router

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/password"
)

// Fifty addresses that guess have one hash after the other computed. That of who has not failed is the next, and that of who has mistyped is before
// those of who guess.
func TestTurnsOfPasswords(t *testing.T) {
	log, _ := testLog(t)
	synctest.Test(t, func(t *testing.T) {
		r := New(board.Board{}, log, Parts{}, nil)
		hash, err := password.New("right")
		require.NoError(t, err)
		var mu sync.Mutex
		var order []string
		r.logins.matches = func(_ password.Hash, secret string) bool {
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, secret)
			return secret == "right"
		}
		r.now.running.SetPassword(console.Admin, hash)
		from := func(n int) session.Origin {
			return session.Origin{Via: viaAPI, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})}
		}
		var asking sync.WaitGroup
		ask := func(n int, secret string) {
			asking.Go(func() { r.judge(r.now.running, from(n), console.Admin, secret) })
			synctest.Wait()
		}
		const guessers, mistyped, honest = 50, 200, 201
		for n := range guessers {
			for range 6 { // more than a person mistypes
				r.logins.refuse(from(n))
			}
		}
		r.logins.refuse(from(mistyped))
		for n := range guessers {
			ask(n, fmt.Sprint(n))
		}
		ask(mistyped, "nearly")
		ask(honest, "right")
		asking.Wait()
		assert.Equal(t, []string{"0", "right", "nearly", "1", "2"}, order[:5])
		assert.Len(t, order, guessers+2)

		// What comes by TLS is of the same address, and so is what PID 1 tells the service.
		assert.Equal(t, 7, r.loginAuthority(way{via: viaAPI, tls: true}).Failures(login.Login{From: from(0).Address}))
		assert.Zero(t, r.loginAuthority(way{via: viaAPI}).Failures(login.Login{From: from(honest).Address}))
		time.Sleep(forgetRefusals + time.Nanosecond)
		assert.Zero(t, r.logins.wrong(from(0)))
	})
}

// The addresses beyond those that are counted are as the last of them, known or not.
func TestManyGuessers(t *testing.T) {
	log, _ := testLog(t)
	l := newLogins(log)
	from := func(n int) session.Origin {
		return session.Origin{Via: viaAPI, Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}
	}
	for n := range maxOrigins {
		assert.Equal(t, firstRefusal, l.refuse(from(n)))
	}
	assert.Zero(t, l.wrong(from(maxOrigins)))
	for n := range 10 {
		l.refuse(from(maxOrigins + n))
	}
	assert.Equal(t, 10, l.wrong(from(maxOrigins+99)))
	assert.Equal(t, 1, l.wrong(from(0)))
	assert.Len(t, l.refusals, maxOrigins+1)
}
