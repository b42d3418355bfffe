// Package daemon makes a process of package socks: socksd. It has both ends of
// it, Main for the process itself and Client for the parent that runs it.
//
// Alone, socksd listens where its flags say and then gives up root. Under a
// parent (--control-fd) it opens nothing: the listening socket and the
// configuration come by the control socket, it runs as whom the parent started
// it, held to the system calls that it needs (seccomp(2)), and it ends when the
// control socket does.
//
// # The control protocol
//
// The control socket is a Unix stream socket pair. Each end sends lines of JSON,
// a message each: a request has "op" and an "id" of its sender's own; the reply
// has the same id, no op, and "error" when it failed. "file" says that a
// descriptor comes with the line (SCM_RIGHTS).
//
//	parent to socksd  configure    config, and the listening socket if it is to change
//	                  connections  those with numbers above "number", at most 32; all
//	                               parts of a list are of the moment of the first, "number" 0
//	                  close        the connection "number"
//	                  hits         of each rule of the access list
//	socksd to parent  open         opening, and the socket that listens there
//	                  close        opening
//
// The reply to configure comes when the configuration is in force: if it is
// enabled, socksd is accepting.
//
// # What the parent need not believe
//
// socksd reads what strangers send, so the parent bounds what it can be made to
// do: a line has at most 64 kB; there are at most as many openings as
// max-connections; an opening is on a port of 1024..65535 other than the
// configured one, and socksd has to show the socket that listens there, so that
// it can open no other program's port. Anything malformed ends the connection.
// When it ends, however it does, Client closes every opening that is left.
package daemon
