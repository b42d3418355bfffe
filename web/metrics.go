package web

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/postern-router/postern/console"
)

// This file is what Prometheus reads, in its own text format or as OpenMetrics:
// https://prometheus.io/docs/instrumenting/exposition_formats/
// https://prometheus.io/docs/specs/om/open_metrics_spec/

const (
	plainMetrics = "text/plain; version=0.0.4; charset=utf-8"
	openMetrics  = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

// family is the metrics of one name: values with their labels.
type family struct {
	name, help string
	// counter says that the values only grow; the name of each sample then ends in _total.
	counter bool
	samples []sample
}

type sample struct {
	labels []string // names and values in turn
	value  float64
}

func (f *family) add(value float64, labels ...string) {
	f.samples = append(f.samples, sample{labels, value})
}

// write appends a family. In OpenMetrics that of a counter has the name without _total.
func (f *family) write(w *response, open bool) error {
	if len(f.samples) == 0 {
		return nil
	}
	name, kind := f.name, "gauge"
	if f.counter {
		kind = "counter"
		if !open {
			name += "_total"
		}
	}
	b := make([]byte, 0, 1024)
	b = append(append(append(append(append(b, "# HELP "...), name...), ' '), f.help...), '\n')
	b = append(append(append(append(append(b, "# TYPE "...), name...), ' '), kind...), '\n')
	for _, s := range f.samples {
		b = append(b, f.name...)
		if f.counter {
			b = append(b, "_total"...)
		}
		for i := 0; i < len(s.labels); i += 2 {
			before := byte(',')
			if i == 0 {
				before = '{'
			}
			b = append(append(append(b, before), s.labels[i]...), `="`...)
			b = append(append(b, labelEscapes.Replace(strings.ToValidUTF8(s.labels[i+1], "\uFFFD"))...), '"')
		}
		if len(s.labels) > 0 {
			b = append(b, '}')
		}
		b = append(strconv.AppendFloat(append(b, ' '), s.value, 'f', -1, 64), '\n')
	}
	_, err := w.Write(b)
	return err
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// collector makes families of what some menus list.
type collector struct {
	name    string
	collect func(Session) ([]*family, error)
}

var collectors = []collector{
	{"resource", collectResource}, {"interface", collectInterfaces}, {"conntrack", collectTracking},
	{"dhcp", collectLeases}, {"socks", collectSOCKS},
}

// metrics shows the metrics. What the router lacks is left out; what it cannot tell is named by
// postern_scrape_collector_success.
func (s *Server) metrics(ctx context.Context, w *response, r *request, u *user) {
	open := strings.Contains(r.accept, "application/openmetrics-text")
	w.contentType = plainMetrics
	if open {
		w.contentType = openMetrics
	}
	err := u.with(ctx, commandTime, func(session Session) error {
		success := family{name: "postern_scrape_collector_success", help: "Whether what the collector is about could be asked for."}
		for _, c := range collectors {
			families, err := c.collect(session)
			if err != nil && !isRefusal(err) {
				return err
			}
			ok := 1.0
			if err != nil {
				ok = 0
			}
			success.add(ok, "collector", c.name)
			for _, f := range families {
				if err := f.write(w, open); err != nil {
					return err
				}
			}
		}
		if err := success.write(w, open); err != nil || !open {
			return err
		}
		_, err := w.Write([]byte("# EOF\n"))
		return err
	})
	if err != nil {
		failure(w, r.method, []string{"metrics"}, err)
	}
}

// rows calls each with the rows of a menu. Nothing is an error of a menu that this router lacks.
func rows(s Session, menu string, proplist []string, each func(console.Row)) error {
	err := s.Query(menu, nil, proplist, func(r console.Row) error { each(r); return nil })
	if errors.Is(err, console.ErrNoSuchMenu) {
		return nil
	}
	return err
}

// word is a property that is a text, "" if it is not set.
func word(r console.Row, name string) string {
	v, _ := r.Get(name)
	return v.String()
}

func number(r console.Row, name string) float64 {
	v, _ := r.Get(name)
	return float64(v.Int())
}

func gauge(name, help string) *family { return &family{name: "postern_" + name, help: help} }
func counter(name, help string) *family {
	return &family{name: "postern_" + name, help: help, counter: true}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func collectResource(s Session) ([]*family, error) {
	info := gauge("info", "The router: its version and its board.")
	uptime := gauge("uptime_seconds", "Time since the start.")
	free := gauge("memory_available_bytes", "Memory that programs can still get.")
	all := gauge("memory_size_bytes", "Memory that the kernel manages.")
	load := gauge("cpu_load_ratio", "Share of time that the processors were busy since somebody last looked.")
	err := rows(s, "system/resource", nil, func(r console.Row) {
		info.add(1, "version", word(r, "postern-version"), "board", word(r, "board-name"), "architecture", word(r, "architecture-name"))
		v, _ := r.Get("uptime")
		uptime.add(v.Duration().Seconds())
		free.add(number(r, "free-memory"))
		all.add(number(r, "total-memory"))
		load.add(number(r, "cpu-load") / 100)
	})
	return []*family{info, uptime, free, all, load}, err
}

func collectInterfaces(s Session) ([]*family, error) {
	up := gauge("interface_up", "Whether the interface is enabled and has a carrier.")
	received := counter("interface_receive_bytes", "Bytes received.")
	sent := counter("interface_transmit_bytes", "Bytes sent.")
	packetsIn := counter("interface_receive_packets", "Packets received.")
	packetsOut := counter("interface_transmit_packets", "Packets sent.")
	err := rows(s, "interface", []string{"name", "type", "running", "rx-byte", "tx-byte", "rx-packet", "tx-packet"}, func(r console.Row) {
		name := []string{"interface", word(r, "name")}
		v, _ := r.Get("running")
		up.add(truth(v.Bool()), append(name, "type", word(r, "type"))...)
		if _, ok := r.Get("rx-byte"); !ok { // it has no device now
			return
		}
		received.add(number(r, "rx-byte"), name...)
		sent.add(number(r, "tx-byte"), name...)
		packetsIn.add(number(r, "rx-packet"), name...)
		packetsOut.add(number(r, "tx-packet"), name...)
	})
	return []*family{up, received, sent, packetsIn, packetsOut}, err
}

func collectTracking(s Session) ([]*family, error) {
	entries := gauge("conntrack_entries", "Connections that the kernel tracks.")
	limit := gauge("conntrack_entries_limit", "How many it can track.")
	err := rows(s, "ip/firewall/connection/tracking", nil, func(r console.Row) {
		if _, ok := r.Get("total-entries"); ok {
			entries.add(number(r, "total-entries"))
			limit.add(number(r, "max-entries"))
		}
	})
	return []*family{entries, limit}, err
}

func collectLeases(s Session) ([]*family, error) {
	leases := gauge("dhcp_server_leases", "Leases of the DHCP servers, by their state.")
	counts := map[[2]string]int{}
	var order [][2]string
	err := rows(s, "ip/dhcp-server/lease", []string{"server", "status", "disabled"}, func(r console.Row) {
		key := [2]string{word(r, "server"), word(r, "status")}
		if v, _ := r.Get("disabled"); v.Bool() {
			return
		}
		if counts[key]++; counts[key] == 1 {
			order = append(order, key)
		}
	})
	for _, key := range order {
		leases.add(float64(counts[key]), "server", key[0], "status", key[1])
	}
	return []*family{leases}, err
}

// traffic is what the connections of one user have.
type traffic struct{ connections, tx, rx float64 }

func collectSOCKS(s Session) ([]*family, error) {
	enabled := gauge("socks_enabled", "Whether the SOCKS server is enabled.")
	limit := gauge("socks_connections_limit", "How many connections there can be at once.")
	hits := counter("socks_access_requests", "Requests that a rule of the access list has decided, by its place in the list.")
	open := gauge("socks_connections", "Connections that are open, by their user; it is empty where nobody logs in.")
	sent := gauge("socks_connections_sent_bytes", "Bytes that the connections open now have sent to servers.")
	received := gauge("socks_connections_received_bytes", "Bytes that the connections open now have received from servers.")
	families := []*family{enabled, limit, hits, open, sent, received}

	is := false
	err := rows(s, "ip/socks", nil, func(r console.Row) {
		v, _ := r.Get("enabled")
		is = v.Bool()
		enabled.add(truth(is))
		limit.add(number(r, "max-connections"))
	})
	if err != nil || !is {
		return families, err
	}
	place := 0
	err = rows(s, "ip/socks/access", []string{"hits", "action", "comment"}, func(r console.Row) {
		if _, ok := r.Get("hits"); ok {
			hits.add(number(r, "hits"), "rule", strconv.Itoa(place), "action", word(r, "action"), "comment", word(r, "comment"))
		}
		place++
	})
	if err != nil {
		return families, err
	}
	users := map[string]*traffic{"": {}}
	order := []string{""}
	find := func(name string) *traffic {
		t := users[name]
		if t == nil {
			t = &traffic{}
			users[name] = t
			order = append(order, name)
		}
		return t
	}
	if err = rows(s, "ip/socks/users", []string{"name"}, func(r console.Row) { find(word(r, "name")) }); err != nil {
		return families, err
	}
	err = rows(s, "ip/socks/connections", []string{"user", "tx", "rx"}, func(r console.Row) {
		t := find(word(r, "user"))
		t.connections++
		t.tx += number(r, "tx")
		t.rx += number(r, "rx")
	})
	for _, name := range order {
		t := users[name]
		open.add(t.connections, "user", name)
		sent.add(t.tx, "user", name)
		received.add(t.rx, "user", name)
	}
	return families, err
}
