// Package web is the router's own web server: a page of its status, REST as RouterOS has it, and metrics for
// Prometheus, over plain HTTP. It has the unprivileged process, and a small HTTP/1.1 server for it: net/http
// takes ten times as much flash.
//
// The page and REST ask PID 1 (console.Query) and have it change things (console.Do); so all menus are there
// without a line of code for each.
//
// It promises:
//   - who has not logged in costs little: package login bounds such connections, of which each lasts a minute, makes
//     16 requests, and sends 16 KiB of a head and 2 KiB of a body at most;
//   - a request that two readers could read differently is refused (RFC 9112, section 11.2), as are a length and a
//     transfer encoding at once, two lengths, continued lines, and lines that end without CR;
//   - nothing is changed for a page of somebody else's that a user looks at: a request of the page has a token
//     besides its cookie, which the browser sends to this page alone (SameSite=Strict), and one that another page
//     makes (Origin), or one to a name that is not the router's (Host), is refused;
//   - the browser runs no script but the page's own (Content-Security-Policy), and the page shows what the router tells
//     as text;
//   - there are at most 8 logins, 16 connections of theirs, and 3 requests of each at once; a login ends 15 minutes
//     after its last request or when PID 1 ends it, a request after a minute, an upgrade after an hour.
package web
