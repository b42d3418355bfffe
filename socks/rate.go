package socks

import (
	"errors"
	"strconv"
	"strings"
)

// MinRateLimit and MaxRateLimit are the range of User.RateLimit, in bits per second.
const (
	MinRateLimit = 1_000
	MaxRateLimit = 10_000_000_000
)

// scales are the letters behind a rate and what they multiply it by, the greatest first.
var scales = []struct {
	letter string
	factor uint64
}{{"G", 1_000_000_000}, {"M", 1_000_000}, {"k", 1_000}}

// ParseRate parses a rate in bits per second as RouterOS writes it: 10M, 512k, 1500. It is an
// error if the rate is above 2^53.
func ParseRate(s string) (uint64, error) {
	factor := uint64(1)
	for _, scale := range scales {
		if number, ok := strings.CutSuffix(s, scale.letter); ok {
			s, factor = number, scale.factor
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 53)
	if err != nil {
		return 0, err
	}
	if n > 1<<53/factor {
		return 0, errors.New("number too large")
	}
	return n * factor, nil
}

// FormatRate writes a rate as ParseRate reads it, with the letter that makes it shortest without
// a fraction.
func FormatRate(n uint64) string {
	for _, scale := range scales {
		if n > 0 && n%scale.factor == 0 {
			return strconv.FormatUint(n/scale.factor, 10) + scale.letter
		}
	}
	return strconv.FormatUint(n, 10)
}
