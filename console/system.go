package console

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/postern-router/postern/fetch"
	"github.com/postern-router/postern/ntp"
)

// UpgradeArguments are the arguments of /system upgrade.
type UpgradeArguments struct {
	// From is the URL of the image, or the path of a file or a disk on the router.
	From  string
	Force bool
	// Release says that the image is the board's in the folder Config.UpdateURL, and is wanted only if it is newer.
	Release bool
}

// SlotState is the state of a slot for an image on flash, as /partitions shows it.
type SlotState struct {
	Name string
	// Running is set for the slot that the router was started from.
	Running bool
	// Active is set for the slot that the next start will use.
	Active bool
	// Version is that of the image, "" if it is not known or there is no image.
	Version string
	// Size is the size of the image in bytes.
	Size int64
	// State is empty, untried, on trial, failed or confirmed.
	State string
}

// NTPState is the state of the time client.
type NTPState struct {
	// Status is stopped, waiting or synchronized. The other fields are those of the last
	// answer.
	Status  string
	Server  string
	Stratum int
	Offset  time.Duration
}

var (
	upgradeCommand = command{name: "upgrade", policy: needed(Upgrade), help: "write another version of the software to flash, and restart with it",
		needs: Upgrade, positional: []string{"from"},
		arguments: []argument{
			option(prop("from", imageSource(), "", "where the upgrade image is",
				func(o *options) *string { return &o.upgrade.From })),
			option(prop("force", boolean(), "no", "accept a version older than the current one",
				func(o *options) *bool { return &o.upgrade.Force })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			x.result.Upgrade = a.upgrade
			if x.live.Denied&(Result{Request: Upgrade, Upgrade: a.upgrade}).Needs() != 0 {
				return ErrNotPermitted
			}
			return x.ask(Upgrade)
		}}

	checkUpdateCommand = command{name: "check-for-updates", policy: needed(CheckForUpdates), help: "ask the server for its version",
		needs: CheckForUpdates, run: func(x *execution, _ *menu, _ arguments) error { return x.askUpdate(CheckForUpdates) }}
	installUpdateCommand = command{name: "install", policy: needed(Upgrade), help: "fetch a newer version, write it to flash and restart with it",
		needs: Upgrade, run: func(x *execution, _ *menu, _ arguments) error {
			x.result.Upgrade.Release = true
			return x.askUpdate(Upgrade)
		}}

	printNTPCommand = printScreen("show what is set, and what the servers say")
)

// webFolder is the address of a folder on a web server.
func webFolder() kind[string] {
	return kind[string]{
		accepts: "http://ADDRESS[:PORT]/PATH",
		parse: func(s string) (string, error) {
			u, err := fetch.ParseURL(s)
			if err == nil && strings.Contains(u.Path, "?") {
				err = errors.New("a query")
			}
			return strings.TrimSuffix(s, "/"), err
		},
		format: func(v string) string { return v },
	}
}

// askUpdate asks for something that needs the server's address.
func (x *execution) askUpdate(r Request) error {
	if x.cfg.UpdateURL == "" {
		return errors.New("failure: no server is set; expected url= of /system package update")
	}
	return x.ask(r)
}

func partitionsMenu() *menu {
	return &menu{
		path: "partitions", help: "versions of the software on flash", commands: liveCommands,
		needs: func(l Live) bool { return l.Slots != nil },
		rows:  (*execution).slotRows, legend: "Flags: A - active, R - running", flags: []string{"A", "R"}, packed: true, identify: []string{"name"},
		columns: []column{{"name", 6}, {"version", 24}, {"size", 8}, {"state", 0}},
		readOnly: []readOnly{
			{name: "name", help: "the slot"},
			{name: "version", help: "version of the software"},
			{name: "size", help: "size of the image"},
			{name: "state", help: "empty, untried, on trial, failed or confirmed"},
		},
	}
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/328094/Log
func loggingMenu() *menu {
	return &menu{
		path: "system logging", help: "which lines of the log are sent where: those that a rule matches",
		commands: commandsLike(listCommands, "move comment"),
		needs:    hasRemoteLog, legend: "Flags: X - disabled, I - invalid", flags: []string{"XI"},
		items: itemLists[logItems], rows: (*execution).loggingRows,
		columns: []column{{"topics", 30}, {"action", 8}, {"prefix", 0}}, rare: []string{"prefix"},
		properties: bindItems(logRules,
			prop("topics", topicList(), "", "topics that a line must have, or with ! must not have",
				func(r *LogRule) *string { return &r.Topics }),
			prop("action", enum[string](memoryAction, remoteAction), memoryAction, "where the line goes; the memory has all lines, whatever the rules say",
				func(r *LogRule) *string { return &r.Action }),
			prop("prefix", text(0, 64), "", "what stands before the message of the line",
				func(r *LogRule) *string { return &r.Prefix }),
			disabled(func(r *LogRule) *bool { return &r.Disabled }),
		),
	}
}

func loggingAction() *menu {
	return &menu{
		path: "system logging action", help: "where the log can be sent",
		commands: commandsLike(listCommands, "add remove move enable disable comment find", printLive), fixed: []string{remoteAction}, exportedAs: "3",
		needs:   hasRemoteLog,
		rows:    (*execution).loggingActionRows,
		columns: []column{{"name", 16}, {"target", 6}, {"remote", 15}, {"remote-port", 0}},
		readOnly: []readOnly{
			{name: "name", help: "name of the action"},
			{name: "target", help: "what it is"},
		},
		properties: bind(func(c *Config, _ int) *RemoteLog { return &c.RemoteLog },
			prop("remote", optional(address(), "nobody"), "", "address of the syslog server",
				func(r *RemoteLog) *netip.Addr { return &r.Address }),
			prop("remote-port", integer[uint16](1, 65535), "514", "UDP port of the syslog server",
				func(r *RemoteLog) *uint16 { return &r.Port }),
		),
	}
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/40992869/NTP
func ntpMenu() *menu {
	return &menu{path: "system ntp", help: "network time"}
}

func ntpClient() *menu {
	return &menu{
		path: "system ntp client", help: "time client",
		commands: commandsLike(unsetCommands, "", printNTPCommand), indent: 2, needs: hasNTP,
		live: (*execution).timeClient,
		readOnly: []readOnly{
			{name: dynamicServers, help: "time servers of a lease: they come after those of servers", after: "servers"},
			{name: "status", help: "stopped, waiting or synchronized"},
			{name: "synced-server", help: "the server that gave the time"},
			{name: "synced-stratum", help: "distance of that server from a clock, in servers"},
			{name: "system-offset", help: "how far the clock was from that server's"},
		},
		properties: withServerItems(bind(func(c *Config, _ int) *ntp.Config { return &c.NTP },
			prop("enabled", boolean(), "no", "whether time servers are asked",
				func(n *ntp.Config) *bool { return &n.Enabled }),
			prop("servers", listOf(hostName(), ntp.MaxServers), "", "time servers: the next is asked when one does not answer",
				func(n *ntp.Config) *[]string { return &n.Servers }),
		)),
	}
}

func ntpServers(c *Config) *[]string { return &c.NTP.Servers }

// ntpServersMenu has the property servers of its parent as items, as RouterOS 7 has them.
func ntpServersMenu() *menu {
	return &menu{
		path: "system ntp client servers", help: "the time servers, as items", needs: hasNTP, isAlias: true,
		commands: commandsLike(listCommands, "unset enable disable comment"),
		items:    itemLists[ntpServerItems],
		columns:  []column{{"address", 0}},
		properties: bindItems(ntpServers,
			prop("address", hostName(), "", "IP address or host name of a time server", func(s *string) *string { return s })),
	}
}

// withServerItems has the property servers, the last of all, make as many items as it has servers.
func withServerItems(all []property) []property {
	p := &all[len(all)-1]
	set := p.set
	p.set = func(c *Config, item int, value string) error {
		before := len(c.NTP.Servers)
		if err := set(c, item, value); err != nil {
			return err
		}
		if ids := &c.ids[ntpServerItems]; len(*ids) == before {
			*ids = slices.Clone((*ids)[:min(before, len(c.NTP.Servers))])
			for len(*ids) < len(c.NTP.Servers) {
				*ids = append(*ids, newID())
			}
		}
		return nil
	}
	return all
}

// olderServers translates the properties primary-ntp and secondary-ntp of RouterOS 6 to servers. An export that has one of
// them says all: it must not be done to a line that is typed, which would remove the other.
func olderServers(words []word) []word {
	var rest []word
	var servers []string
	at := -1 // in rest
	for _, w := range words {
		if w.key != "primary-ntp" && w.key != "secondary-ntp" || w.find != nil {
			rest = append(rest, w)
			continue
		}
		if at < 0 {
			at = len(rest)
			w.key = "servers"
			rest = append(rest, w)
		}
		if w.text != "0.0.0.0" && w.text != "" {
			servers = append(servers, w.text)
		}
	}
	if at >= 0 {
		rest[at].text = strings.Join(servers, ",")
	}
	return rest
}

// The actions of /system logging. The kernel keeps the whole log in memory in any case.
const (
	memoryAction = "memory"
	remoteAction = "remote"
)

func hasRemoteLog(l Live) bool { return l.RemoteLog }

func logRules(c *Config) *[]LogRule { return &c.RemoteLog.Rules }

// otherTopics are topics of RouterOS that no line has here. A rule may have them all the same.
const otherTopics = "async backup bfd bgp bridge calc caps certificate clock container ddns debug discovery dot1x dude e-mail event fetch gps gsm " +
	"health hotspot igmp-proxy ipsec iscsi kvm l2tp ldp lora lte manager mpls mqtt netinstall netwatch ospf ovpn packet pim poe-out ppp pptp " +
	"radius radvd raw read rip route rpki rsvp script sertcp smb snmp sstp state store stp telephony tftp timer tr069 update upnp ups vpls vrrp " +
	"watchdog web-proxy wireguard wireless write zerotier"

// topicList is the kind of a list of topics, with "!" before those that a line must not have.
func topicList() kind[string] {
	topics := []string{"system", "socks", "firewall", "interface", "disk", "ntp", "dhcp", "dns", "pppoe", "ssh", "api", "www", "neighbor", "account",
		"info", "warning", "error", "critical"}
	return optional(kind[string]{
		typ:     List,
		accepts: "[!]topic, or a list of them: " + strings.Join(topics, " | "),
		values:  topics,
		list:    true,
		parse: func(s string) (string, error) {
			items := strings.Split(s, ",")
			for i, item := range items {
				name, not := strings.CutPrefix(item, "!")
				full, err := oneOf(name, topics...)
				if err != nil && slices.Contains(strings.Fields(otherTopics), name) {
					full, err = name, nil
				}
				if err != nil {
					return "", err
				}
				if items[i] = full; not {
					items[i] = "!" + full
				}
				if slices.Contains(items[:i], items[i]) {
					return "", errNoMatch
				}
			}
			return strings.Join(items, ","), nil
		},
		format: func(v string) string { return v },
	}, "any")
}

// loggingRows are the rules of the log. Without a server they have no effect.
func (x *execution) loggingRows() ([]row, error) {
	rows := x.configured(x.menu("system logging"))
	for i := range rows {
		if rows[i].flags == 0 && x.cfg.RemoteLog.Rules[i].Action == remoteAction && !x.cfg.RemoteLog.Address.IsValid() {
			rows[i].flags = flagInvalid
		}
	}
	return rows, nil
}

func (x *execution) loggingActionRows() ([]row, error) {
	r := row{id: fixedID(0), pairs: []Pair{textPair("name", remoteAction), wordPair("target", remoteAction)}}
	for _, p := range x.menu("system logging action").properties {
		if v := p.value(&x.cfg, 0); v.text != "" {
			r.pairs = append(r.pairs, Pair{p.name, v})
		}
	}
	return []row{r}, nil
}

// olderLogging translates the arguments of "/system logging set" of earlier versions, which
// sent the whole log or nothing, to those of "/system logging action set". It returns no
// words if they are not those of an earlier version.
func (x *execution) olderLogging(words []word) (*menu, []word) {
	if len(words) == 0 || !strings.HasPrefix(words[0].key, remoteAction) {
		return nil, nil
	}
	named := slices.ContainsFunc(words, func(w word) bool { return w.key == remoteAction })
	if named && len(x.cfg.RemoteLog.Rules) == 0 {
		x.menu("system logging").items.add(&x.cfg)
		x.cfg.RemoteLog.Rules[0].Action = remoteAction
	}
	return x.menu("system logging action"), append([]word{{place: words[0].place, value: words[0].value, text: remoteAction}}, words...)
}

func hasNTP(l Live) bool { return l.NTP != nil }

// imageSource is the kind of an image's source: the URL of a file, or a path, which begins
// with a slash.
func imageSource() kind[string] {
	return kind[string]{
		accepts: "http://ADDRESS[:PORT]/PATH, or the path of a disk, as /dev/sda",
		parse: func(s string) (string, error) {
			if strings.HasPrefix(s, "/") && !strings.ContainsFunc(s, unicode.IsControl) {
				return s, nil
			}
			_, err := fetch.ParseURL(s)
			return s, err
		},
		format: func(v string) string { return v },
	}
}

func (x *execution) slotRows() ([]row, error) {
	slots, err := x.live.Slots()
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	rows := make([]row, len(slots))
	for i, s := range slots {
		if s.Active {
			rows[i].flags = flagActive
		}
		if s.Running {
			rows[i].flags |= flagRunning
		}
		rows[i].pairs = []Pair{textPair("name", s.Name)}
		if s.Version != "" {
			rows[i].pairs = append(rows[i].pairs, textPair("version", s.Version))
		}
		if s.Size > 0 {
			rows[i].pairs = append(rows[i].pairs, Pair{"size", Value{Bytes, fmt.Sprintf("%dKiB", (s.Size+1023)>>10), s.Size}})
		}
		rows[i].pairs = append(rows[i].pairs, wordPair("state", s.State))
	}
	return rows, nil
}

// timeClient is the state of the time client.
func (x *execution) timeClient() ([]Pair, error) {
	state, err := x.live.NTP()
	if err != nil {
		return nil, fmt.Errorf("read time client: %w", err)
	}
	var pairs []Pair
	if x.live.DynamicNTP != nil {
		servers := x.live.DynamicNTP()
		pairs = append(pairs, Pair{dynamicServers, Value{Type: List, text: strings.Join(servers, ",")}})
	}
	pairs = append(pairs, wordPair("status", state.Status))
	if state.Server != "" {
		offset := Value{Duration, fmt.Sprintf("%.3f ms", float64(state.Offset)/1e6), int64(state.Offset)}
		pairs = append(pairs, textPair("synced-server", state.Server), numberPair("synced-stratum", state.Stratum), Pair{"system-offset", offset})
	}
	return pairs, nil
}

// resource is the state of the machine.
func (x *execution) resource() ([]Pair, error) {
	if x.live.Resource == nil {
		return nil, unavailable("resource")
	}
	r, err := x.live.Resource()
	if err != nil {
		return nil, fmt.Errorf("read resource: %w", err)
	}
	mebibytes := func(name string, bytes uint64) Pair {
		return Pair{name, Value{Bytes, fmt.Sprintf("%.1fMiB", float64(bytes)/(1<<20)), int64(bytes)}}
	}
	return []Pair{
		durationPair("uptime", r.Uptime),
		// Programs read two numbers and what release it is, and fail on any other form.
		textPair("version", RouterOSVersion+" (stable)"), textPair("postern-version", r.Version),
		mebibytes("free-memory", r.FreeMemory),
		mebibytes("total-memory", r.TotalMemory),
		numberPair("cpu-count", r.CPUCount),
		{"cpu-load", Value{Integer, fmt.Sprintf("%.2f%%", 100*r.CPULoad), int64(100 * r.CPULoad)}},
		textPair("architecture-name", r.Architecture),
		textPair("board-name", r.Board),
	}, nil
}

// clock is the date and the time of day that /system clock set was given. The zero date and
// noTime mean that it was not.
type clock struct {
	date time.Time
	time time.Duration
	zone string
}

const noTime = -1

// clock is the time of day.
func (x *execution) clock() ([]Pair, error) {
	day, since := x.now()
	return []Pair{textPair("time", timeOfDay().format(since)), textPair("date", date().format(day)),
		wordPair("time-zone-name", "manual"), textPair("gmt-offset", offset().format(x.cfg.TimeZone))}, nil
}

func (x *execution) setClock(_ *menu, a arguments) error {
	if zone := a.clock.zone; zone != "" {
		if zone != "manual" && (x.cfg.TimeZone != 0 || !slices.Contains([]string{"UTC", "GMT", "Etc/UTC", "Etc/GMT"}, zone)) {
			fmt.Fprintf(&x.out, "Postern has no time zone %s: the clock goes by /system clock manual, which is %s\n", Printable(zone), offset().format(x.cfg.TimeZone))
		}
		if a.clock.date.IsZero() && a.clock.time == noTime {
			return nil
		}
	}
	day, since := x.now()
	if !a.clock.date.IsZero() {
		day = a.clock.date
	}
	if a.clock.time != noTime {
		since = a.clock.time
	}
	x.result.Clock = day.Add(since - x.cfg.TimeZone)
	return x.ask(SetClock)
}

// now returns the start of the current day in the configured time zone, as if that were UTC,
// and the time since then.
func (x *execution) now() (day time.Time, since time.Duration) {
	t := x.live.Now().UTC().Add(x.cfg.TimeZone)
	day = time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return day, t.Sub(day)
}
