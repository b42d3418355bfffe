package router

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/console"
)

// processorTime is /proc/uptime: the time since the start, and the idle time of all
// processors together.
type processorTime struct{ up, idle time.Duration }

// resource returns what /system resource shows.
func (r *Router) resource() (console.Resource, error) {
	text, err := os.ReadFile(r.root + "/proc/uptime")
	if err != nil {
		return console.Resource{}, err
	}
	now, err := parseUptime(string(text))
	if err != nil {
		return console.Resource{}, err
	}
	meminfo, err := os.ReadFile(r.root + "/proc/meminfo")
	if err != nil {
		return console.Resource{}, err
	}
	res := console.Resource{
		Uptime: now.up, CPUCount: runtime.NumCPU(), Architecture: runtime.GOARCH, Board: r.board.Name, Version: r.upgrades.running.Version,
	}
	if date := r.upgrades.running.Date; date.Unix() > 0 { // else it is not known
		res.Date = date
	}
	r.mu.Lock()
	res.CPULoad, r.busy = now.load(r.busy, runtime.NumCPU()), now
	r.mu.Unlock()
	for name, value := range map[string]*uint64{"MemAvailable": &res.FreeMemory, "MemTotal": &res.TotalMemory} {
		if *value, err = parseMeminfo(string(meminfo), name); err != nil {
			return console.Resource{}, err
		}
	}
	return res, nil
}

// load is the share of time that the processors were busy since before, 0..1.
func (t processorTime) load(before processorTime, processors int) float64 {
	all := (t.up - before.up) * time.Duration(processors)
	if all <= 0 {
		return 0
	}
	return min(1, max(0, 1-float64(t.idle-before.idle)/float64(all)))
}

// parseUptime reads /proc/uptime (proc(5)): two numbers of seconds.
func parseUptime(text string) (processorTime, error) {
	var t processorTime
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return t, fmt.Errorf("/proc/uptime: %q: want two numbers of seconds", text)
	}
	for i, d := range []*time.Duration{&t.up, &t.idle} {
		seconds, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return t, fmt.Errorf("/proc/uptime: %w", err)
		}
		*d = time.Duration(seconds * float64(time.Second))
	}
	return t, nil
}

// parseMeminfo reads a line of /proc/meminfo (proc(5)), which counts in units of
// 1024 bytes, and returns bytes.
func parseMeminfo(text, name string) (uint64, error) {
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, name+":")
		if !ok {
			continue
		}
		kilobytes, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 54)
		if err != nil {
			return 0, fmt.Errorf("/proc/meminfo: %w", err)
		}
		return kilobytes << 10, nil
	}
	return 0, fmt.Errorf("/proc/meminfo has no %s", name)
}
