package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// How the throughput is measured: in rounds in which every case has its turn, so
// that what else the host does meets all alike.
const (
	throughputRounds = 5
	throughputTime   = 5 * time.Second
	// throughputWarmUp is for TCP to find its windows before the count begins.
	throughputWarmUp = time.Second
	// throughputGoal is the share of what a router forwards that it is to carry
	// through SOCKS.
	throughputGoal = 0.6
)

// Ports of the server that the access list allows and the firewall does not
// drop: one that sends without end, and one that takes whatever comes.
const (
	sourcePort = 5101
	sinkPort   = 5102
)

// throughput is one case, and what each round has shown of it.
type throughput struct {
	upload, socks bool
	streams       int

	speeds []float64 // MB/s
	costs  []float64 // ms of the router's processor for a MB
	loads  []float64 // of the router's processor, %
}

// printThroughputHead prints what stands over the rows of benchThroughput. The last
// two columns are SOCKS to masquerade: by the clock, and by the processor's time,
// which is the steadier one on a host that others use.
func printThroughputHead() {
	fmt.Printf("Medians of %d rounds of %v; masquerade, SOCKS, and their ratio (goal: %.1f)\n",
		throughputRounds, throughputTime, throughputGoal)
	fmt.Printf("%-12s %-9s %7s | %9s %9s %6s | %9s %9s %6s | %5s %9s\n", "board", "direction", "streams",
		"masq MB/s", "CPU", "ms/MB", "SOCK MB/s", "CPU", "ms/MB", "ratio", "by CPU")
}

// benchThroughput prints what a router carries between client and server:
// forwarded with masquerade, and through SOCKS.
func benchThroughput(n network, m *machine) error {
	var arrived atomic.Int64
	for port, serve := range map[int]func(net.Conn){
		sourcePort: pour,
		sinkPort:   func(conn net.Conn) { drain(conn, &arrived) },
	} {
		l, err := n.listen(serverOfSite, port)
		if err != nil {
			return err
		}
		defer l.Close()
		go serveAll(l, serve)
	}

	var cases []*throughput
	for _, upload := range []bool{false, true} {
		for _, streams := range []int{1, 4} {
			for _, socks := range []bool{false, true} {
				cases = append(cases, &throughput{upload: upload, socks: socks, streams: streams})
			}
		}
	}
	for range throughputRounds {
		for _, c := range cases {
			if err := c.measure(n, m, &arrived); err != nil {
				return fmt.Errorf("throughput of %s: %w", m.board.Name, err)
			}
		}
	}
	for i := 0; i < len(cases); i += 2 {
		forwarded, relayed := cases[i], cases[i+1]
		direction := "download"
		if forwarded.upload {
			direction = "upload"
		}
		fmt.Printf("%-12s %-9s %7d | %9.1f %7.0f %% %6.1f | %9.1f %7.0f %% %6.1f | %5.2f %9.2f\n",
			m.board.Name, direction, forwarded.streams,
			median(forwarded.speeds), median(forwarded.loads), median(forwarded.costs),
			median(relayed.speeds), median(relayed.loads), median(relayed.costs),
			medianRatio(relayed.speeds, forwarded.speeds), medianRatio(forwarded.costs, relayed.costs))
	}
	return nil
}

// measure plays one round of the case.
func (c *throughput) measure(n network, m *machine, arrived *atomic.Int64) error {
	var running sync.WaitGroup
	defer running.Wait()
	for range c.streams {
		conn, err := c.connect(n)
		if err != nil {
			return err
		}
		defer conn.Close()
		running.Go(func() {
			if c.upload {
				pour(conn)
			} else {
				drain(conn, arrived)
			}
		})
	}
	time.Sleep(throughputWarmUp)
	// The first look starts the count of the load, the second reads it.
	if _, err := m.command("/system resource print"); err != nil {
		return err
	}
	used, err := m.processorTime()
	if err != nil {
		return err
	}
	before, start := arrived.Load(), time.Now()
	time.Sleep(throughputTime)
	megabytes, passed := float64(arrived.Load()-before)/1e6, time.Since(start)
	usedThen, err := m.processorTime()
	if err != nil {
		return err
	}
	out, err := m.command("/system resource print")
	if err != nil {
		return err
	}
	word, err := find(out, `cpu-load: ([\d.]+)%`)
	if err != nil {
		return err
	}
	load, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return fmt.Errorf("cpu-load: %w", err)
	}
	if megabytes == 0 {
		return fmt.Errorf("%+v: nothing has arrived in %v", *c, throughputTime)
	}
	c.speeds = append(c.speeds, megabytes/passed.Seconds())
	c.costs = append(c.costs, (usedThen-used).Seconds()*1e3/megabytes)
	c.loads = append(c.loads, load)
	return nil
}

// connect opens one stream of the case.
func (c *throughput) connect(n network) (net.Conn, error) {
	port := sourcePort
	if c.upload {
		port = sinkPort
	}
	to := fmt.Sprintf("%s:%d", serverAddress, port)
	if !c.socks {
		return n.dial(client, to, patience)
	}
	conn, err := n.dial(client, socksAddress, patience)
	if err != nil {
		return nil, err
	}
	reply, err := requestSOCKS(conn, commandConnect, netip.MustParseAddrPort(to))
	if err == nil && reply.code != granted {
		err = fmt.Errorf("SOCKS reply %d", reply.code)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// serveAll serves each caller until the listener is closed.
func serveAll(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// pour sends until the connection ends.
func pour(conn net.Conn) {
	buf := make([]byte, 256<<10)
	for {
		if _, err := conn.Write(buf); err != nil {
			return
		}
	}
}

// drain receives until the connection ends, and counts.
func drain(conn net.Conn, arrived *atomic.Int64) {
	buf := make([]byte, 256<<10)
	for {
		k, err := conn.Read(buf)
		arrived.Add(int64(k))
		if err != nil {
			return
		}
	}
}

// medianRatio is the median of a/b of the same round.
func medianRatio(a, b []float64) float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return median(ratios)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
