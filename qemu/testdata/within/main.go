// Command within is what the kernel of a test's machine starts in place of Postern. It becomes Postern, and leaves a process that does
// for the test what nobody outside can: it sends processes signals, as soon as they are there.
//
// That process serves TCP port 5199, one line for each connection: a signal (ended, stopped, or none) and the name of a process. It waits
// until there is one of that name, sends it the signal and answers with its id. With the signal gone it waits until there is none.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var signals = map[string]syscall.Signal{"ended": syscall.SIGKILL, "stopped": syscall.SIGSTOP, "none": 0}

func main() {
	if os.Getpid() == 1 {
		_, err := os.StartProcess("/within", []string{"within"}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		fmt.Println("within: start:", err)
		fmt.Println("within: become PID 1:", syscall.Exec("/init", append([]string{"/init"}, os.Args[1:]...), os.Environ()))
		return
	}
	l, err := net.Listen("tcp4", ":5199")
	if err != nil {
		fmt.Println("within:", err)
		return
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Println("within:", err)
			return
		}
		go serve(conn)
	}
}

// look is the pause between two looks at the processes: some live for less than a second.
const look = 5 * time.Millisecond

func serve(conn net.Conn) {
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	signal, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || name == "" {
		return
	}
	for ; ; time.Sleep(look) {
		id := find(name)
		if signal == "gone" {
			if id == 0 {
				fmt.Fprintln(conn, 0)
				return
			}
			continue
		}
		if id != 0 && syscall.Kill(id, signals[signal]) == nil {
			fmt.Fprintln(conn, id)
			return
		}
	}
}

// find returns the id of a process of that name, or 0.
func find(name string) int {
	paths, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(text)) != name {
			continue
		}
		id, _ := strconv.Atoi(strings.Split(path, "/")[2])
		return id
	}
	return 0
}
