package console

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/ping"
)

// command is a command of a menu.
type command struct {
	name, help string
	// positional are the arguments that can be given without their names, in this order.
	positional []string
	// arguments are what the command takes besides properties of the menu.
	arguments []argument
	// properties is set if the command takes properties of the menu.
	properties bool
	// words are the plain words that the command takes.
	words []Choice
	// where is set if conditions can follow the word where; find, if the command takes
	// conditions and nothing else.
	where, find bool
	// shows is set if the command only prints text.
	shows bool
	// policy is what a user needs for the command; 0 means MayRead if it only shows something, else MayWrite.
	policy Policies
	// needs is the request that the command makes, if not every system carries it out. able
	// reports whether a system can do what the command does; nil is always.
	needs Request
	able  func(Live) bool
	run   func(*execution, *menu, arguments) error
}

// argument is an argument of a command that is no property of its menu.
type argument struct {
	property
	// item is set if the argument refers to items; otherwise set parses the value.
	item bool
	set  func(*options, string) error
}

var (
	numbersArgument  = itemArgument("numbers", "", "which items, as the last print numbered them")
	intervalArgument = option(prop("interval", optional(duration(500*time.Millisecond, time.Hour), "once"), "",
		"time after which to print again, until a key is pressed", func(o *options) *time.Duration { return &o.interval }))

	unsetArgument = option(prop(valueName, propertyNames(), "", "which properties",
		func(o *options) *string { return &o.valueName }))
	valueArgument = option(prop(valueName, propertyName(), "", "which property", func(o *options) *string { return &o.valueName }))
	fromArgument  = itemArgument("from", "all", "only these items, as the last print numbered them")

	detailWord     = Choice{"detail", "everything that is known about each item"}
	terseWord      = Choice{"terse", "each item in one line"}
	countWord      = Choice{"count-only", "how many items there are"}
	statsWord      = Choice{"stats", "what each item has matched"}
	pagingWord     = Choice{"without-paging", "all at once, without a stop at the end of each page of the screen"}
	followWord     = Choice{"follow", "continue with what is new, until a key is pressed"}
	followOnlyWord = Choice{"follow-only", "only what is new, until a key is pressed"}

	sensitiveWord = Choice{"show-sensitive", "with passwords, and hashes of passwords"}
	verboseWord   = Choice{"verbose", "with the default values too"}
	exportWords   = []Choice{{"compact", "what differs from the defaults, as without this word"}, verboseWord,
		{terseWord.Name, "each item in one line, with its menu"},
		{"hide-sensitive", "without passwords and hashes of passwords, as without this word"}, sensitiveWord}

	printCommand      = printScreen("show what is set")
	printSocksCommand = printScreen("show what is set", Choice{detailWord.Name, "with version, auth-method and udp, also while these have their defaults"})
	setCommand        = command{name: "set", help: "change properties", properties: true, run: (*execution).set}
	unsetCommand      = command{name: "unset", help: "unset properties: they are then as if they had never been given",
		positional: []string{valueName}, arguments: []argument{unsetArgument}, run: (*execution).unset}
	resetCommand = command{name: "reset", help: "set properties back to their defaults: those named, or all", run: (*execution).reset}

	addItem = command{name: "add", help: "add an item", properties: true, run: (*execution).add, arguments: []argument{
		itemArgument("place-before", "at the end", "item to insert it before"),
		itemArgument("copy-from", "the defaults", "item to copy"),
	}}
	setItems = command{name: "set", help: "change properties of items", properties: true, run: (*execution).setItems,
		positional: []string{"numbers"}, arguments: []argument{numbersArgument}}
	unsetItems = command{name: "unset", help: "unset properties of items: they are then as if they had never been given",
		positional: []string{"numbers", valueName}, arguments: []argument{numbersArgument, unsetArgument}, run: (*execution).unset}
	// getSetting and getItem print a value as it is, for whoever asks by another program.
	getSetting = command{name: "get", help: "show the value of a property", shows: true, positional: []string{valueName},
		arguments: []argument{valueArgument}, run: (*execution).get}
	getItem = command{name: "get", help: "show the value of a property of an item", shows: true, positional: []string{"numbers", valueName},
		arguments: []argument{numbersArgument, valueArgument}, run: (*execution).get}
	removeItems = itemCommand("remove", "remove items", (*execution).remove)
	// removeConnections and forgetConnections are remove for rows that only the system has.
	removeConnections = command{name: "remove", help: "end connections", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
		able: func(l Live) bool { return l.CloseConnections != nil }, run: (*execution).removeLive}
	forgetConnections = command{name: "remove", help: "forget connections: their next packets begin new ones", positional: []string{"numbers"},
		arguments: []argument{numbersArgument}, able: func(l Live) bool { return l.Forget != nil }, run: (*execution).removeLive}
	// resetCounters sets counters to zero, and resetAllCounters all of them.
	resetCounters = command{name: "reset-counters", help: "set the counters of items to zero", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
		able: func(l Live) bool { return l.ResetCounters != nil }, run: (*execution).resetCounters}
	resetAllCounters = command{name: "reset-counters-all", help: "set the counters of all items to zero",
		able: resetCounters.able, run: (*execution).resetCounters}
	moveItems = command{name: "move", help: "move items to the place before another", run: (*execution).move,
		positional: []string{"numbers", "destination"},
		arguments:  []argument{numbersArgument, itemArgument("destination", "at the end", "item to move them before")}}
	enableItems  = itemCommand("enable", "enable items", (*execution).enable)
	disableItems = itemCommand("disable", "disable items", (*execution).disable)
	commentItems = command{name: "comment", help: "set the comment of items", run: (*execution).comment,
		positional: []string{"numbers", "comment"},
		arguments: []argument{numbersArgument, option(prop("comment", note(), "", "a note for people",
			func(o *options) *string { return &o.comment }))}}
	findItems  = command{name: "find", help: "show the numbers of items", shows: true, find: true, run: (*execution).find}
	printItems = printNumbered("show what is set", detailWord, terseWord, countWord)
	printRules = printNumbered("show what is set", detailWord, terseWord, countWord, statsWord)
	printLive  = printList("show what there is", detailWord, terseWord, countWord)
	printTable = printList("show what there is", detailWord, terseWord, countWord, followWord, followOnlyWord)
	// printConnections is printTable of rows that can be removed.
	printConnections = printNumbered("show what there is", detailWord, terseWord, countWord, followWord, followOnlyWord)

	printResourceCommand = printScreen("show time, memory and load")
	printClockCommand    = printScreen("show the time of day")
	printLogCommand      = command{name: "print", help: "show the log",
		shows: true, words: []Choice{followWord, followOnlyWord, countWord, pagingWord}, where: true, run: (*execution).printLog}

	rebootCommand = command{name: "reboot", help: "restart the router", policy: needed(Reboot),
		run: func(x *execution, _ *menu, _ arguments) error { return x.ask(Reboot) }}
	shutdownCommand = command{name: "shutdown", help: "turn the router off", policy: needed(Shutdown),
		run: func(x *execution, _ *menu, _ arguments) error { return x.ask(Shutdown) }}
	resetConfigurationCommand = command{name: "reset-configuration", help: "go back to the default configuration, and restart the router",
		needs: ResetConfiguration, policy: needed(ResetConfiguration),
		run: func(x *execution, _ *menu, _ arguments) error { return x.ask(ResetConfiguration) }}
	quitCommand = command{name: "quit", help: "end the session", policy: everyone, run: func(x *execution, _ *menu, _ arguments) error {
		return x.ask(Quit)
	}}
	passwordCommand = command{name: "password", help: "change one's own password, which it asks for if none is given", needs: ChangePassword, policy: needed(ChangePassword),
		arguments: []argument{
			option(prop("old-password", anyText(), "", "the present password", func(o *options) *string { return &o.password.Old })),
			option(prop("new-password", anyText(), "", "the new one", func(o *options) *string { return &o.password.New })),
			option(prop("confirm-new-password", anyText(), "", "the new one once more", func(o *options) *string { return &o.password.Again })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			x.result.Password = a.password
			return x.ask(ChangePassword)
		}}
	// exportCommand is a command of every menu.
	exportCommand = command{name: "export", help: "show the configuration of this menu and those below as commands",
		shows: true, words: exportWords,
		arguments: []argument{option(prop("file", optional(fileName(), "none"), "", "name of a file of /file that the text is written to, instead of being shown",
			func(o *options) *string { return &o.file }))},
		run: func(x *execution, m *menu, a arguments) error {
			x.dropUnchanged() // by what this line has changed
			if slices.Contains(a.words, sensitiveWord.Name) && x.live.Denied&MaySensitive != 0 {
				return ErrNotPermitted
			}
			if x.live.Denied&MayPolicy != 0 {
				a.words = append(a.words, withoutUsers)
			}
			if a.file != "" {
				return x.exportTo(a.file, x.exportHeader()+exportMenus(x.menus, &x.cfg, m.path, a.words...))
			}
			x.out.WriteString(x.exportHeader())
			x.out.WriteString(exportMenus(x.menus, &x.cfg, m.path, a.words...))
			return nil
		}}

	pingCommand = command{name: "ping", help: "send ICMP echo requests", needs: Ping, policy: needed(Ping),
		positional: []string{"address"},
		arguments: []argument{
			option(prop("address", hostName(), "", "host that has to answer",
				func(o *options) *string { return &o.ping.Address })),
			option(prop("count", integer(0, 65535), "0", "how many requests; 0 is until a key is pressed",
				func(o *options) *int { return &o.ping.Count })),
			option(prop("interval", duration(10*time.Millisecond, 5*time.Second), "1s", "time between requests",
				func(o *options) *time.Duration { return &o.ping.Interval })),
			option(prop("size", integer(28, 65535), "64", "size of the packet, its headers included",
				func(o *options) *int { return &o.ping.Size })),
			option(prop("src-address", optional(address(), "as the route says"), "", "address of the router that they come from",
				func(o *options) *netip.Addr { return &o.ping.From })),
			option(prop("interface", optional(portName(), "as the route says"), "", "interface that they leave by",
				func(o *options) *string { return &o.ping.Interface })),
			option(prop("ttl", optional(integer(1, 255), "64"), "", "how many routers they may pass",
				func(o *options) *int { return &o.ping.TTL })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			if name := a.ping.Interface; name != "" {
				known := x.interfaceNames()
				if a.ping.Interface = x.cfg.device(name); !slices.Contains(known, name) || a.ping.Interface == "" {
					return valueError("interface", name, strings.Join(known, " | "), true, errNoMatch)
				}
			}
			x.result.Ping = a.ping
			return x.ask(Ping)
		}}
	tracerouteCommand = command{name: "traceroute", help: "show the routers on the way to a host", needs: Traceroute, policy: needed(Traceroute),
		positional: []string{"address"},
		arguments: []argument{
			option(prop("address", hostName(), "", "host to trace the route to",
				func(o *options) *string { return &o.traceroute.Address })),
			option(prop("max-hops", integer(1, 255), "30", "how many routers at most",
				func(o *options) *int { return &o.traceroute.MaxHops })),
			option(prop("timeout", duration(10*time.Millisecond, 10*time.Second), "1s", "time to wait for an answer",
				func(o *options) *time.Duration { return &o.traceroute.Timeout })),
			option(prop("count", integer(1, ping.MaxProbes), "3", "how many requests for each router",
				func(o *options) *int { return &o.traceroute.Count })),
			option(prop("src-address", optional(address(), "as the route says"), "", "address of the router that they come from",
				func(o *options) *netip.Addr { return &o.traceroute.From })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			x.result.Traceroute = a.traceroute
			return x.ask(Traceroute)
		}}

	// unsetCommands are for settings some of which can be unset, and listCommands for items. Those of other menus are
	// commandsLike them.
	unsetCommands  = []command{setCommand, unsetCommand, printCommand, getSetting, resetCommand, editSetting}
	listCommands   = []command{addItem, setItems, unsetItems, removeItems, moveItems, enableItems, disableItems, commentItems, findItems, getItem, editItem, printItems}
	singleCommands = sync.OnceValue(func() []command { return commandsLike(unsetCommands, "unset") })
	// plainCommands are for items whose order says nothing, and which are always enabled.
	plainCommands = sync.OnceValue(func() []command { return commandsLike(listCommands, "move enable disable") })
	ruleCommands  = sync.OnceValue(func() []command { return commandsLike(listCommands, "", printRules) })
	// packetRuleCommands are those of rules whose counters the kernel has.
	packetRuleCommands = sync.OnceValue(func() []command { return commandsLike(ruleCommands(), "", resetCounters, resetAllCounters) })
	accessCommands     = sync.OnceValue(func() []command { return commandsLike(ruleCommands(), "", checkCommand) })
	liveCommands       = []command{printTable}
	// tableCommands are for rows that only the system has. connectionCommands and trackedCommands are those of menus whose rows
	// have a removal.
	tableCommands      = []command{findItems, getItem, printNumbered("show what there is", detailWord, terseWord, countWord)}
	connectionCommands = sync.OnceValue(func() []command { return commandsLike(tableCommands, "", removeConnections, printConnections) })
	trackedCommands    = sync.OnceValue(func() []command { return commandsLike(tableCommands, "", forgetConnections, printConnections) })

	setClockCommand = command{name: "set", help: "set the time of day", needs: SetClock, run: (*execution).setClock,
		arguments: []argument{
			option(prop("date", date(), "", "day", func(o *options) *time.Time { return &o.clock.date })),
			option(prop("time", timeOfDay(), "", "time of day",
				func(o *options) *time.Duration { return &o.clock.time })),
			option(prop("time-zone-name", optional(text(1, 64), "as it is"), "", "for lines of RouterOS's exports: the clock goes by /system clock manual",
				func(o *options) *string { return &o.clock.zone })),
		}}
	checkCommand = command{name: "check", help: "show which rule decides about a connection, and why", shows: true, run: (*execution).check,
		arguments: []argument{
			option(prop("src-address", address(), "", "address of the client",
				func(o *options) *netip.Addr { return &o.check.src })),
			option(prop("src-port", optional(integer[uint16](1, 65535), "any"), "", "TCP port of the client",
				func(o *options) *uint16 { return &o.check.srcPort })),
			option(prop("dst-address", address(), "", "address of the server",
				func(o *options) *netip.Addr { return &o.check.dst })),
			option(prop("dst-port", integer[uint16](1, 65535), "", "TCP port of the server",
				func(o *options) *uint16 { return &o.check.dstPort })),
		}}
)

// commandsLike returns the commands of another menu, without those named (separated by blanks), and with more, each in the
// place of the one of its name, or else at the end.
func commandsLike(other []command, without string, more ...command) []command {
	all := slices.DeleteFunc(slices.Clone(other), func(c command) bool { return slices.Contains(strings.Fields(without), c.name) })
	for _, c := range more {
		if i := slices.IndexFunc(all, func(o command) bool { return o.name == c.name }); i >= 0 {
			all[i] = c
		} else {
			all = append(all, c)
		}
	}
	return all
}

func itemCommand(name, help string, run func(*execution, *menu, arguments) error) command {
	return command{name: name, help: help, positional: []string{"numbers"}, arguments: []argument{numbersArgument}, run: run}
}

func printScreen(help string, words ...Choice) command {
	return command{name: "print", help: help, shows: true, words: append(words, pagingWord), arguments: []argument{intervalArgument}, run: (*execution).printScreen}
}

func printList(help string, words ...Choice) command {
	return command{name: "print", help: help, shows: true, words: append(words, pagingWord), where: true, arguments: []argument{intervalArgument}, run: (*execution).print}
}

// printNumbered is printList of rows that have numbers.
func printNumbered(help string, words ...Choice) command {
	c := printList(help, words...)
	c.arguments = append(c.arguments, fromArgument)
	return c
}

// valueName is the argument of unset that names properties.
const valueName = "value-name"

// propertyName is the kind of the name of a property.
func propertyName() kind[string] {
	k := text(1, 64)
	k.accepts = "name of a property"
	return k
}

// propertyNames is the kind of a list of names of properties.
func propertyNames() kind[string] {
	k := text(1, 255)
	k.accepts = "name of a property, or a list of names"
	return k
}
