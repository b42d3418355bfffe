// Package api is the API of RouterOS over the router's menus: the protocol, and the process around it.
// The programs and libraries that people manage RouterOS with (librouteros, go-routeros, Ansible's
// community.routeros, exporters for Prometheus) find here what they expect.
//
// A client sends sentences, each of them a command of a menu with its arguments, and gets replies: a
// sentence !re for each row, !trap for an error, !done at the end. Rows and changes are those of package
// console (Query and Do), which PID 1 runs: the process has no right of its own, and asks PID 1 to check
// passwords.
//
// It promises:
//   - who has not logged in costs little: besides what package login bounds, 30 seconds, 3 passwords, and
//     16 sentences of at most 8 words and 1 KiB a word;
//   - who has, can send words of at most 64 KiB in sentences of at most 256 KiB. Memory is taken for what
//     has come, never for what a length announces;
//   - a connection runs at most 8 commands at once and 8 more that go on until they are cancelled, over at
//     most 2 sessions with PID 1. Then the client waits;
//   - a client that does not read its replies is waited for, and after 30 seconds its connection is closed.
//     Nothing is queued for it meanwhile;
//   - when the client has gone, nothing of it goes on.
//
// The reply !empty of RouterOS 7.18 is not sent, since clients of before do not know it. The protocol is
// described in https://help.mikrotik.com/docs/spaces/ROS/pages/47579160/API.
package api
