package sshd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
)

// Spec is the process.
var Spec = service.Spec{
	Name: "sshd", Topic: "ssh", Start: service.OnConnection, Main: runProcess,
	Calls:  login.Calls,
	Limits: service.Limits{Files: 96, Memory: 4 << 20},
}

// The requests of the process, besides those of package login.
const (
	opKnown    = login.FirstOp
	opKeyLogin = login.FirstOp + 1
	opSign     = login.FirstOp + 2
	opFiles    = login.FirstOp + 3
)

// maxSigned bounds what is signed with the host key, the hash of a key exchange, and the signature.
const maxSigned = 64

// Authority is what PID 1 decides. Its functions are called from several goroutines.
type Authority struct {
	login.Authority
	// HostKey is the public key of the router, and Sign signs with it.
	HostKey [ssh.KeySize]byte
	Sign    func(data []byte) []byte
	// Known returns the Proof of a key (ssh.PublicKey.Key) that is one of the user's, else "".
	Known func(_ login.Login, key string) (proof string)
	// ServeFiles holds a session of package files and closes conn.
	ServeFiles func(conn net.Conn, from login.Login)
}

// Process is PID 1's end of the process.
type Process struct {
	*login.Process
	authority Authority
}

// NewProcess is for service.Options.
func NewProcess(link *service.Link, a Authority) *Process {
	return &Process{Process: login.NewProcess(link, a.Authority), authority: a}
}

// Configure puts a configuration in force. The process accepts on listener, of which the caller keeps
// its own copy.
func (p *Process) Configure(ctx context.Context, c login.Config, listener *os.File) error {
	return p.Process.Configure(ctx, c, login.TLS{}, string(p.authority.HostKey[:]), listener)
}

// Handle serves the process. It does not wait for the check of a password.
func (p *Process) Handle(ctx context.Context, r *service.Request) ([]byte, error) {
	var reply service.Encoder
	switch r.Op {
	case opSign:
		data := r.String(maxSigned)
		if r.End() != nil || len(data) != sha256.Size {
			break
		}
		reply.String(string(p.authority.Sign([]byte(data))))
		return reply.Bytes(), nil
	case opKnown:
		from, key := login.Decode(r.Decoder), r.String(ssh.MaxKey)
		if r.End() != nil {
			break
		}
		reply.Bool(p.authority.Known(from, key) != "")
		return reply.Bytes(), nil
	case opKeyLogin:
		number, from, key := login.DecodeNumber(r.Decoder), login.Decode(r.Decoder), r.String(ssh.MaxKey)
		if r.End() != nil {
			break
		}
		if from.Proof = p.authority.Known(from, key); from.Proof == "" {
			return nil, errors.New("the key is not known any more")
		}
		return nil, p.Admit(number, from)
	case opFiles:
		return nil, p.Session(r, p.authority.ServeFiles)
	default:
		return p.Process.Handle(ctx, r)
	}
	return nil, fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
}
