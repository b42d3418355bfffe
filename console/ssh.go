package console

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/ssh"
)

// This file has the menus of what the router is managed by over the network.
// https://help.mikrotik.com/docs/spaces/ROS/pages/103841820/Services
// https://help.mikrotik.com/docs/spaces/ROS/pages/132350014/SSH

const (
	serviceMenuPath = "ip service"
	// sshService is its only row.
	sshService = "ssh"
)

func serviceMenu() *menu {
	return &menu{
		path: serviceMenuPath, help: "ways to manage the router over the network", ifUnknown: DisableSSH,
		commands: commandsLike(listCommands, "add remove move comment find", printLive), single: sshService,
		rows: (*execution).serviceRows, legend: "Flags: X - disabled, I - invalid", flags: []string{"XI"},
		columns: []column{{"name", 10}, {"port", 5}, {"proto", 5}, {"address", 18}, {"max-sessions", 0}}, rare: []string{"address"},
		readOnly: []readOnly{
			{name: "name", help: "name of the service"},
			{name: "proto", help: "protocol below it"},
		},
		properties: bind(func(c *Config, _ int) *ssh.Config { return &c.SSH },
			prop("port", integer[uint16](1, 65535), "22", "port that it listens on",
				func(s *ssh.Config) *uint16 { return &s.Port }),
			prop("address", unsetMeans(listOf(network(), ssh.MaxPrefixes), "all"), "", "networks of those who may connect, besides what the firewall says",
				func(s *ssh.Config) *[]netip.Prefix { return &s.From }),
			prop("max-sessions", integer(1, ssh.MaxSessions), "4", "connections at once that have logged in",
				func(s *ssh.Config) *int { return &s.MaxSessions }),
			prop("disabled", boolean(), "yes", "whether nobody can connect",
				func(s *ssh.Config) *bool { return &s.Disabled }),
		),
	}
}

func sshKeysMenu() *menu {
	return &menu{
		path: "user ssh-keys", help: "public keys that users log in with by SSH, which then takes no password of theirs", ifUnknown: DisableSSH,
		commands: commandsLike(plainCommands(), "set unset comment"),
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
			prop("user", enum[string](Admin), "", "whose key it is", func(k *ssh.Key) *string { return &k.User }),
			prop("key", publicKey(), "", "the line of a file .pub: ssh-ed25519, the key, and its owner",
				func(k *ssh.Key) *ssh.PublicKey { return &k.Public }),
		),
	}
}

func sshKeys(c *Config) *[]ssh.Key { return &c.SSHKeys }

// publicKey is a key as OpenSSH writes it.
func publicKey() kind[ssh.PublicKey] {
	return kind[ssh.PublicKey]{
		accepts: "a line such as \"" + ssh.KeyType + " AAAA... name\"",
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

// serviceRows are the services. One that nobody can log in to does not listen, and is invalid.
func (x *execution) serviceRows() ([]row, error) {
	r := row{id: onlyID, comment: ExposedSSH(x.cfg, x.live.WAN), pairs: []Pair{textPair("name", sshService), wordPair("proto", "tcp")}}
	for _, p := range x.menu(serviceMenuPath).properties {
		if v := p.value(&x.cfg, 0); p.name != "disabled" && v.text != "" {
			r.pairs = append(r.pairs, Pair{p.name, v})
		}
	}
	switch {
	case x.cfg.SSH.Disabled:
		r.flags = flagDisabled
	case !x.cfg.SSHOpen():
		r.flags = flagInvalid
	}
	return []row{r}, nil
}

// sshKeyRows are the keys.
func (x *execution) sshKeyRows() ([]row, error) {
	rows := x.configured(x.menu("user ssh-keys"))
	for i := range rows {
		k := x.cfg.SSHKeys[i].Public
		rows[i].pairs = append(rows[i].pairs, wordPair("key-type", "ed25519"), numberPair("bits", 8*ssh.KeySize))
		if k.Owner != "" {
			rows[i].pairs = append(rows[i].pairs, textPair("info", k.Owner))
		}
		rows[i].pairs = append(rows[i].pairs, textPair("fingerprint", k.Fingerprint()))
	}
	return rows, nil
}

// SSHOpen reports whether the SSH server listens: somebody can log in, by a password or a key.
func (cfg Config) SSHOpen() bool {
	return !cfg.SSH.Disabled && (cfg.AdminPassword != "" || len(cfg.SSHKeys) > 0)
}

// ExposedSSH returns a warning if anyone outside (openFrom) can reach the SSH server, else "". A list of
// networks (address=) is a protection, unless one of them is all addresses.
func ExposedSSH(c Config, wanPort string) string {
	all := func(p netip.Prefix) bool { return p.Bits() == 0 }
	if !c.SSHOpen() || len(c.SSH.From) > 0 && !slices.ContainsFunc(c.SSH.From, all) {
		return ""
	}
	from := openFrom(c, wanPort, c.SSH.Port)
	if from == "" {
		return ""
	}
	return fmt.Sprintf("warning: anyone who reaches %s can try to log in: no filter rule of chain=input drops "+
		"dst-port=%d from there, and address= of /ip service ssh keeps nobody out", from, c.SSH.Port)
}
