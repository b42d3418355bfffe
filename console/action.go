package console

import (
	"fmt"
	"net/netip"

	"github.com/postern-router/postern/firewall"
)

// Action is what a line or Do does to what only the running system has.
type Action struct {
	// Close are numbers of connections of the SOCKS server, which are closed.
	Close []uint64
	// Logout are numbers of logins, which end.
	Logout []uint32
	// Forget are connections that the kernel tracks, and that it forgets.
	Forget []firewall.Tracked
	// ForgetNeighbors are entries of the ARP table that the kernel forgets.
	ForgetNeighbors []Neighbor
	// Remove are addresses that the DHCP server has given, and that it takes back.
	Remove []netip.Addr
	// RemoveFilled are addresses that rules have added to lists, and that go.
	RemoveFilled []firewall.Filled
	// Renew and Release are interfaces whose DHCP clients renew their leases, or give them back.
	Renew, Release []string
	// Reset are rules of each table, by their places, whose counters are set to zero.
	Reset map[firewall.Table][]int
	// Keep are files that the router is to hold, and RemoveFiles are numbers of files that go.
	Keep        []KeptFile
	RemoveFiles []uint32
	// ResetQueues are classes of queues whose counters are set to zero.
	ResetQueues []uint16
	// FlushDNS is set if the DNS server is to empty its cache.
	FlushDNS bool
}

func (a Action) empty() bool {
	return !a.FlushDNS && len(a.Close)+len(a.Logout)+len(a.Forget)+len(a.ForgetNeighbors)+len(a.Remove)+len(a.RemoveFilled)+len(a.Renew)+
		len(a.Release)+len(a.Reset)+len(a.ResetQueues)+len(a.Keep)+len(a.RemoveFiles) == 0
}

// CarryOut does it, to the system of live. It comes after the whole line has succeeded: a line that
// fails does nothing.
func (a Action) CarryOut(live Live) error {
	if len(a.Close) > 0 {
		if err := live.CloseConnections(a.Close); err != nil {
			return fmt.Errorf("remove connections: %w", err)
		}
	}
	if len(a.Logout) > 0 {
		if err := live.Logout(a.Logout); err != nil {
			return fmt.Errorf("end logins: %w", err)
		}
	}
	if len(a.Forget) > 0 {
		if err := live.Forget(a.Forget); err != nil {
			return fmt.Errorf("remove connections: %w", err)
		}
	}
	if len(a.ForgetNeighbors) > 0 {
		if err := live.ForgetNeighbors(a.ForgetNeighbors); err != nil {
			return fmt.Errorf("remove ARP entries: %w", err)
		}
	}
	if len(a.Remove) > 0 {
		if err := live.RemoveLeases(a.Remove); err != nil {
			return fmt.Errorf("remove leases: %w", err)
		}
	}
	if len(a.RemoveFilled) > 0 {
		if err := live.RemoveFilled(a.RemoveFilled); err != nil {
			return fmt.Errorf("remove addresses: %w", err)
		}
	}
	for _, t := range firewall.Tables {
		if len(a.Reset[t]) > 0 {
			if err := live.ResetCounters(t, a.Reset[t]); err != nil {
				return fmt.Errorf("reset counters: %w", err)
			}
		}
	}
	if len(a.ResetQueues) > 0 {
		if err := live.ResetQueueCounters(a.ResetQueues); err != nil {
			return fmt.Errorf("reset counters: %w", err)
		}
	}
	if len(a.RemoveFiles) > 0 {
		if err := live.RemoveFiles(a.RemoveFiles); err != nil {
			return err
		}
	}
	for _, f := range a.Keep {
		if err := live.KeepFile(f.Name, f.Content); err != nil {
			return err
		}
	}
	if a.FlushDNS {
		if err := live.FlushDNS(); err != nil {
			return fmt.Errorf("flush the DNS cache: %w", err)
		}
	}
	if len(a.Release) > 0 {
		if err := live.ReleaseLeases(a.Release); err != nil {
			return err
		}
	}
	if len(a.Renew) > 0 {
		if err := live.RenewLeases(a.Renew); err != nil {
			return err
		}
	}
	return nil
}
