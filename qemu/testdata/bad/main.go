// Command bad takes the place of a program of the image, for a test of what becomes of a
// version that is bad: as PID 1 it hangs, with the watchdog started, or ends, which is a
// panic of the kernel; as iptables it fails, or hangs.
package main

import (
	"os"
	"syscall"
	"time"
)

func main() {
	how, err := os.ReadFile("/etc/bad")
	if err != nil {
		println("bad:", err.Error())
		os.Exit(1)
	}
	if os.Getpid() == 1 {
		if err := syscall.Mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
			println("bad:", err.Error())
		}
		println("bad: this is PID 1, and it will", string(how))
		if _, err := os.OpenFile("/dev/watchdog", os.O_WRONLY, 0); err != nil {
			println("bad:", err.Error())
		}
	}
	if string(how) == "hang" {
		for {
			time.Sleep(time.Hour)
		}
	}
	os.Exit(1)
}
