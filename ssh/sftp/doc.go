// Package sftp is a server of SFTP, version 3 (draft-ietf-secsh-filexfer-02, which is what OpenSSH, PuTTY and all others
// speak), for a folder of small files that the router has (package files). OpenSSH's extension posix-rename@openssh.com is
// there, as its clients otherwise cannot replace a file by another.
//
// It runs in the unprivileged process that speaks SSH. It promises:
//   - a session holds one packet of at most 36 KiB at a time, serves one request after the other, in their order, and has 16
//     handles at most. What files are held in memory all sessions of a process share (Memory): the next one is refused;
//   - whatever the client sends, a session ends with an error at worst, and does not panic;
//   - a file that is written comes into being when its handle is closed, whole. If the connection breaks before that, or an earlier
//     write has failed, nothing has changed;
//   - why something is refused is in the answer, and also goes to a writer for people: OpenSSH shows the answer's
//     code alone.
//
// There are no folders but the root, no links, no owners and no permissions: what asks for them is refused, and what
// sets times or permissions does nothing.
package sftp
