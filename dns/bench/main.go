// Command bench measures the DNS server beside dnsmasq, both with the same names behind the same questions: what memory they
// have, and how many answers a second they give from the cache. It needs the Debian packages dnsmasq-base and dnsperf.
//
// Synopsis:
//
//	go run ./dns/bench [--program FILE] [--seconds N] [--rounds N] [--dnsmasq-cache N]
//
// The program is built from here, unless one is named. That of an image is smaller, and has less memory:
//
//	go run ./image build pc && xz -dc out/pc/initramfs.cpio.xz | cpio -i --to-stdout bin/postern >program && chmod +x program
//
// In each round both servers are asked, one after the other, the first of them by turns: what else the machine does at that time
// holds back both, and the median of the ratios says more than any rate. All is in a network namespace of its own. Upstream
// is a server of this process, which answers any name.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/service"
)

const (
	serverAddress, upstreamAddress, dnsmasqAddress = "127.0.0.1", "127.0.0.2", "127.0.0.3"
	// settle is how long a server is left alone before its memory is looked at.
	settle = 5 * time.Second
)

// sizes are how many names are kept when memory is looked at.
var sizes = []int{0, 150, 1000, 5000, 10000}

var (
	program = pflag.String("program", "", "measure this `FILE`, the program of an image for this machine")
	seconds = pflag.Int("seconds", 5, "of each run of dnsperf")
	rounds  = pflag.Int("rounds", 5, "of runs")
	kept    = pflag.Int("dnsmasq-cache", 10000, "dnsmasq's cache-size")
)

func main() { os.Exit(run()) }

// run runs logic in a namespace. What it measures is built before that: there are no modules to fetch there.
func run() int {
	pflag.Parse()
	if *program == "" {
		dir, err := os.MkdirTemp("", "postern-dns-bench-")
		if err != nil {
			return failed(err)
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "postern")
		if err := build(file); err != nil {
			return failed(err)
		}
		os.Args = append(os.Args, "--program", file) // for the process in the namespace
	}
	return testnet.Isolate(func() int {
		if err := logic(); err != nil {
			return failed(err)
		}
		return 0
	})
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

// build builds the program, inlined and linked as any program of Go is.
func build(file string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "github.com/postern-router/postern/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

func logic() error {
	path, err := filepath.Abs(*program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postern-dns-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := answerAll(); err != nil {
		return err
	}
	ours, stop, err := startOurs(path)
	if err != nil {
		return err
	}
	defer stop()
	masq := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--group=root", "--no-resolv", "--no-hosts",
		"--server="+upstreamAddress, "--listen-address="+dnsmasqAddress, "--bind-interfaces", "--cache-size="+strconv.Itoa(*kept))
	masq.Stderr = os.Stderr
	if err := masq.Start(); err != nil {
		return err
	}
	defer masq.Process.Kill()
	servers := []struct {
		name, address string
		pid           int
	}{{"postern", serverAddress, ours}, {"dnsmasq", dnsmasqAddress, masq.Process.Pid}}
	time.Sleep(time.Second)

	fmt.Printf("%-34s", "kB: RssAnon (Pss, Threads)")
	for _, s := range servers {
		fmt.Printf(" %24s", s.name)
	}
	fmt.Println()
	row := func(what string) error {
		time.Sleep(settle)
		fmt.Printf("%-34s", what)
		for _, s := range servers {
			m, err := memory(s.pid)
			if err != nil {
				return err
			}
			fmt.Printf(" %24s", m)
		}
		fmt.Println()
		return nil
	}
	for _, size := range sizes {
		file := filepath.Join(dir, strconv.Itoa(size))
		if err := writeNames(file, size); err != nil {
			return err
		}
		for _, s := range servers {
			if size > 0 {
				if _, err := perf(s.address, file, "-q", "20", "-n", "2"); err != nil {
					return err
				}
			}
		}
		if err := row(fmt.Sprint(size, " names")); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "1000")
	var rates, costs []float64 // of ours, in those of dnsmasq
	for round := range *rounds {
		var answers, cost [2]float64
		for i := range servers {
			i = (i + round) % 2
			s := servers[i]
			before, err := ticks(s.pid)
			if err != nil {
				return err
			}
			if answers[i], err = perf(s.address, file, "-q", "100", "-l", strconv.Itoa(*seconds)); err != nil {
				return err
			}
			after, err := ticks(s.pid)
			if err != nil {
				return err
			}
			cost[i] = float64(after-before) * 1e4 / (answers[i] * float64(*seconds))
			fmt.Printf("%s: %.0f answers a second, %.1f µs of a processor each\n", s.name, answers[i], cost[i])
		}
		rates, costs = append(rates, answers[0]/answers[1]), append(costs, cost[0]/cost[1])
	}
	fmt.Printf("postern gives %s times dnsmasq's answers a second, and takes %s times its processor for each\n", median(rates), median(costs))
	return row("behind that")
}

// startOurs starts the process as PID 1 does, and returns its id.
func startOurs(path string) (pid int, stop func(), err error) {
	log := logTo{os.Stderr}
	s := &service.Supervisor{Program: path, Table: service.NewTable(dns.Spec), Log: func(string) service.Log { return log }}
	started := make(chan *dns.Process, 1)
	v := s.NewService(dns.Spec, service.Options{Label: "DNS server", Parent: func(l *service.Link) service.Parent {
		p := dns.NewProcess(l)
		select {
		case started <- p:
		default:
		}
		return p
	}})
	udp, tcp, err := dns.ListenAt(netip.MustParseAddrPort(serverAddress + ":53"))
	if err != nil {
		return 0, nil, err
	}
	c := dns.Default()
	configured := make(chan error, 1)
	v.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		err := p.(*dns.Process).Configure(ctx, c, []netip.Addr{netip.MustParseAddr(upstreamAddress)}, udp, tcp)
		select {
		case configured <- err:
		default:
		}
		return err
	}})
	if err := <-configured; err != nil {
		return 0, nil, err
	}
	pid, err = processCalled(dns.Spec.Name)
	return pid, s.Stop, err
}

