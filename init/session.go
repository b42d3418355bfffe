package main

import (
	"fmt"
	"net"

	"github.com/postern-router/postern/console"
)

// maxSessions is how many there may be at once.
const maxSessions = 8

// acceptSessions serves whoever connects, until that fails.
func (r *router) acceptSessions(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		select {
		case r.sessions <- struct{}{}:
			go func() {
				defer func() { <-r.sessions }()
				r.serveSession(conn)
			}()
		default:
			console.Refuse(conn, fmt.Sprintf("failure: %d sessions are there, and there can be no more", maxSessions))
		}
	}
}

func (r *router) serveSession(conn net.Conn) {
	if err := console.Serve(conn, console.Handler{
		Execute: r.execute, Prompt: r.prompt, Complete: r.complete, Help: r.help,
		Import: r.importLines, HasPassword: r.hasPassword, Login: r.login, SetPassword: r.setPassword,
		SafeMode: r.safe, End: r.endSession, Confirmed: r.confirmed, Stream: r.stream,
	}); err != nil {
		r.log.printf(levelInfo, "%v", err)
	}
}
