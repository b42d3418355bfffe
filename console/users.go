package console

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/ssh"
)

// This file has the users of the router, and what they may do.
// https://help.mikrotik.com/docs/spaces/ROS/pages/8978504/User

const (
	// Admin is the name of the user of a router on which nothing has been set.
	Admin = "admin"
	// fullGroup is the group of those who may do everything.
	fullGroup = "full"

	// maxUsers and maxUserGroups are how many there may be.
	maxUsers      = 16
	maxUserGroups = 16

	userMenuPath    = "user"
	userGroupPath   = "user group"
	userSSHKeysPath = "user ssh-keys"
)

// User is a user of the router (/user).
type User struct {
	Name, Group string
	// Password is the hash of the password, made by Live.HashPassword; "" if none is set.
	Password string
	// From has the networks from which the user may log in; nil means all.
	From     []netip.Prefix
	Disabled bool
	Comment  string
}

// Group says what its users may do (/user group).
type Group struct {
	Name    string
	Policy  Policies
	Comment string
}

// Policies are what a user may do, in RouterOS's words: a set of these bits. Those for services that Postern lacks are
// kept, and have no effect.
type Policies uint32

const (
	MayLocal Policies = 1 << iota // log in at a serial line
	mayTelnet
	MaySSH       // log in by SSH
	MayFTP       // use the router's files by SFTP
	MayReboot    // restart the router, turn it off, upgrade it
	MayRead      // look at the configuration and at what the router does
	MayWrite     // change the configuration, but for users
	MayPolicy    // change users and groups
	MayTest      // ping, traceroute and the like
	mayWinbox    //
	MayPassword  // change one's own password
	MayWeb       // log in to the web page
	maySniff     //
	MaySensitive // see what is sensitive, such as passwords
	MayAPI       // log in by the API
	mayRomon     //
	MayREST      // log in by REST
	policies     = iota

	// everyone is what a command needs that everybody may run: no group lacks it.
	everyone Policies = 1 << 31
	// all are all policies.
	allPolicies Policies = 1<<policies - 1
)

// policyNames are the names of the policies, in the order of their bits.
var policyNames = [policies]string{"local", "telnet", "ssh", "ftp", "reboot", "read", "write", "policy", "test", "winbox", "password",
	"web", "sniff", "sensitive", "api", "romon", "rest-api"}

// formerPolicies are those of earlier versions of RouterOS, for what Postern has not.
var formerPolicies = []string{"dude", "tikapp"}

// fullNeeds are the policies that group full cannot lose: somebody has to be able to undo a change.
const fullNeeds = MayLocal | MayReboot | MayRead | MayWrite | MayPolicy | MayPassword | MaySensitive

// ErrNotPermitted is the error of what the user's group does not allow. The words are RouterOS's.
var ErrNotPermitted = errors.New("not enough permissions (9)")

// defaultUsers and defaultGroups are those of a router on which nothing has been set. The groups are always there.
func defaultUsers() []User { return []User{{Name: Admin, Group: fullGroup}} }

func defaultGroups() []Group {
	return []Group{
		{Name: "read", Policy: allPolicies &^ (MayFTP | MayWrite | MayPolicy)},
		{Name: "write", Policy: allPolicies &^ (MayFTP | MayPolicy)},
		{Name: fullGroup, Policy: allPolicies},
	}
}

func users(c *Config) *[]User   { return &c.Users }
func groups(c *Config) *[]Group { return &c.Groups }

func cloneUser(u *User) { u.From = slices.Clone(u.From) }

// User returns the user of that name.
func (c Config) User(name string) (u User, ok bool) {
	if i := slices.IndexFunc(c.Users, func(u User) bool { return u.Name == name }); i >= 0 {
		return c.Users[i], true
	}
	return User{}, false
}

// PasswordArguments are the arguments of /password, of which a person gives none and is asked for them.
type PasswordArguments struct{ Old, New, Again string }

// Given reports whether there are any.
func (p PasswordArguments) Given() bool { return p != PasswordArguments{} }

// Check returns an error if New may not be chosen, or was not given twice. The error shows neither.
func (p PasswordArguments) Check() error {
	if p.New != p.Again {
		return errors.New("failure: new passwords do not match")
	}
	return CheckPassword(p.New)
}

// SetPassword makes hash the password of a user, "" for none, and reports whether there is that user.
func (c *Config) SetPassword(name, hash string) bool {
	c.Users = slices.Clone(c.Users)
	for i := range c.Users {
		if c.Users[i].Name == name {
			c.Users[i].Password = hash
			return true
		}
	}
	return false
}

