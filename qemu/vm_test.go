package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The kernel's lines come when they come, and so do the pieces of what a console says.
func TestScreen(t *testing.T) {
	const prompt = "[admin@postern] > "
	for _, c := range []struct{ name, said, want string }{
		{"none", prompt + "/log print\r\n", prompt + "/log print\r\n"},
		{"on a line of its own", "a\r\n[    7.057436] postern: b\r\nc\r\n", "a\r\n[    7.057436] postern: b\r\nc\r\n"},
		{"in the middle of what is typed", prompt + "/l[    7.057436] postern: confirmed after 7.044s\r\nog print\r\n",
			"[    7.057436] postern: confirmed after 7.044s\r\n" + prompt + "/log print\r\n"},
		{"two", "x\r\n/l[    7.057436] a\r\n[   17.057436] b\r\nog", "x\r\n[    7.057436] a\r\n[   17.057436] b\r\n/log"},
		{"two, apart", "/l[    7.057436] a\r\nog[   17.057436] b\r\n pr", "[    7.057436] a\r\n[   17.057436] b\r\n/log pr"},
		{"chance", prompt + "/l[   28.057436] random: crng init done\r\nog", prompt + "/log"},
		{"not whole", "/l[    7.057436] a", "/l[    7.057436] a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.said); size++ {
				s := newScreen()
				for rest := []byte(c.said); len(rest) > 0; {
					n, err := s.Write(rest[:min(size, len(rest))])
					require.NoError(t, err)
					rest = rest[n:]
				}
				require.Equal(t, c.want, s.all(), "in pieces of %d bytes", size)
			}
		})
	}
	s := newScreen()
	_, _ = s.Write([]byte(prompt))
	_, err := s.expect("> ", time.Second, nil)
	require.NoError(t, err)
	_, _ = s.Write([]byte("/l[    7.057436] a\r\nog"))
	said, err := s.expect("/log", time.Second, nil)
	require.NoError(t, err)
	assert.Equal(t, "[    7.057436] a\r\n/log", said, "nothing goes to before what was seen")
}

// TestEnded: what has come is seen behind the end of QEMU too, and what has not is an error.
func TestEnded(t *testing.T) {
	s := newScreen()
	ended := make(chan struct{})
	_, _ = s.Write([]byte("Linux ver"))
	go func() { _, _ = s.Write([]byte("sion 6.12\r\nmore")); close(ended) }()
	said, err := s.expect("6.12", time.Minute, ended)
	require.NoError(t, err)
	assert.Equal(t, "Linux version 6.12", said)
	_, err = s.expect("less", time.Minute, ended)
	require.ErrorIs(t, err, errEnded)
}

// TestAnswer: what the kernel and the log say meanwhile is no part of what a command prints.
func TestAnswer(t *testing.T) {
	assert.Equal(t, "# 2030-01-31 12:01:17 by RouterOS 7.16\n/ip address\n", answer("\r\n[  134.370198] postern: firewall,warning 1 packets with a false source dropped\r\n"+
		"# 2030-01-31 12:01:17 by RouterOS 7.16\r\n[   52.507559] hrtimer: interrupt took 29242102 ns\r\n/ip address\r\n[admin@"))
}
