// Package service runs the router's processes. They do what PID 1 does not do itself, above all
// read what strangers send. It promises:
//   - A service is a value, Spec, which says how its process is run. Both ends use the same one:
//     PID 1 to start it, the process to confine itself and to be what its name says.
//   - A process has a user of its own, an empty root folder, no capabilities, bounded resources,
//     and only the system calls that its Spec lists. One that cannot be confined so does not run.
//   - Supervisor starts it, starts it again after pauses that grow when it ends, ends it in order,
//     and ends one that hangs. Nothing starts after Stop.
//   - Neither setting what a service shall do nor asking for its status waits for its process.
//   - PID 1 and a process talk by one Link: messages that arrive whole or not at all, with
//     descriptors. A late reply breaks nothing. A message against the protocol ends the
//     process.
//   - A service that sleeps takes no memory: PID 1 has its listening sockets, and the first
//     connection starts its process, which ends by itself when it is idle (Acceptor).
//   - A stall costs nothing: time in which the machine or PID 1 stood still does not count
//     against a process (WithTimeout).
//
// # A new service
//
// The program's main function looks for its own name in a Table, and calls Spec.RunChild. Then
// there is
//
//	var Spec = service.Spec{Name: "echo", Main: run, Calls: service.Client()}
//
//	func run(c *service.Child) error {
//		return c.Serve(func(ctx context.Context, r *service.Request) ([]byte, error) {
//			...
//		})
//	}
//
// in the service's package, and in the router a Supervisor.NewService or, for what begins and
// ends, a Supervisor.Run.
//
// # The link
//
// A link is a Unix socket pair of type SOCK_SEQPACKET, descriptor 3 of the process. Each packet,
// a frame of at most 8 KiB, has
//
//	1 byte   kind: 1 request, 2 reply, 3 reply that is an error, 4 PID 1's wish that the process
//	         ends in order; 0x10 first piece of its message, 0x20 last piece
//	varint   number of the message, its sender's own; a reply has that of its request, a wish 0
//	...      a piece of the body, that of a request with a byte ahead that says what is asked
//
// The pieces of a message follow each other. Descriptors come with the first piece of a request
// (SCM_RIGHTS). A request 0 with an empty body asks whether the process is alive: every link
// replies by itself. All other requests, and what their bodies hold, are each service's to define
// (Encoder, Decoder). Either end may have 16 requests without a reply.
package service
