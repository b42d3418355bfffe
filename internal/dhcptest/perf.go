package dhcptest

import (
	"fmt"
	"regexp"
	"strconv"
)

// Exchange is what perfdhcp tells of a question and its answer, of all clients together.
type Exchange struct {
	Name           string // DISCOVER-OFFER or REQUEST-ACK
	Sent, Received int
	// Delay is the mean time from the question to the answer, in milliseconds; 0 if there was none.
	Delay float64
}

func (e Exchange) String() string {
	return fmt.Sprintf("%s: %d of %d answered, after %.3f ms", e.Name, e.Received, e.Sent, e.Delay)
}

var exchange = regexp.MustCompile(`\*\*\*Statistics for: (\S+?)\*\*\*\s+sent packets: (\d+)\s+received packets: (\d+)(?s:.*?)avg delay: (\S+) ms`)

// Exchanges reads a report of perfdhcp (Kea).
func Exchanges(report []byte) ([]Exchange, error) {
	var all []Exchange
	for _, found := range exchange.FindAllSubmatch(report, -1) {
		e := Exchange{Name: string(found[1])}
		e.Sent, _ = strconv.Atoi(string(found[2])) // these are digits
		e.Received, _ = strconv.Atoi(string(found[3]))
		if e.Received > 0 {
			e.Delay, _ = strconv.ParseFloat(string(found[4]), 64)
		}
		all = append(all, e)
	}
	if len(all) != 2 {
		return nil, fmt.Errorf("expected two exchanges of perfdhcp, got %d", len(all))
	}
	return all, nil
}
