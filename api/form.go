package api

import (
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/console"
)

// idName is the property that a row's ID is.
const idName = ".id"

// text is a value in the API's form: true and false, numbers of bytes and bits without units. All else is as
// screens show it.
func text(v console.Value) string {
	s := v.String()
	switch v.Type {
	case console.Boolean:
		return strconv.FormatBool(v.Bool())
	case console.Integer, console.Bytes:
		// A word that stands for a number, as auto, has none.
		if n := v.Int(); n != 0 || s != "" && isDigit(s[0]) {
			return strconv.FormatInt(n, 10)
		}
	}
	return s
}

// newRow is r, a row of the menu at path, in the API's form.
func newRow(path string, r console.Row) row {
	out := row{id: r.ID, properties: make([]property, 0, len(r.Pairs))}
	for _, p := range r.Pairs {
		v := property{name: p.Name, text: text(p.Value), value: p.Value}
		// A route has only the flags that are true: clients count them by ?static.
		if path == "ip route" && v.text == "false" && p.Name != "disabled" {
			continue
		}
		if path == "queue simple" && (p.Name == "rate" || strings.HasSuffix(p.Name, "-limit") || p.Name == "limit-at" || p.Name == "burst-threshold") {
			v.text = bits(v.text)
		}
		out.properties = append(out.properties, v)
	}
	return out
}

// bits writes the rates of a queue, "10M/512k" or "1.2Mbps/0bps", in bits per second.
func bits(pair string) string {
	rates := strings.Split(pair, "/")
	for i, rate := range rates {
		rate = strings.TrimSuffix(rate, "bps")
		scale := 1.0
		for _, u := range []struct {
			letter string
			scale  float64
		}{{"k", 1e3}, {"M", 1e6}, {"G", 1e9}} {
			if number, is := strings.CutSuffix(rate, u.letter); is {
				rate, scale = number, u.scale
			}
		}
		n, err := strconv.ParseFloat(rate, 64)
		if err != nil {
			return pair
		}
		rates[i] = strconv.FormatInt(int64(n*scale+0.5), 10)
	}
	return strings.Join(rates, "/")
}

// queried are the names that Query knows of those that a client has named.
func queried(names []string) []string {
	var known []string
	for _, n := range names {
		if n != idName && !slices.Contains(known, n) {
			known = append(known, n)
		}
	}
	return known
}

// counters are the properties that Query looks up only by their names, since that takes time.
var counters = []string{"bytes", "packets", "hits", "rx-byte", "tx-byte", "rx-packet", "tx-packet",
	"rate", "packet-rate", "dropped", "queued-bytes", "queued-packets"}