// processCalled returns the child of this process that has the name in its command line.
func processCalled(name string) (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range all {
		line, err := os.ReadFile(file)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && strings.TrimRight(string(line), "\x00") == name {
			if parent, err := field(fmt.Sprintf("/proc/%d/status", pid), "PPid:"); err == nil && parent == os.Getpid() {
				return pid, nil
			}
		}
	}
	return 0, errors.New("no process " + name)
}

type logTo struct{ io.Writer }

func (l logTo) Printf(_ int, format string, args ...any) { fmt.Fprintf(l, format+"\n", args...) }

// answerAll answers each name with an address, a moment later.
func answerAll() error {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(upstreamAddress+":53")))
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.RecursionAvailable = true, true
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 3600},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
			}}
			if answer, err := m.Pack(); err == nil {
				time.AfterFunc(5*time.Millisecond, func() { _, _ = conn.WriteToUDPAddrPort(answer, from) })
			}
		}
	}()
	return nil
}

// median is the middle of figures, with the least and the most.
func median(all []float64) string {
	if len(all) == 0 {
		return "unmeasured"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", all[len(all)/2], all[0], all[len(all)-1])
}

func writeNames(file string, count int) error {
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "host%d.example%d.com A\n", i, i%97)
	}
	return os.WriteFile(file, []byte(text.String()), 0o644)
}

var rate = regexp.MustCompile(`Queries per second: +([0-9.]+)`)

// perf runs dnsperf, and returns how many answers there were a second.
func perf(address, file string, args ...string) (float64, error) {
	out, err := exec.Command("dnsperf", append([]string{"-s", address, "-d", file, "-e"}, args...)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("dnsperf: %w\n%s", err, out)
	}
	found := rate.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("dnsperf: %s", out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// memory tells what a process has.
func memory(pid int) (string, error) {
	rss, err := field(fmt.Sprintf("/proc/%d/status", pid), "RssAnon:")
	if err != nil {
		return "", err
	}
	pss, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
	if err != nil {
		return "", err
	}
	threads, err := field(fmt.Sprintf("/proc/%d/status", pid), "Threads:")
	return fmt.Sprintf("%d (%d, %d)", rss, pss, threads), err
}

func field(file, name string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == name {
			return strconv.Atoi(words[1])
		}
	}
	return 0, fmt.Errorf("%s: no %s", file, name)
}

// ticks is how much of a processor a process has had, in hundredths of a second.
func ticks(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err := strconv.Atoi(words[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(words[12])
	return user + system, err
}
