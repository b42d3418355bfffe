// Package ntp asks time servers for the time, and has the unprivileged process that does so.
// The process tells PID 1 by how much the clock is wrong, and PID 1 sets it.
//
// It is a simple client (SNTP, RFC 4330; the packet and its checks are those of RFC 5905).
// It asks one server at a time, and the next one when a server does not answer or its
// answer is of no use.
//
// It promises:
//   - An answer counts only if it repeats the random bits that the request has in place of
//     its time. Somebody who does not see the request cannot guess them, and they do
//     not tell the time of this clock.
//   - It asks a server at most once in 64 seconds, less often the longer it answers, and
//     never again if the server asks for that (a kiss of death).
package ntp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Config says whether the client runs, and whom it asks.
type Config struct {
	Enabled bool
	// Servers are IPv4 addresses or names, MaxServers at most.
	Servers []string
}

// MaxServers is the greatest number of servers.
const MaxServers = 4

// packetSize is the length of a packet without extensions, in bytes.
const packetSize = 48

const (
	version    = 4
	modeClient = 3
	modeServer = 4
	// unsynchronized is the leap indicator of a server whose clock is not synchronized.
	unsynchronized = 3
	maxStratum     = 15
	// maxDistance is the largest error that a server may state for its clock: MAXDIST of
	// RFC 5905, with room for a slow line.
	maxDistance = 3 * time.Second
)

// epoch is the start of NTP's first era, in seconds before 1970.
const epoch = 2208988800

// stamp is a time of NTP: 32 bits of seconds, then 32 bits of their fraction.
type stamp uint64

// time returns the time of s. A time that would be before 1968 is in the era that begins in
// 2036 (RFC 4330, section 3).
func (s stamp) time() time.Time {
	seconds := int64(s >> 32)
	if seconds&(1<<31) == 0 {
		seconds += 1 << 32
	}
	return time.Unix(seconds-epoch, int64(uint64(uint32(s))*1e9>>32)).UTC()
}

// request returns the packet of a request, with random bits in place of its time.
func request(random stamp) []byte {
	b := make([]byte, packetSize)
	b[0] = version<<3 | modeClient
	binary.BigEndian.PutUint64(b[40:], uint64(random))
	return b
}

// kiss is the code by which a server says that it does not want to be asked: RATE, DENY,
// RSTR (RFC 5905, section 7.4).
type kiss string

func (k kiss) Error() string { return "the server does not want to be asked: " + string(k) }

// errForeign says that a packet is no answer to the request.
var errForeign = errors.New("not an answer to the request")

// answer is the answer of a server.
type answer struct {
	stratum int
	// offset is the time by which the own clock is behind.
	offset time.Duration
}

// parseAnswer reads the answer to the request with these random bits. The request was sent
// at the time sent of the own clock, and the answer came after took, by a clock that
// nobody sets.
func parseAnswer(b []byte, random stamp, sent time.Time, took time.Duration) (answer, error) {
	if len(b) < packetSize {
		return answer{}, errForeign
	}
	field := func(at int) stamp { return stamp(binary.BigEndian.Uint64(b[at:])) }
	// This comes first, since anybody may have sent the rest.
	if field(24) != random {
		return answer{}, errForeign
	}
	if mode := b[0] & 7; mode != modeServer {
		return answer{}, fmt.Errorf("answer of mode %d, expected %d", mode, modeServer)
	}
	if v := b[0] >> 3 & 7; v < 3 || v > version {
		return answer{}, fmt.Errorf("answer of version %d", v)
	}
	stratum := int(b[1])
	if stratum == 0 {
		return answer{}, kissOf(b[12:16])
	}
	if b[0]>>6 == unsynchronized || stratum > maxStratum {
		return answer{}, errors.New("the server does not know the time itself")
	}
	received, transmitted := field(32), field(40)
	if received == 0 || transmitted == 0 {
		return answer{}, errors.New("answer without a time")
	}
	// Root delay and dispersion are seconds with 16 bits behind the point.
	short := func(at int) time.Duration {
		return time.Duration(uint64(binary.BigEndian.Uint32(b[at:])) * 1e9 >> 16)
	}
	if distance := short(4)/2 + short(8); distance > maxDistance {
		return answer{}, fmt.Errorf("the server may be wrong by %v", distance)
	}
	there := transmitted.time().Sub(received.time())
	if there < 0 || there > took {
		return answer{}, fmt.Errorf("the server took %v, of %v in all", there, took)
	}
	// ((T2 - T1) + (T3 - T4)) / 2, where T4 = T1 + took.
	offset := received.time().Sub(sent)/2 + transmitted.time().Sub(sent.Add(took))/2
	return answer{stratum: stratum, offset: offset}, nil
}

// kissOf returns the code in these four characters.
func kissOf(code []byte) kiss {
	for _, c := range code {
		if c < 'A' || c > 'Z' {
			return "?"
		}
	}
	return kiss(code)
}
