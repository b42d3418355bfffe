// Package files is the session of a program with the router's files (/file), as package program is that with its menus:
// it lists, reads, removes and renames them, and uploads one after the other.
//
// It has both ends of a stream socket: Client in the process that speaks with the network, Serve in PID 1. They exchange
// frames of at most 32 KiB, a byte that says what it is and a body. The client sends one request and gets, in any number,
// files or pieces of one, and last a reply or an error. It asks for the next thing afterwards.
//
// It promises:
//   - whatever the client sends, Serve takes a bounded amount of memory, returns an error, and does not panic;
//   - an upload that is not committed, as the client gives it up or closes the socket, is aborted;
//   - errors.Is finds ErrNotThere and console.ErrNotPermitted on the client's side too.
package files
