// Package sshd is the router's SSH server: the process, and PID 1's end of it.
//
// The process reads what strangers send and speaks the protocol (golang.org/x/crypto/ssh, curve25519,
// Ed25519, ChaCha20 and AES). It has no right of its own: PID 1 checks passwords, says which keys are
// a user's, signs with the host key, which the process never has, and holds the sessions (package
// session); the process shows them on channels of SSH (package terminal). That a client holds a key is
// checked by the process: the library hands the signature to nobody.
//
// The boards' program has a copy of the library that can do no more than the server offers: image/sshpatches.go.
//
// It promises:
//   - what package login does; who has not logged in has 30 seconds, 64 KiB and 6 passwords and keys at
//     most;
//   - nothing is forwarded: not ports, nor agents, nor X11; there are no subsystems;
//   - it sleeps: PID 1 starts it at the first connection, and it ends a minute after the last.
//
// A client can put parameters behind the user's name, as in RouterOS: admin+c80w. A number with w is
// the width of the screen; letters c, e and t, which switch colours and the detection of the terminal
// off, are taken, as there is none of that; a number with h is the height, which does not matter. Netmiko 2
// writes numbers behind their letters.
//
// A command runs as one line of the console. As in RouterOS its exit status is 0 whatever the line says,
// which is on standard output; 1 means that there was no session.
package sshd