// May are the policies of a user: none of one who is not there, or is disabled.
func (c Config) May(name string) Policies {
	u, _ := c.User(name)
	if i := slices.IndexFunc(c.Groups, func(g Group) bool { return g.Name == u.Group }); i >= 0 && !u.Disabled {
		return c.Groups[i].Policy
	}
	return 0
}

// Denied are the policies that a user lacks.
func (c Config) Denied(name string) Policies { return allPolicies &^ c.May(name) }

// MayLogIn reports whether a user may log in by the way that a policy stands for, from that address; the zero Addr
// is a serial line.
func (c Config) MayLogIn(name string, way Policies, from netip.Addr) bool {
	u, _ := c.User(name)
	return c.May(name)&way != 0 && (!from.IsValid() || login.Config{From: u.From}.Allows(from))
}

// HasSecret reports whether anybody's password or key has been set. Before that, whoever comes first
// may choose the password.
func (c Config) HasSecret() bool {
	return len(c.SSHKeys) > 0 || slices.ContainsFunc(c.Users, func(u User) bool { return u.Password != "" })
}

// lanList is the interface list of the default configuration from whose interfaces the first password can be set.
const lanList = "LAN"

// IsLAN reports whether an interface is one of the LAN.
func (c Config) IsLAN(name string) bool {
	network := c.Network()
	set, ok := c.interfaceSets(network.Actual)[lanList]
	return ok && set.Has(network.Actual(name))
}

// hasLAN reports whether any interface may be one of the LAN.
func (c Config) hasLAN() bool {
	return slices.ContainsFunc(c.ListMembers, func(m ListMember) bool { return !m.Disabled && c.IsLAN(m.Interface) })
}

// Owner is the first user of group full who is not disabled.
func (c Config) Owner() string {
	for _, u := range c.Users {
		if u.Group == fullGroup && !u.Disabled {
			return u.Name
		}
	}
	return ""
}

// Unlocked is the user as whom a session at a serial line begins without a login: nobody who may log in there has a password.
// It is "" if a login is needed.
func (c Config) Unlocked() string {
	for _, u := range c.Users {
		if u.Password != "" && c.May(u.Name)&MayLocal != 0 {
			return ""
		}
	}
	return c.Owner()
}

// SameUsers reports whether users, groups and keys are the same in both.
func (c Config) SameUsers(other Config) bool {
	return reflect.DeepEqual(c.Users, other.Users) && reflect.DeepEqual(c.Groups, other.Groups) && reflect.DeepEqual(c.SSHKeys, other.SSHKeys)
}

// checkUsers refuses names that are taken, groups and users that are not there, and a router that nobody could manage.
func (c Config) checkUsers() error {
	for i, g := range defaultGroups() {
		if i >= len(c.Groups) || c.Groups[i].Name != g.Name {
			return fmt.Errorf("failure: group %s is always there: it can be neither removed nor renamed", g.Name)
		}
	}
	if lost := fullNeeds &^ c.Groups[slices.IndexFunc(c.Groups, func(g Group) bool { return g.Name == fullGroup })].Policy; lost != 0 {
		return fmt.Errorf("failure: group %s needs policy %s", fullGroup, strings.Join(lost.names(), ","))
	}
	for i, g := range c.Groups {
		if slices.ContainsFunc(c.Groups[:i], func(o Group) bool { return o.Name == g.Name }) {
			return fmt.Errorf("failure: group with the same name already exists: %s", g.Name)
		}
	}
	for i, u := range c.Users {
		if slices.ContainsFunc(c.Users[:i], func(o User) bool { return o.Name == u.Name }) {
			return fmt.Errorf("failure: user with the same name already exists: %s", u.Name)
		}
		if !slices.ContainsFunc(c.Groups, func(g Group) bool { return g.Name == u.Group }) {
			return fmt.Errorf("/user %d: input does not match any value of group: %s; expected %s", i, u.Group, strings.Join(c.groupNames(), " | "))
		}
	}
	if c.Owner() == "" {
		return fmt.Errorf("failure: at least one user of group %s must be there that is not disabled", fullGroup)
	}
	for i, k := range c.SSHKeys {
		if _, ok := c.User(k.User); !ok {
			return fmt.Errorf("/user ssh-keys %d: input does not match any value of user: %s; expected %s", i, k.User, strings.Join(c.userNames(), " | "))
		}
	}
	return nil
}

