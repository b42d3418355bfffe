package pppoe

import (
	"bytes"
	"time"
)

const (
	// restartTime is how long a request waits for its answer, maxRequests how many there can be in
	// one negotiation. RFC 1661, section 4.6, has 10 for those that nobody answers; a server that
	// refuses without end gets no more either.
	restartTime = 3 * time.Second
	maxRequests = 20
	// maxAnswers is how many requests of the other side's are answered in one negotiation.
	maxAnswers = 40
	// maxNaks is after how many refusals that suggest another value options are refused outright
	// (Max-Failure of RFC 1661, section 4.6).
	maxNaks = 5
)

// state is that of a negotiation (RFC 1661, section 4.2); those in which nothing is up or wanted are
// one.
type state int

const (
	closed      state = iota
	requestSent       // neither side has agreed
	ackReceived       // the other side has agreed
	ackSent           // this side has agreed
	opened
)

// verdict is what this side says to an option of the other's.
type verdict int

const (
	accept verdict = iota
	suggest
	reject
)

// negotiator is what a protocol negotiates.
type negotiator interface {
	// wanted are the options that this side asks for.
	wanted() []option
	// refused takes a refusal of some of them: a suggestion of others, or outright.
	refused(all []option, outright bool)
	// judge says what becomes of an option of the other side's, and what is suggested instead.
	judge(o option) (verdict, option)
	// agreed takes the options of the other side's that were accepted.
	agreed(all []option)
}

// automaton negotiates the options of LCP or IPCP (RFC 1661, section 4). A negotiation that the other
// side begins anew, when it has ended, is a negotiation like the first.
type automaton struct {
	negotiator
	send func(p packet)

	state   state
	id      byte   // of the last request
	request []byte // its options
	acked   bool   // it was agreed to
	tries   int
	naks    int
	answers int
	// agreement is the last request of the other side's that was agreed to.
	agreement packet
	// deadline is when the last request is sent again.
	deadline time.Time
	// failed is set when there were too many requests.
	failed bool
}

// start begins a negotiation.
func (a *automaton) start(now time.Time) {
	a.state, a.tries, a.naks, a.answers, a.failed = requestSent, 0, 0, 0, false
	a.ask(now)
}

func (a *automaton) stop() { a.state = closed }

// ask sends a request.
func (a *automaton) ask(now time.Time) {
	if a.tries++; a.tries > maxRequests {
		a.failed = true
		return
	}
	a.id++
	a.request = appendOptions(nil, a.wanted())
	a.acked = false
	a.deadline = now.Add(restartTime)
	a.send(packet{configureRequest, a.id, a.request})
}

// pending reports whether deadline counts.
func (a *automaton) pending() bool { return a.state != closed && a.state != opened }

// tick sends the request again if it is time.
func (a *automaton) tick(now time.Time) {
	if !a.pending() || now.Before(a.deadline) {
		return
	}
	if a.state == ackReceived {
		a.state = requestSent
	}
	a.ask(now)
}

// take takes one of the packets with the codes of a negotiation.
func (a *automaton) take(now time.Time, p packet) {
	if a.state == closed {
		return
	}
	switch p.code {
	case configureRequest:
		a.answer(now, p)
	case configureAck:
		if p.id != a.id || a.acked || !bytes.Equal(p.data, a.request) {
			return
		}
		a.acked = true
		a.deadline = now.Add(restartTime)
		switch a.state {
		case requestSent:
			a.state = ackReceived
		case ackSent:
			a.state = opened
		}
	case configureNak, configureReject:
		if p.id != a.id || a.acked {
			return
		}
		all, err := parseOptions(p.data)
		if err != nil {
			return
		}
		a.refused(all, p.code == configureReject)
		a.ask(now)
	}
}

// answer answers a request of the other side's.
func (a *automaton) answer(now time.Time, p packet) {
	all, err := parseOptions(p.data)
	if err != nil {
		return
	}
	if a.state == opened {
		if p.id == a.agreement.id && bytes.Equal(p.data, a.agreement.data) { // it has not got the answer
			a.send(packet{configureAck, p.id, p.data})
			return
		}
		a.tries, a.naks, a.answers = 0, 0, 0 // it begins anew
		a.state = requestSent
		a.ask(now)
	}
	if a.answers++; a.answers > maxAnswers {
		a.failed = true
		return
	}
	var rejected, suggested, naked []option
	for _, o := range all {
		switch v, other := a.judge(o); v {
		case reject:
			rejected = append(rejected, o)
		case suggest:
			suggested, naked = append(suggested, other), append(naked, o)
		}
	}
	if len(rejected) == 0 && len(suggested) > 0 {
		if a.naks++; a.naks > maxNaks {
			rejected = naked
		}
	}
	switch {
	case len(rejected) > 0:
		a.send(packet{configureReject, p.id, appendOptions(nil, rejected)})
	case len(suggested) > 0:
		a.send(packet{configureNak, p.id, appendOptions(nil, suggested)})
	default:
		a.agreed(all)
		a.agreement = packet{p.code, p.id, bytes.Clone(p.data)}
		a.send(packet{configureAck, p.id, p.data})
		switch a.state {
		case requestSent:
			a.state = ackSent
		case ackReceived:
			a.state = opened
		}
		return
	}
	if a.state == ackSent {
		a.state = requestSent
	}
}
