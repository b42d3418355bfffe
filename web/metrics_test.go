package web

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

const wantMetrics = `# HELP postern_info The router: its version and its board.
# TYPE postern_info gauge
postern_info{version="v1.2",board="malta",architecture="mips"} 1
# HELP postern_uptime_seconds Time since the start.
# TYPE postern_uptime_seconds gauge
postern_uptime_seconds 90.000000001
# HELP postern_memory_available_bytes Memory that programs can still get.
# TYPE postern_memory_available_bytes gauge
postern_memory_available_bytes 20000000
# HELP postern_memory_size_bytes Memory that the kernel manages.
# TYPE postern_memory_size_bytes gauge
postern_memory_size_bytes 33554432
# HELP postern_cpu_load_ratio Share of time that the processors were busy since somebody last looked.
# TYPE postern_cpu_load_ratio gauge
postern_cpu_load_ratio 0.03
# HELP postern_interface_up Whether the interface is enabled and has a carrier.
# TYPE postern_interface_up gauge
postern_interface_up{interface="ether1",type="ether"} 1
postern_interface_up{interface="ether2",type="ether"} 0
# HELP postern_interface_receive_bytes_total Bytes received.
# TYPE postern_interface_receive_bytes_total counter
postern_interface_receive_bytes_total{interface="ether1"} 1099511627776
postern_interface_receive_bytes_total{interface="ether2"} 0
# HELP postern_interface_transmit_bytes_total Bytes sent.
# TYPE postern_interface_transmit_bytes_total counter
postern_interface_transmit_bytes_total{interface="ether1"} 7
postern_interface_transmit_bytes_total{interface="ether2"} 0
# HELP postern_interface_receive_packets_total Packets received.
# TYPE postern_interface_receive_packets_total counter
postern_interface_receive_packets_total{interface="ether1"} 3
postern_interface_receive_packets_total{interface="ether2"} 0
# HELP postern_interface_transmit_packets_total Packets sent.
# TYPE postern_interface_transmit_packets_total counter
postern_interface_transmit_packets_total{interface="ether1"} 1
postern_interface_transmit_packets_total{interface="ether2"} 0
# HELP postern_conntrack_entries Connections that the kernel tracks.
# TYPE postern_conntrack_entries gauge
postern_conntrack_entries 17
# HELP postern_conntrack_entries_limit How many it can track.
# TYPE postern_conntrack_entries_limit gauge
postern_conntrack_entries_limit 4096
# HELP postern_socks_enabled Whether the SOCKS server is enabled.
# TYPE postern_socks_enabled gauge
postern_socks_enabled 1
# HELP postern_socks_connections_limit How many connections there can be at once.
# TYPE postern_socks_connections_limit gauge
postern_socks_connections_limit 200
# HELP postern_socks_access_requests_total Requests that a rule of the access list has decided, by its place in the list.
# TYPE postern_socks_access_requests_total counter
postern_socks_access_requests_total{rule="0",action="allow",comment="ftp"} 12
postern_socks_access_requests_total{rule="1",action="deny",comment=""} 3
# HELP postern_socks_connections Connections that are open, by their user; it is empty where nobody logs in.
# TYPE postern_socks_connections gauge
postern_socks_connections{user=""} 0
postern_socks_connections{user="alice"} 2
# HELP postern_socks_connections_sent_bytes Bytes that the connections open now have sent to servers.
# TYPE postern_socks_connections_sent_bytes gauge
postern_socks_connections_sent_bytes{user=""} 0
postern_socks_connections_sent_bytes{user="alice"} 5001
# HELP postern_socks_connections_received_bytes Bytes that the connections open now have received from servers.
# TYPE postern_socks_connections_received_bytes gauge
postern_socks_connections_received_bytes{user=""} 0
postern_socks_connections_received_bytes{user="alice"} 72
# HELP postern_scrape_collector_success Whether what the collector is about could be asked for.
# TYPE postern_scrape_collector_success gauge
postern_scrape_collector_success{collector="resource"} 1
postern_scrape_collector_success{collector="interface"} 1
postern_scrape_collector_success{collector="conntrack"} 1
postern_scrape_collector_success{collector="dhcp"} 1
postern_scrape_collector_success{collector="socks"} 1
`

func TestMetrics(t *testing.T) {
	g := newRig(t)
	plain := g.ask(t, "GET", "/metrics", "")
	assert.Equal(t, 200, plain.status)
	assert.Equal(t, plainMetrics, plain.header.Get("Content-Type"))
	assert.Equal(t, wantMetrics, plain.body)

	// OpenMetrics names the family of a counter without _total, and has an end.
	open := g.ask(t, "GET", "/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3")
	assert.Equal(t, openMetrics, open.header.Get("Content-Type"))
	var want strings.Builder
	for line := range strings.Lines(wantMetrics) {
		if strings.HasPrefix(line, "#") {
			line = strings.Replace(line, "_total ", " ", 1)
		}
		want.WriteString(line)
	}
	assert.Equal(t, want.String()+"# EOF\n", open.body)
}

// Prometheus's own linter finds nothing.
func TestPromtool(t *testing.T) {
	e2e.Needs(t, "promtool")
	g := newRig(t)
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(g.ask(t, "GET", "/metrics", "").body)
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Empty(t, string(out))
}

// What the router cannot tell is named.
func TestMissingMetrics(t *testing.T) {
	g := newRig(t)
	g.live.Hits = func() ([]uint64, error) { return nil, errors.New("x") }
	g.live.TableSize = nil
	body := g.ask(t, "GET", "/metrics", "").body
	assert.NotContains(t, body, "socks_access_requests")
	assert.NotContains(t, body, "conntrack_entries")
	assert.Contains(t, body, `success{collector="socks"} 0`)
	assert.Contains(t, body, `success{collector="resource"} 1`)
}

func TestLabels(t *testing.T) {
	f := gauge("x", "y")
	f.add(1, "a", "b\\\"\n\xff")
	w := newResponse(nil, nil)
	require.NoError(t, f.write(w, false))
	assert.Contains(t, string(w.buffer), `postern_x{a="b\\\"\n`+"\uFFFD"+`"} 1`)
}
