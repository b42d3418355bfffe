package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/postern-router/postern/board"
)

// idleTime is how long a router is left alone to see what it does meanwhile.
const idleTime = 30 * time.Second

// bench boots the boards one after another with the manual's example and prints
// what each took: guest seconds from the kernel's start, memory, idle CPU. Then
// it boots them with their defaults, and prints how soon a household is served. At last
// it boots those of busy, and prints what they carry.
func bench(ctx context.Context, boards, busy []board.Board, images string) error {
	if err := sweep(); err != nil {
		return err
	}
	fmt.Printf("%-12s %14s %14s %16s %16s %9s\n", "board", "network ready", "SOCKS accepts", "memory available", "of", "idle CPU")
	for _, b := range boards {
		if err := withRouter(ctx, b, images, func(_ network, m *machine, said string) error {
			return benchBoot(m, said)
		}); err != nil {
			return err
		}
	}
	fmt.Println("\nIn a household, with the defaults")
	fmt.Printf("%-12s %14s %14s %14s %16s %16s\n", "board", "network ready", "DHCP offers", "DNS answers", "memory available", "behind a pause")
	for _, b := range boards {
		if err := benchHome(ctx, b, images); err != nil {
			return err
		}
	}
	fmt.Println()
	printThroughputHead()
	for _, b := range busy {
		if err := withRouter(ctx, b, images, func(n network, m *machine, _ string) error {
			return benchThroughput(n, m)
		}); err != nil {
			return err
		}
	}
	return nil
}

// inNetwork calls f with the manual's network and a folder, which are both gone behind it.
func inNetwork(f func(n network, dir string) error) error {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.close()
	return f(n, dir)
}

// withRouter boots a board with the manual's example and calls f when it is up,
// with what its console has said until then.
func withRouter(ctx context.Context, b board.Board, images string, f func(n network, m *machine, said string) error) error {
	return inNetwork(func(n network, dir string) error {
		m, err := startMachine(b, n, dir, machineOptions{image: filepath.Join(images, b.Name), configuration: manualConfiguration(b)})
		if err != nil {
			return err
		}
		defer m.kill()
		defer context.AfterFunc(ctx, m.kill)()
		said, err := awaitUp(m)
		if err != nil {
			return err
		}
		return f(n, m, said)
	})
}

// awaitUp waits until a router accepts SOCKS and has a prompt, and returns what its console has said until then.
func awaitUp(m *machine) (string, error) {
	const prompt = "[admin@postern] > "
	said, err := m.expect("socks accepts on port")
	if err != nil {
		return "", err
	}
	rest := ""
	if !strings.Contains(said, prompt) { // either may be first
		rest, err = m.expect(prompt)
	} else {
		rest, err = m.expect("\n")
	}
	return said + rest, err
}

// benchBoot prints a row of the first table.
func benchBoot(m *machine, said string) error {
	network, err := find(said, `network is ready after (\S+)`)
	if err != nil {
		return err
	}
	accepts, err := find(said, `socks accepts on port \d+ after (\S+)`)
	if err != nil {
		return err
	}
	// The first look starts the count of the load, the second reads it.
	if _, err := m.command("/system resource print"); err != nil {
		return err
	}
	time.Sleep(idleTime)
	out, err := m.command("/system resource print")
	if err != nil {
		return err
	}
	free, err := find(out, `free-memory: (\S+)`)
	if err != nil {
		return err
	}
	total, err := find(out, `total-memory: (\S+)`)
	if err != nil {
		return err
	}
	load, err := find(out, `cpu-load: (\S+)`)
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %14s %14s %16s %16s %9s\n", m.board.Name, network, accepts, free, total, load)
	return nil
}

// find returns what the group of a pattern matches.
func find(text, pattern string) (string, error) {
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("no %q in:\n%s", pattern, text)
	}
	return found[1], nil
}