func (c Config) groupNames() (names []string) {
	for _, g := range c.Groups {
		names = append(names, g.Name)
	}
	return names
}

func (c Config) userNames() (names []string) {
	for _, u := range c.Users {
		names = append(names, u.Name)
	}
	return names
}

// names are the names of the policies in p.
func (p Policies) names() (names []string) {
	for i, name := range policyNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// policyList is the kind of a set of policies: those of a group, and behind them with "!" those that it lacks.
func policyList() kind[Policies] {
	return kind[Policies]{
		typ: List, list: true,
		accepts: "list of [!]" + strings.Join(policyNames[:], " | "),
		offers: func(*execution, *menu) (all []Choice) {
			for _, name := range policyNames {
				all = append(all, Choice{name, "a policy"})
			}
			return all
		},
		parse: func(s string) (p Policies, err error) {
			for word := range strings.SplitSeq(s, ",") {
				name, not := strings.CutPrefix(word, "!")
				i := slices.Index(policyNames[:], name)
				switch {
				case i < 0 && !slices.Contains(formerPolicies, name):
					return 0, errNoMatch
				case i >= 0 && !not:
					p |= 1 << i
				}
			}
			return p, nil
		},
		format: func(p Policies) string {
			names := p.names()
			for _, lacks := range (allPolicies &^ p).names() {
				names = append(names, "!"+lacks)
			}
			return strings.Join(names, ",")
		},
	}
}

// userName is the kind of a user's name: without "+", behind which SSH has parameters, and ":", which Basic authentication ends it with.
func userName() kind[string] {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return kind[string]{
		accepts: fmt.Sprintf("name: 1..%d of a-z, A-Z, 0-9 and, behind the first, *_.@-", login.MaxUser),
		parse: func(s string) (string, error) {
			if s == "" || len(s) > login.MaxUser || !strings.Contains(first, s[:1]) || strings.Trim(s, first+"*_.@-") != "" {
				return "", errNoMatch
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// knownName is the name of something that there is, which checkUsers checks.
func knownName(what string, names func(Config) []string) kind[string] {
	k := userName()
	k.accepts = "name of a " + what
	k.offers = func(x *execution, _ *menu) (all []Choice) {
		for _, name := range names(x.cfg) {
			all = append(all, Choice{name, "a " + what})
		}
		return all
	}
	return k
}

func userGroupMenu() *menu {
	return &menu{
		path: userGroupPath, help: "what users may do", ifUnknown: DisableLogins,
		commands: plainCommands(),
		needs:    func(l Live) bool { return l.HashPassword != nil },
		items:    itemLists[groupItems], initial: Config{Groups: defaultGroups()}.groupNames(),
		columns: []column{{"name", 16}, {"policy", 0}},
		properties: renaming(bindItems(groups,
			prop("name", userName(), "", "name of the group", func(g *Group) *string { return &g.Name }),
			prop("policy", policyList(), policyList().format(0), "what its users may do", func(g *Group) *Policies { return &g.Policy }),
			comment(func(g *Group) *string { return &g.Comment }),
		), func(c *Config, name string) bool { return slices.Contains(c.groupNames(), name) },
			func(c *Config, from, to string) {
				for i := range c.Users {
					if c.Users[i].Group == from {
						c.Users[i].Group = to
					}
				}
			}),
	}
}

func userMenu() *menu {
	properties := renaming(bindItems(users,
		prop("name", userName(), "", "name to log in with", func(u *User) *string { return &u.Name }),
		prop("group", knownName("group", Config.groupNames), "", "what the user may do", func(u *User) *string { return &u.Group }),
	), func(c *Config, name string) bool { return slices.Contains(c.userNames(), name) },
		func(c *Config, from, to string) {
			for i := range c.SSHKeys {
				if c.SSHKeys[i].User == from {
					c.SSHKeys[i].User = to
				}
			}
		})
	return &menu{
		path: userMenuPath, help: "users that can log in", ifUnknown: DisableLogins,
		commands: commandsLike(listCommands, "move"), legend: legendItem, flags: flagsItem,
		needs: func(l Live) bool { return l.HashPassword != nil },
		items: itemLists[userItems], initial: []string{Admin},
		rows:    (*execution).userRows,
		columns: []column{{"name", 16}, {"group", 10}, {"address", 18}, {"last-logged-in", 0}}, rare: []string{"address", "last-logged-in"},
		readOnly: []readOnly{{name: "last-logged-in", help: "when the user has logged in last, since the router started"}},
		properties: append(append(properties, userPassword()...), bindItems(users,
			prop("address", unsetMeans(listOf(network(), login.MaxPrefixes), "all"), "", "networks from which the user may log in",
				func(u *User) *[]netip.Prefix { return &u.From }),
			disabled(func(u *User) *bool { return &u.Disabled }),
			comment(func(u *User) *string { return &u.Comment }),
		)...),
	}
}

// userPassword is the properties of a user's password, which need not be there.
func userPassword() []property {
	all := passwordProperties(func(c *Config, i int) *string { return &c.Users[i].Password }, password(), "password to log in with; it is never shown", "no password")
	check := all[1].set
	all[1].unset = all[0].unset
	all[1].set = func(c *Config, item int, value string) error {
		if value == "" {
			c.Users[item].Password = ""
		}
		return check(c, item, value)
	}
	return all
}

// userRows are the users.
func (x *execution) userRows() ([]row, error) {
	rows := x.configured(x.menu(userMenuPath))
	if x.live.LastLogin == nil || x.live.Now == nil {
		return rows, nil
	}
	for i := range rows {
		if ago, ok := x.live.LastLogin(x.cfg.Users[i].Name); ok {
			rows[i].pairs = append(rows[i].pairs, textPair("last-logged-in", x.moment(ago)))
		}
	}
	return rows, nil
}

// moment is the time of day that was so long ago.
func (x *execution) moment(ago time.Duration) string {
	return x.live.Now().Add(-ago).UTC().Add(x.cfg.TimeZone).Format(time.DateTime)
}

func sshKeysMenu() *menu {
	return &menu{
		path: userSSHKeysPath, help: "public keys that users log in with by SSH, which then takes no password of theirs", ifUnknown: DisableLogins,
		commands: commandsLike(plainCommands(), "set unset comment", importKeyCommand),
		items:    itemLists[sshKeyItems],
		rows:     (*execution).sshKeyRows,
		columns:  []column{{"user", 8}, {"info", 16}, {"fingerprint", 0}}, rare: []string{"info"},
		readOnly: []readOnly{
			{name: "key-type", help: "kind of key"},
			{name: "bits", help: "length of the key"},
			{name: "info", help: "what stands behind the key: its owner"},
			{name: "fingerprint", help: "hash of the key, as ssh-keygen -l shows it"},
		},
		properties: bindItems(sshKeys,
			prop("user", knownName("user", Config.userNames), "", "whose key it is", func(k *ssh.Key) *string { return &k.User }),
			prop("key", publicKey(), "", "the line of a file .pub: ssh-ed25519 or ssh-rsa, the key, and its owner",
				func(k *ssh.Key) *ssh.PublicKey { return &k.Public }),
		),
	}
}

// keyArguments are those of /user ssh-keys import.
type keyArguments struct{ user, file, owner string }

var importKeyCommand = command{name: "import", help: "take a key from a file that was uploaded", able: func(l Live) bool { return l.ReadFile != nil },
	arguments: []argument{
		option(prop("user", knownName("user", Config.userNames), "", "whose key it is", func(o *options) *string { return &o.key.user })),
		option(prop("public-key-file", fileName(), "", "file of /file with the line of a file .pub", func(o *options) *string { return &o.key.file })),
		option(prop("key-owner", optional(text(1, 64), "as in the file"), "", "name that is kept with the key", func(o *options) *string { return &o.key.owner })),
	},
	run: (*execution).importKey}

// importKey adds the key in a file. The error of one that is none is RouterOS's.
func (x *execution) importKey(m *menu, a arguments) error {
	content, err := x.live.ReadFile(a.key.file)
	if err != nil {
		return err
	}
	line := strings.TrimSpace(content)
	key, err := ssh.ParseKey(line)
	if err == nil && a.key.owner != "" {
		key.Owner = ""
		key, err = ssh.ParseKey(key.String() + " " + a.key.owner)
	}
	if err == nil && strings.ContainsAny(line, "\r\n") {
		err = errors.New("expected one line")
	}
	if err != nil {
		return fmt.Errorf("unable to load key file (wrong format or bad passphrase)! %s: %w", Printable(a.key.file), err)
	}
	i, err := x.append(m)
	if err != nil {
		return err
	}
	x.cfg.SSHKeys[i] = ssh.Key{User: a.key.user, Public: key}
	return x.checkCount(m)
}

func sshKeys(c *Config) *[]ssh.Key { return &c.SSHKeys }

// publicKey is a key as OpenSSH writes it.
func publicKey() kind[ssh.PublicKey] {
	return kind[ssh.PublicKey]{
		accepts: "a line such as \"" + ssh.KeyType + " AAAA... name\" or \"" + ssh.RSAType + " AAAA... name\"",
		parse: func(s string) (ssh.PublicKey, error) {
			k, err := ssh.ParseKey(s)
			if err != nil {
				return k, match.Refusal(err.Error())
			}
			return k, nil
		},
		format: ssh.PublicKey.String,
	}
}

// sshKeyRows are the keys.
func (x *execution) sshKeyRows() ([]row, error) {
	rows := x.configured(x.menu(userSSHKeysPath))
	for i := range rows {
		k := x.cfg.SSHKeys[i].Public
		rows[i].pairs = append(rows[i].pairs, wordPair("key-type", strings.TrimPrefix(k.Type(), "ssh-")), numberPair("bits", k.Bits()))
		if k.Owner != "" {
			rows[i].pairs = append(rows[i].pairs, textPair("info", k.Owner))
		}
		rows[i].pairs = append(rows[i].pairs, textPair("fingerprint", k.Fingerprint()))
	}
	return rows, nil
}

// usersWithKeys is the list of users: one that is removed loses his keys.
func usersWithKeys() *items {
	l := atMost(maxUsers, itemsOf(userItems, users, cloneUser))
	l.removing = func(c *Config, i int) {
		for k := len(c.SSHKeys) - 1; k >= 0; k-- {
			if c.SSHKeys[k].User == c.Users[i].Name {
				c.SSHKeys = removed(c.SSHKeys, k)
				if k < len(c.ids[sshKeyItems]) {
					c.ids[sshKeyItems] = removed(c.ids[sshKeyItems], k)
				}
			}
		}
	}
	return l
}

// salvageUser makes of a line of /user that was not understood what there must be for somebody to log in at a serial line: the
// user and the password, if the line says that he is of group full and not disabled. A later version may have written
// the line, with a word that this one does not know: such a word may have kept him out too, so he logs in from no network. Of other users nothing is used, as the word may have kept them out: then
// user is "". ok is false if it is not understood whose line it is, and what the password is.
func (s *Session) salvageUser(cfg Config, line importLine) (next Config, user string, ok bool) {
	statements, err := parse(line.text, line.first)
	if err != nil || len(statements) != 1 {
		return cfg, "", false
	}
	needs := []string{"name", "group", "password-hash", "disabled"}
	for _, allKnown := range []bool{true, false} { // of the words that are known, one may have a value that is not
		x := s.execution(cfg, Live{})
		m, c, rest, err := x.locate(statements[0])
		if err != nil || m.path != userMenuPath || c == nil || c.name != addItem.name && c.name != setItems.name {
			return cfg, "", false
		}
		var used []word
		dropped := false // a word that may have been a restriction
		for i, w := range rest {
			_, known := m.property(w.key)
			switch {
			case !w.assigned && i == 0 && c.name == setItems.name && w.plain():
				user = w.text
				used = append(used, w)
			case w.assigned && w.find == nil && known && (allKnown || slices.Contains(needs, w.key)):
				if w.key == "name" {
					user = w.text
				}
				used = append(used, w)
			case slices.ContainsFunc([]string{"pass", "hash", "secret", "key"}, func(s string) bool { return strings.Contains(w.key, s) }):
				return cfg, "", false // it may be the password
			case w.key != "comment":
				dropped = true
			}
		}
		if len(used) > 1 || c.name == addItem.name { // else there is nothing to set
			a, err := x.arguments(m, *c, used)
			if err != nil || c.run(x, m, a) != nil {
				continue
			}
		}
		u, there := x.cfg.User(user)
		if there && u.Group == fullGroup && !u.Disabled {
			x.cfg.borrowed = nil
			if dropped {
				x.cfg.Users = slices.Clone(x.cfg.Users)
				i := slices.IndexFunc(x.cfg.Users, func(u User) bool { return u.Name == user })
				x.cfg.Users[i].From = []netip.Prefix{noNetwork}
			}
			return x.cfg, user, true
		}
		return cfg, "", there
	}
	return cfg, "", false
}

// noNetwork has no host that could log in.
var noNetwork = netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32)

// salvageGroup makes of a line that sets a group of users and was not understood that the group may do nothing, but for what full
// cannot lose: its policies of before the line, or its defaults, may be more. If it is not understood which group that is, it is all.
func (s *Session) salvageGroup(cfg Config, line importLine) Config {
	which := ""
	if statements, err := parse(line.text, line.first); err == nil && len(statements) == 1 {
		x := s.execution(cfg, Live{})
		m, c, rest, err := x.locate(statements[0])
		if err != nil || m.path != userGroupPath || c == nil || c.name != setItems.name {
			return cfg
		}
		if len(rest) > 0 && rest[0].plain() && slices.Contains(cfg.groupNames(), rest[0].text) {
			which = rest[0].text
		}
	} else if words := strings.Fields(strings.ReplaceAll(line.path(), "/", " ")); len(words) < 2 || strings.Join(words[:2], " ") != userGroupPath {
		return cfg
	}
	cfg.Groups = slices.Clone(cfg.Groups)
	for i := range cfg.Groups {
		switch g := &cfg.Groups[i]; {
		case which != "" && g.Name != which:
		case g.Name == fullGroup:
			g.Policy &= fullNeeds
		default:
			g.Policy = 0
		}
	}
	return cfg
}

// MendUsers makes a configuration one that can be used, of which lines about users were not understood: a user whose group is not
// there is gone, as is a key whose user is not, and there is a user of group full who is not disabled. With lock, users without a
// password get the hash never, which is that of no password.
func (c *Config) MendUsers(lock bool, never string) (gone []string) {
	c.Users, c.SSHKeys = slices.Clone(c.Users), slices.Clone(c.SSHKeys)
	c.Users = slices.DeleteFunc(c.Users, func(u User) bool {
		unknown := !slices.Contains(c.groupNames(), u.Group)
		if unknown {
			gone = append(gone, u.Name)
		}
		return unknown
	})
	c.SSHKeys = slices.DeleteFunc(c.SSHKeys, func(k ssh.Key) bool { _, there := c.User(k.User); return !there })
	c.ids[userItems], c.ids[sshKeyItems] = nil, nil
	if c.Owner() == "" {
		c.Users = slices.DeleteFunc(c.Users, func(u User) bool { return u.Name == Admin })
		c.Users = slices.Insert(c.Users, 0, User{Name: Admin, Group: fullGroup, Password: never})
	}
	for i := range c.Users {
		if lock && c.Users[i].Password == "" {
			c.Users[i].Password = never
		}
	}
	return gone
}

// Locked reports whether nobody can log in at a serial line: see MendUsers.
func (c Config) Locked(never string) bool {
	return !slices.ContainsFunc(c.Users, func(u User) bool { return u.Password != never && c.May(u.Name)&MayLocal != 0 })
}

// isUsers reports whether m is about users: who changes it could give himself any policy.
func (m *menu) isUsers() bool {
	return m.path == userMenuPath || strings.HasPrefix(m.path, userMenuPath+" ")
}

// Needs are the policies that a user needs for the request of a result, when it is carried out too: a question may stand between.
func (r Result) Needs() Policies {
	switch {
	case r.Upgrade.Force && r.Request == Upgrade:
		// An older version may know nothing of users, of what they may do, or of the password.
		return needed(r.Request) | MayPolicy
	case r.Import.Replace && r.Request == Import:
		return needed(r.Request) | MayPolicy // the keys of users go
	}
	return needed(r.Request)
}

// needed is Needs, without arguments.
func needed(r Request) Policies {
	switch r {
	case Reboot, Shutdown:
		return MayReboot
	case ResetConfiguration:
		return MayReboot | MayWrite | MayPolicy
	case Upgrade:
		return MayReboot | MayWrite
	case Ping, Traceroute, CheckForUpdates:
		return MayTest
	case ChangePassword:
		return MayPassword
	case SetClock, Import, Edit:
		return MayWrite
	}
	return 0
}

// permission is the policies that a command of m needs.
func (c command) permission(m *menu) Policies {
	need := c.policy
	switch {
	case need != 0:
	case c.shows:
		need = MayRead
	default:
		need = MayWrite
	}
	if m.isUsers() && !c.shows {
		need |= MayPolicy
	}
	return need
}

// permit is the error of a command that the user may not run, or nil.
func (x *execution) permit(m *menu, c command) error {
	if c.permission(m)&x.live.Denied != 0 {
		return ErrNotPermitted
	}
	return nil
}
