package resolve

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

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

// refusal returns the error for an answer with that error code.
func refusal(code dnsmessage.RCode) error {
	switch code {
	case dnsmessage.RCodeFormatError:
		return errors.New("does not understand the question (FORMERR)")
	case dnsmessage.RCodeServerFailure:
		return errors.New("failed to find out (SERVFAIL)")
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

// answer returns the addresses in the message b, if that is the answer to q. If there are
// none, the error is ErrNotFound, ErrNoAddress, errForeign, errTruncated, or says what is wrong
// with the server.
func (q question) answer(b []byte) ([]netip.Addr, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != q.id || !h.Response || h.OpCode != 0 {
		return nil, errForeign
	}
	asked, err := p.Question()
	if err != nil || asked.Type != dnsmessage.TypeA || asked.Class != dnsmessage.ClassINET || !sameName(asked.Name, q.name) {
		return nil, errForeign
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return nil, errForeign
	}
	switch {
	case h.Truncated:
		return nil, errTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return nil, ErrNotFound
	case h.RCode != dnsmessage.RCodeSuccess:
		return nil, refusal(h.RCode)
	}
	// Records may come in any order: an alias may come after the addresses of its target.
	name := q.name
	for range maxAliases + 1 {
		addrs, alias, err := records(p, name)
		if err != nil {
			return nil, fmt.Errorf("sent a malformed answer: %w", err)
		}
		if len(addrs) > 0 {
			return addrs, nil
		}
		if alias.Length == 0 {
			if !h.Authoritative && !h.RecursionAvailable && name == q.name {
				return nil, errors.New("does not look names up for others")
			}
			return nil, ErrNoAddress
		}
		name = alias
	}
	return nil, fmt.Errorf("sent more than %d aliases", maxAliases)
}

// records returns what the answers at which p is say about a name: its addresses, and the
// name of which it is an alias.
func records(p dnsmessage.Parser, name dnsmessage.Name) (addrs []netip.Addr, alias dnsmessage.Name, err error) {
	for len(addrs) < maxAddresses {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return nil, alias, err
		}
		ours := h.Class == dnsmessage.ClassINET && sameName(h.Name, name)
		switch {
		case ours && h.Type == dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return nil, alias, err
			}
			addrs = append(addrs, netip.AddrFrom4(r.A))
		case ours && h.Type == dnsmessage.TypeCNAME:
			r, err := p.CNAMEResource()
			if err != nil {
				return nil, alias, err
			}
			alias = r.CNAME
		default:
			if err := p.SkipAnswer(); err != nil {
				return nil, alias, err
			}
		}
	}
	return addrs, alias, nil
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
