package router

import (
	"cmp"
	"encoding/hex"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
)

// This file keeps the leases of the DHCP server over a restart. What is kept of each is
//
//	ADDRESS,MAC,CLIENT-ID,SERVER,SECONDS,NAME
//
// with the identifier and the server's name in hexadecimal, and a blank between two leases. They are in the order in
// which their clients took their names, as of two with one name the first keeps it. There
// are no dates: the clock may be wrong at the start. SECONDS is the whole time that the client got
// when it last asked, and it counts from the start, so that no lease is thought to be over before
// the client thinks so. A renewal changes none of that, and so it costs no write.

// formatLease is a lease as it is kept.
func formatLease(b server.Binding, granted time.Duration) string {
	name := ""
	if isLabel(strings.ToLower(b.HostName)) {
		name = b.HostName
	}
	return strings.Join([]string{b.Address.String(), hex.EncodeToString(b.MAC[:]), hex.EncodeToString([]byte(b.ClientID)),
		hex.EncodeToString([]byte(b.Server)), strconv.FormatInt(int64(granted/time.Second), 10), name}, ",")
}

// parseLease reads what formatLease wrote. It believes nothing: flash may hold anything.
func parseLease(text string) (b server.Binding, ok bool) {
	f := strings.Split(text, ",")
	if len(f) != 6 {
		return b, false
	}
	address, err1 := netip.ParseAddr(f[0])
	mac, err2 := hex.DecodeString(f[1])
	id, err3 := hex.DecodeString(f[2])
	name, err4 := hex.DecodeString(f[3])
	seconds, err5 := strconv.ParseUint(f[4], 10, 25) // a year
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil {
			return b, false
		}
	}
	if !address.Is4() || len(mac) != 6 || len(id) > server.MaxClientID || len(name) > server.MaxName || f[5] != "" && !isLabel(strings.ToLower(f[5])) {
		return b, false
	}
	return server.Binding{Address: address, MAC: ether.MAC(mac), ClientID: string(id), Server: string(name), Status: server.Bound,
		HostName: f[5], Left: time.Duration(seconds) * time.Second}, true
}

// isLabel reports whether a name in lower case can be that of a host (RFC 1123 2.1).
func isLabel(name string) bool {
	return name != "" && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && net.ParseIP(name) == nil
}

// load reads the kept leases. The caller holds mu.
func (d *dhcpService) load() {
	if !d.keeper.kept() {
		return
	}
	now := time.Now()
	for text := range strings.FieldsSeq(d.keeper.get(stateLeases)) {
		b, ok := parseLease(text)
		if ok && len(d.leases) < server.MaxLeases && b.Left > 0 {
			since := now.Add(time.Duration(len(d.leases) - server.MaxLeases)) // in their order, and before any that comes
			d.leases[b.Address] = &lease{Binding: b, until: now.Add(b.Left), seen: now, since: since, granted: b.Left}
		}
	}
	if n := len(d.leases); n > 0 {
		d.log.Printf(kmsg.Info, "%d leases of before the restart", n)
	}
}

// leaseText is all leases as they are kept.
func (d *dhcpService) leaseText() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, l := range slices.SortedFunc(maps.Values(d.leases), firstNamed) {
		if l.Status != server.Bound || time.Until(l.until) <= 0 {
			continue
		}
		text := formatLease(l.Binding, l.granted)
		if b.Len()+len(text)+1 > d.keeper.room() {
			d.log.Printf(kmsg.Warning, "more leases than can be kept over a restart: %d bytes", d.keeper.room())
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(text)
	}
	return b.String()
}

// firstNamed orders leases by when their clients took their names.
func firstNamed(a, b *lease) int {
	return cmp.Or(a.since.Compare(b.since), a.Address.Compare(b.Address))
}

// keep writes the leases to flash, if there is a place for them and they are not there as they are; it reports whether
// it tried.
func (d *dhcpService) keep() bool {
	if !d.keeper.kept() {
		return false
	}
	d.mu.Lock()
	changed := d.unkept
	d.unkept = false // what changes from here on is for the next time
	d.mu.Unlock()
	if !changed {
		return false
	}
	text := d.leaseText()
	if text == d.keeper.get(stateLeases) {
		return false
	}
	if err := d.keeper.put(map[string]string{stateLeases: text}); err != nil {
		d.log.Printf(kmsg.Warning, "leases are not kept: %v", err)
		d.mu.Lock()
		d.unkept = true
		d.mu.Unlock()
	}
	return true
}

// last is what the router's state is to have of the leases at an orderly end.
func (d *dhcpService) last() map[string]string {
	d.mu.Lock()
	changed := d.unkept
	d.mu.Unlock()
	if !changed {
		return nil
	}
	return map[string]string{stateLeases: d.leaseText()}
}

// tellUnkept says once that leases do not outlive a restart. Clients keep theirs all the same: who
// asks for the address that he had gets it, if nobody else has it.
func (d *dhcpService) tellUnkept() {
	d.log.Printf(kmsg.Info, "leases are not kept over a restart: there is no flash for them")
}
