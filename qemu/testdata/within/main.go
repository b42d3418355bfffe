// Command within is what the kernel of a test's machine starts in place of Postern. It becomes Postern, and leaves a process that does
// for the test what nobody outside can: it sends processes signals, as soon as they are there, looks at the machine as an unprivileged
// process does, finds a device and sets the clock.
//
// That process serves TCP port 5199, one line for each connection: a signal (ended, stopped, or none) and the name of a process. It waits
// until there is one of that name, sends it the signal and answers with its id. With the signal gone it waits until there is none. To "look
// nobody" it answers what an unprivileged process sees of the kernel and of others, "clock SECONDS" sets the clock, from the start of 1970,
// and to "mapped ADDRESS" it answers where the kernel sees the device that the processor has at this address.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
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
	if len(os.Args) > 1 {
		see()
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
	switch signal {
	case "look":
		seen := exec.Command("/within", "see")
		seen.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		text, err := seen.CombinedOutput()
		fmt.Fprintf(conn, "%s%v\n", text, err)
		return
	case "mapped":
		physical, err := strconv.ParseUint(name, 10, 64)
		var at uint64
		if err == nil {
			at, err = mapped(physical)
		}
		if err != nil {
			fmt.Fprintln(conn, err)
			return
		}
		fmt.Fprintln(conn, at)
		return
	case "clock":
		seconds, err := strconv.ParseInt(name, 10, 64)
		if err == nil {
			at := syscall.NsecToTimeval(seconds * int64(time.Second))
			err = syscall.Settimeofday(&at)
		}
		fmt.Fprintln(conn, err)
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

// mapped returns the kernel's virtual address of a device's physical address.
func mapped(physical uint64) (uint64, error) {
	// The kernel tells nobody its addresses when this is 2, as Postern has it, and makes up others when it is 0.
	const restrict = "/proc/sys/kernel/kptr_restrict"
	before, err := os.ReadFile(restrict)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(restrict, []byte("1"), 0); err != nil {
		return 0, err
	}
	// Of each area the addresses of its start and its end, with a page that guards it, and where it is of the processor.
	text, err := os.ReadFile("/proc/vmallocinfo")
	err = errors.Join(err, os.WriteFile(restrict, before, 0))
	for line := range strings.Lines(string(text)) {
		var start, end, at uint64
		_, where, ok := strings.Cut(line, " phys=")
		if !ok {
			continue
		}
		if _, err := fmt.Sscanf(line, "0x%x-0x%x", &start, &end); err != nil {
			continue
		}
		if _, err := fmt.Sscanf(where, "0x%x", &at); err == nil && physical >= at && physical-at < end-start {
			return start + physical - at, nil
		}
	}
	return 0, errors.Join(err, fmt.Errorf("%#x is nowhere in\n%s", physical, text))
}

const nobody = 65534

// see prints what this process sees.
func see() {
	ids, err := filepath.Glob("/proc/[0-9]*")
	fmt.Println("processes:", len(ids), err)
	_, err = os.ReadFile("/proc/1/status")
	fmt.Println("PID 1:", err)
	const readAll = 3 // SYSLOG_ACTION_READ_ALL (syslog(2))
	_, err = syscall.Klogctl(readAll, make([]byte, 4096))
	fmt.Println("log of the kernel:", err)
	_, err = os.ReadFile("/dev/kmsg")
	fmt.Println("its file:", err)
	for _, name := range []string{"kptr_restrict", "dmesg_restrict", "panic_on_oops"} {
		text, err := os.ReadFile("/proc/sys/kernel/" + name)
		fmt.Println(name+":", strings.TrimSpace(string(text)), err)
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
