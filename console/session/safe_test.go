package session_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

// The frames that a terminal and the server exchange for Safe Mode and for passwords.
func TestConversations(t *testing.T) {
	const (
		prompt = consoletest.Prompt
		safe   = "[admin@postern] <SAFE> > "
		asked  = "Another session is in Safe Mode: unroll its changes, release it or don't take it [u/r/d]: "
	)
	sent := func(kind byte, text string) frame { return frame{kind, text} }
	type steps []struct{ send, want frame } // want comes before send
	for _, test := range []struct {
		name     string
		before   string // password
		held     bool   // Safe Mode, by another session
		steps    steps
		did      []string
		password string
	}{
		{name: "taken and released", did: []string{"take", "release"}, steps: steps{
			{sent(wire.Safe, ""), frame{wire.Prompt, prompt}}, {frame{}, frame{wire.Output, "[Safe Mode taken]\n"}},
			{sent(wire.Safe, ""), frame{wire.Prompt, safe}}, {frame{}, frame{wire.Output, "[Safe Mode released]\n"}},
			{sent(wire.Leave, ""), frame{wire.Prompt, prompt}}, {frame{}, frame{wire.End, ""}}}},
		{name: "taken and unrolled", did: []string{"take", "unroll"}, steps: steps{
			{sent(wire.Safe, ""), frame{wire.Prompt, prompt}}, {frame{}, frame{wire.Output, "[Safe Mode taken]\n"}},
			{sent(wire.Leave, ""), frame{wire.Prompt, safe}}, {frame{}, frame{wire.Output, "[Safe Mode unrolled]\n"}},
			{frame{}, frame{wire.Prompt, prompt}}}},
		{name: "taken, and quit", did: []string{"take", "release"}, steps: steps{
			{sent(wire.Safe, ""), frame{wire.Prompt, prompt}}, {frame{}, frame{wire.Output, "[Safe Mode taken]\n"}},
			{sent(wire.Line, "/quit"), frame{wire.Prompt, safe}}, {frame{}, frame{wire.Output, "[Safe Mode released]\n"}},
			{frame{}, frame{wire.End, ""}}}},
		{name: "held, unrolled", held: true, did: []string{"take", "unroll and take"}, steps: steps{
			{sent(wire.Safe, ""), frame{wire.Prompt, prompt}}, {sent(wire.Line, "u"), frame{wire.Ask, asked}},
			{frame{}, frame{wire.Output, "[Safe Mode taken]\n"}}}},
		{name: "held, released", held: true, did: []string{"take", "release and take"}, steps: steps{
			{sent(wire.Safe, ""), frame{wire.Prompt, prompt}}, {sent(wire.Line, "r"), frame{wire.Ask, asked}},
			{frame{}, frame{wire.Output, "[Safe Mode taken]\n"}}}},
		{name: "held, given up", held: true, did: []string{"take"}, steps: steps{
			{sent(wire.Safe, ""), frame{wire.Prompt, prompt}}, {sent(wire.Leave, ""), frame{wire.Ask, asked}},
			{frame{}, frame{wire.Prompt, prompt}}}},
		{name: "a first password", password: "new", steps: steps{
			{sent(wire.Line, "/password"), frame{wire.Prompt, prompt}}, {sent(wire.Line, "new"), frame{wire.Secret, "new password: "}},
			{sent(wire.Line, "new"), frame{wire.Secret, "retype new password: "}}, {frame{}, frame{wire.Prompt, prompt}}}},
		{name: "passwords that differ", steps: steps{
			{sent(wire.Line, "/password"), frame{wire.Prompt, prompt}}, {sent(wire.Line, "new"), frame{wire.Secret, "new password: "}},
			{sent(wire.Line, "other"), frame{wire.Secret, "retype new password: "}},
			{frame{}, frame{wire.Output, "failure: new passwords do not match\n"}}}},
		{name: "a password with what cannot be seen", steps: steps{
			{sent(wire.Line, "/password"), frame{wire.Prompt, prompt}}, {sent(wire.Line, "\a"), frame{wire.Secret, "new password: "}},
			{sent(wire.Line, "\a"), frame{wire.Secret, "retype new password: "}},
			{frame{}, frame{wire.Output, "failure: bad new password; expected printable string: 0..64 bytes\n"}}}},
		{name: "another password", before: "old", password: "new", steps: steps{
			{sent(wire.Line, "admin"), frame{wire.Ask, "Login: "}}, {sent(wire.Line, "old"), frame{wire.Secret, "Password: "}},
			{sent(wire.Line, "/password"), frame{wire.Prompt, prompt}}, {sent(wire.Line, "old"), frame{wire.Secret, "old password: "}},
			{sent(wire.Line, "new"), frame{wire.Secret, "new password: "}}, {sent(wire.Line, "new"), frame{wire.Secret, "retype new password: "}},
			{frame{}, frame{wire.Prompt, prompt}}}},
		{name: "passwords on the line", before: "old", password: "new", steps: steps{
			{sent(wire.Line, "admin"), frame{wire.Ask, "Login: "}}, {sent(wire.Line, "old"), frame{wire.Secret, "Password: "}},
			{sent(wire.Line, "/password old-password=old new-password=new confirm-new-password=new"), frame{wire.Prompt, prompt}},
			{frame{}, frame{wire.Prompt, prompt}}}},
		{name: "a wrong one on the line", before: "old", password: "old", steps: steps{
			{sent(wire.Line, "admin"), frame{wire.Ask, "Login: "}}, {sent(wire.Line, "old"), frame{wire.Secret, "Password: "}},
			{sent(wire.Line, "/password old-password=odl new-password=new confirm-new-password=new"), frame{wire.Prompt, prompt}},
			{frame{}, frame{wire.Output, "failure: old password is wrong\n"}}}},
		{name: "the old password is wrong", before: "old", password: "old", steps: steps{
			{sent(wire.Line, "admin"), frame{wire.Ask, "Login: "}}, {sent(wire.Line, "old"), frame{wire.Secret, "Password: "}},
			{sent(wire.Line, "/password"), frame{wire.Prompt, prompt}}, {sent(wire.Line, "odl"), frame{wire.Secret, "old password: "}},
			{sent(wire.Line, "new"), frame{wire.Secret, "new password: "}}, {sent(wire.Line, "new"), frame{wire.Secret, "retype new password: "}},
			{frame{}, frame{wire.Output, "failure: old password is wrong\n"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			g := consoletest.Guard{Password: test.before, Held: test.held}
			r := consoletest.Router{Config: console.Default()}
			g.At(&r)
			served := make(chan error, 1)
			go func() { served <- session.Serve(far, session.Origin{Via: session.Console}, r.Handler(far)) }()
			if test.before == "" {
				expectFrame(t, near, wire.Output, "No password is set: /password sets one.\n")
			}
			for _, step := range test.steps {
				expectFrame(t, near, step.want.kind, step.want.text)
				if step.send.kind != 0 {
					require.NoError(t, wire.Send(near, step.send.kind, step.send.text))
				}
			}
			near.Close()
			<-served
			assert.Equal(t, test.did, g.Did)
			assert.Equal(t, test.password, g.Password)
			assert.Equal(t, 1, g.Ended)
		})
	}
}
