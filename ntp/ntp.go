// Package ntp asks time servers what time it is, and is the process that does so, as a
// user who has nothing: it says how far the clock is off, and whoever started it sets it.
//
// It is a simple client (SNTP, RFC 4330; the packet and its checks are those of RFC
// 5905): one server is asked at a time, the next one when one does not answer or says
// nothing of use. A request carries random bits in the place of its time, which an answer
// has to repeat: who does not see the request cannot guess them, and they tell nobody
// what time it is here. A server is asked once in 64 seconds at most, less often the longer
// it goes well, and no more if it says so (a kiss of death).
package ntp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Config is what the client is to do.
type Config struct {
	Enabled bool
	// Servers are IPv4 addresses or names, MaxServers at most.
	Servers []string
}

// MaxServers is how many servers there can be.
const MaxServers = 4

// packetSize is the length of a packet without extensions, in bytes.
const packetSize = 48

const (
	version    = 4
	modeClient = 3
	modeServer = 4
	// unsynchronized is the leap indicator of a server that does not know the time.
	unsynchronized = 3
	maxStratum     = 15
	// maxDistance is how wrong a server may say that it is: it is RFC 5905's MAXDIST,
	// with room for a slow line.
	maxDistance = 3 * time.Second
)

// epoch is the start of NTP's first era, in seconds before 1970.
const epoch = 2208988800

// stamp is NTP's time: seconds and their fraction of 32 bits each.
type stamp uint64

// time is the time that is meant: in the era that begins in 2036 if it would be before
// 1968 else (RFC 4330, section 3).
func (s stamp) time() time.Time {
	seconds := int64(s >> 32)
	if seconds&(1<<31) == 0 {
		seconds += 1 << 32
	}
	return time.Unix(seconds-epoch, int64(uint64(uint32(s))*1e9>>32)).UTC()
}

// request is a packet that asks, with random bits for its time.
func request(random stamp) []byte {
	b := make([]byte, packetSize)
	b[0] = version<<3 | modeClient
	binary.BigEndian.PutUint64(b[40:], uint64(random))
	return b
}

// kiss is what a server says who does not want to be asked: RATE, DENY, RSTR (RFC 5905,
// section 7.4).
type kiss string

func (k kiss) Error() string { return "the server does not want to be asked: " + string(k) }

// errForeign is the error of a packet that is no answer to the request.
var errForeign = errors.New("not an answer to the request")

// answer is what a server says.
type answer struct {
	stratum int
	// offset is what the clock is behind.
	offset time.Duration
}

// parseAnswer reads the answer to the request with these random bits, sent and received
// at these times of the own clock; took is the time between them, by a clock that nobody
// sets.
func parseAnswer(b []byte, random stamp, sent time.Time, took time.Duration) (answer, error) {
	if len(b) < packetSize {
		return answer{}, errForeign
	}
	field := func(at int) stamp { return stamp(binary.BigEndian.Uint64(b[at:])) }
	// First, since all else is anybody's word.
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
	// ((T2 - T1) + (T3 - T4)) / 2, where T4 is T1 and what it took.
	offset := received.time().Sub(sent)/2 + transmitted.time().Sub(sent.Add(took))/2
	return answer{stratum: stratum, offset: offset}, nil
}

// kissOf is the code of four characters.
func kissOf(code []byte) kiss {
	for _, c := range code {
		if c < 'A' || c > 'Z' {
			return "?"
		}
	}
	return kiss(code)
}
