// Package program is the session of a program on the router, as package session is that of a person: it
// asks for rows (console.Query), changes things by names and values (console.Do), or has a line run.
//
// It has both ends of a stream socket: Client in the process that speaks with the network, Serve in
// PID 1. They exchange frames of at most 32 KiB, a byte that says what it is and a body in the form of service.Encoder.
// The client sends one request and gets, in any number, rows or pieces of text, and last a
// reply or an error. It asks for the next thing afterwards. To end what takes long, it closes the socket.
//
// It promises:
//   - a client that does not read holds up its own session alone;
//   - whatever the client sends, Serve takes a bounded amount of memory, returns an error, and does not panic;
//   - errors of console stay what they are: errors.Is finds console.ErrNoSuchMenu, ErrNoSuchCommand,
//     ErrNoSuchItem and ErrNotPermitted.
package program
