// Package daemon makes a process of package socks: socksd. It has the process, Spec under PID 1
// and Main by itself, and Client, PID 1's view of it.
//
// By itself, socksd listens where its flags say, reads its users from a file and then gives up
// root. Under PID 1 it opens nothing: the listening socket and the configuration come by its
// control link (package service), and it ends when PID 1 says so, or has gone: with it end its
// connections, each with a line in the log.
//
// # The requests
//
//	PID 1 to socksd   1 configure    the configuration, and the listening socket if it is to change
//	                  2 connections  those with numbers above the one given, at most 32; all
//	                                 parts of a list are of the moment of the first, number 0
//	                  3 hits         of each rule of the access list
//	                  6 remove       the connections with these numbers
//	                  7 leave        what runs by these addresses, which the router had: at most 64
//	socksd to PID 1   4 firewall     the openings to close, and up to 8 to open, each with the
//	                                 socket that listens there; told of each is why it is not open
//
// The reply to configure comes when the configuration is in force: if it is
// enabled, socksd is accepting.
//
// # What PID 1 need not believe
//
// socksd reads what strangers send, so PID 1 bounds what it can be made to do: there are at most
// as many openings as max-connections; an opening is on a port of 1024..65535 other than the
// configured one, and socksd has to show the socket that listens there, or the UDP socket that
// has the port alone, so that it can open no other program's port. A message that is not as agreed ends the process.
// When it ends, however it does, Client closes every opening that is left. A change of the firewall
// is followed by a rest of three times as long as it took, 1 s at most: however fast clients open and
// close, they cost PID 1 a quarter of its time.
package daemon
