package resolve

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxAddresses is how many addresses of one name are returned.
	maxAddresses = 32
	// maxAliases is how many names may follow from one another (CNAME).
	maxAliases = 8
)

// errForeign means that a message does not answer the question. It may be forged, or the
// answer to an older question. The right answer may still come.
var errForeign = errors.New("not the answer to the question")

// errTruncated means that the answer did not fit the message (TC in RFC 1035).
var errTruncated = errors.New("sent a truncated answer")

// errFailed means that the server did not find the answer, errUnhelped that neither does it ask others (RA is not set).
var (
	errFailed   = errors.New("failed to find out (SERVFAIL)")
	errUnhelped = fmt.Errorf("%w", errFailed)
)

// refusal returns the error for an answer with that error code.
func refusal(code dnsmessage.RCode) error {
	switch code {
	case dnsmessage.RCodeFormatError:
		return errors.New("does not understand the question (FORMERR)")
	case dnsmessage.RCodeServerFailure:
		return errFailed
	case dnsmessage.RCodeNotImplemented:
		return errors.New("does not support the question (NOTIMP)")
	case dnsmessage.RCodeRefused:
		return errors.New("refuses to answer (REFUSED)")
	}
	return fmt.Errorf("answers with error code %d", code)
}

// question is a question for the IPv4 addresses of a name (RFC 1035, section 4).
type question struct {
	id   uint16
	name dnsmessage.Name
}

// newQuestion returns a question for a valid name.
func newQuestion(id uint16, name string) (question, error) {
	n, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	return question{id: id, name: n}, err
}

// append appends the message that asks the question.
func (q question) append(b []byte) ([]byte, error) {
	m := dnsmessage.NewBuilder(b, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	if err := m.StartQuestions(); err != nil {
		return nil, err
	}
	if err := m.Question(dnsmessage.Question{Name: q.name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}); err != nil {
		return nil, err
	}
	return m.Finish()
}

// answer returns what the message b says about the name, if that is the answer to q. If there
// are no addresses, the error is ErrNotFound, ErrNoAddress, errForeign, errTruncated, or says
// what is wrong with the server.
func (q question) answer(b []byte) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != q.id || !h.Response || h.OpCode != 0 {
		return answer{}, errForeign
	}
	asked, err := p.Question()
	if err != nil || asked.Type != dnsmessage.TypeA || asked.Class != dnsmessage.ClassINET || !sameName(asked.Name, q.name) {
		return answer{}, errForeign
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return answer{}, errForeign
	}
	switch {
	case h.Truncated:
		return answer{}, errTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return answer{keep: negativeTime(p)}, ErrNotFound
	case h.RCode == dnsmessage.RCodeServerFailure && !h.RecursionAvailable:
		return answer{}, errUnhelped
	case h.RCode != dnsmessage.RCodeSuccess:
		return answer{}, refusal(h.RCode)
	}
	// Records may come in any order: an alias may come after the addresses of its target.
	name, keep := q.name, mostTime
	for range maxAliases + 1 {
		addrs, alias, ttl, err := records(p, name)
		keep = min(keep, ttl)
		if err != nil {
			return answer{}, fmt.Errorf("sent a malformed answer: %w", err)
		}
		if len(addrs) > 0 {
			return answer{addrs, keep}, nil
		}
		if alias.Length == 0 {
			if !h.Authoritative && !h.RecursionAvailable && name == q.name {
				return answer{}, errors.New("does not look names up for others")
			}
			return answer{keep: min(keep, negativeTime(p))}, ErrNoAddress
		}
		name = alias
	}
	return answer{}, fmt.Errorf("sent more than %d aliases", maxAliases)
}

// records returns what the answers at which p is say about a name: its addresses, and the
// name of which it is an alias; and for how long that holds.
func records(p dnsmessage.Parser, name dnsmessage.Name) (addrs []netip.Addr, alias dnsmessage.Name, keep time.Duration, err error) {
	keep = mostTime
	for len(addrs) < maxAddresses {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return nil, alias, 0, err
		}
		ours := h.Class == dnsmessage.ClassINET && sameName(h.Name, name)
		if ours && (h.Type == dnsmessage.TypeA || h.Type == dnsmessage.TypeCNAME) {
			keep = min(keep, time.Duration(h.TTL)*time.Second)
		}
		switch {
		case ours && h.Type == dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return nil, alias, 0, err
			}
			addrs = append(addrs, netip.AddrFrom4(r.A))
		case ours && h.Type == dnsmessage.TypeCNAME:
			r, err := p.CNAMEResource()
			if err != nil {
				return nil, alias, 0, err
			}
			alias = r.CNAME
		default:
			if err := p.SkipAnswer(); err != nil {
				return nil, alias, 0, err
			}
		}
	}
	return addrs, alias, keep, nil
}

// negativeTime returns how long an answer without an address holds, which the zone's SOA record
// says (RFC 2308, section 5). Without one it does not hold at all.
func negativeTime(p dnsmessage.Parser) time.Duration {
	if p.SkipAllAnswers() != nil {
		return 0
	}
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return 0
		}
		if h.Type != dnsmessage.TypeSOA || h.Class != dnsmessage.ClassINET {
			if p.SkipAuthority() != nil {
				return 0
			}
			continue
		}
		soa, err := p.SOAResource()
		if err != nil {
			return 0
		}
		return time.Duration(min(h.TTL, soa.MinTTL)) * time.Second
	}
}

// sameName reports whether names are the same in the DNS, which ignores the case of ASCII
// letters.
func sameName(a, b dnsmessage.Name) bool {
	return bytes.Equal(lower(a), lower(b))
}

func lower(n dnsmessage.Name) []byte {
	for i, c := range n.Data[:n.Length] {
		if c >= 'A' && c <= 'Z' {
			n.Data[i] = c + 'a' - 'A'
		}
	}
	return n.Data[:n.Length]
}
