//go:build !small

package console

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/match"
)

// This file has the services over TLS, and their certificates.
// https://help.mikrotik.com/docs/spaces/ROS/pages/2555969/Certificates

const (
	certificatePath = "certificate"
	// ownCertificate is the name of the certificate that a service gets which is enabled without one, and ownDays for how long that is
	// made: nobody renews what a household has forgotten.
	ownCertificate = "router"
	ownDays        = 3650
)

var (
	tlsServices = []NetworkService{
		{"api-ssl", "8729", func(c *Config) *login.Config { return &c.APISSL }, MayAPI, false, false, true},
		{"www-ssl", "443", func(c *Config) *login.Config { return &c.WWWSSL }, MayWeb | MayREST, false, true, true},
	}
	absentTLS []string
)

const (
	absentOfServices     = ""
	noTLS                = ""
	absentCertificate    = ""
	absentOfCertificates = "country digest-algorithm=sha256 key-size=prime256v1 key-usage=* locality organization state trusted=* unit"
)

// serviceCertificate is the property of the services over TLS. Those without have none.
func serviceCertificate() []property {
	name := optional(text(0, 64), "none")
	name.accepts = "name of a certificate, or none"
	name.offers = func(x *execution, _ *menu) (all []Choice) {
		for _, c := range x.cfg.Certificates {
			all = append(all, Choice{c.Name, "a certificate"})
		}
		return append(all, Choice{"none", "the router's own, which is made when the service is enabled"})
	}
	parse := name.parse
	name.parse = func(s string) (string, error) {
		if s == "none" {
			s = ""
		}
		return parse(s)
	}
	return bind(func(c *Config, i int) *login.Config { return NetworkServices[i].of(c) },
		prop("certificate", name, "", "certificate by which clients know the router; only of services over TLS",
			func(s *login.Config) *string { return &s.Certificate }))
}

// altName is one of certificate.Certificate.AltNames.
func altName() kind[string] {
	return kind[string]{accepts: "DNS:name or IP:address", format: func(v string) string { return v },
		parse: func(s string) (string, error) {
			v, err := certificate.ParseAltName(s)
			if err != nil {
				return "", match.Refusal(err.Error())
			}
			return v, nil
		}}
}

// encoded is the kind of a certificate or a key: PEM, or the base64 that is kept. Errors show nothing of it.
func encoded(accepts string, parse func(string) (string, error)) kind[string] {
	return kind[string]{accepts: accepts, unset: "none", format: func(v string) string { return v }, parse: parse}
}

func certificateMenus() []*menu {
	properties := renaming(bindItems(certificates,
		prop("name", text(1, 64), "", "name of the certificate", func(c *certificate.Certificate) *string { return &c.Name }),
		prop("common-name", text(0, 64), "", "whose certificate it is", func(c *certificate.Certificate) *string { return &c.CommonName }),
		prop("subject-alt-name", listOf(altName(), certificate.MaxAltNames), "", "names and addresses that clients ask for: DNS:router.lan,IP:192.168.0.1",
			func(c *certificate.Certificate) *[]string { return &c.AltNames }),
		prop("days-valid", integer(1, 36500), "365", "for how many days sign makes it", func(c *certificate.Certificate) *int { return &c.Days }),
		prop("certificate", encoded("PEM, or base64", certificate.ParseChain), "", "a certificate from elsewhere, and those of the authorities between",
			func(c *certificate.Certificate) *string { return &c.Chain }),
		prop("key", encoded("PEM without a passphrase, or base64", certificate.ParseKey), "", "the key of the certificate; it is never shown",
			func(c *certificate.Certificate) *string { return &c.Key }),
		comment(func(c *certificate.Certificate) *string { return &c.Comment }),
	), func(c *Config, name string) bool {
		return slices.ContainsFunc(c.Certificates, func(o certificate.Certificate) bool { return o.Name == name })
	}, func(c *Config, from, to string) {
		for _, s := range tlsServices {
			if s.of(c).Certificate == from {
				s.of(c).Certificate = to
			}
		}
	})
	for i := range properties {
		p := &properties[i]
		if p.name != "certificate" && p.name != "key" {
			continue
		}
		p.sensitive = true
		set := p.set
		p.set = func(c *Config, item int, value string) error { // valueError would show the value
			err := set(c, item, value)
			if err == nil {
				return nil
			}
			parse := certificate.ParseChain
			if p.name == "key" {
				parse = certificate.ParseKey
			}
			_, why := parse(value)
			return fmt.Errorf("invalid value for argument %s; expected %s: %w", p.name, p.accepts, why)
		}
	}
	sign := itemCommand("sign", "make a key, and a certificate that it signs itself; one that is there is replaced", (*execution).signCertificates)
	itself := kind[string]{accepts: "none", format: func(v string) string { return v }, parse: func(s string) (string, error) {
		if s == "none" {
			return s, nil
		}
		return "", match.Refusal("there is no authority here, and a certificate signs itself; one that another has signed is given by certificate= and key=")
	}}
	sign.arguments = append(sign.arguments, option(prop("ca", itself, "none", "which authority signs it: there is none", func(*options) *string { return new(string) })))
	export := itemCommand("export-certificate", "show the certificate as PEM, for clients that shall trust it; without the key", (*execution).exportCertificates)
	export.shows = true
	return []*menu{{
		path: certificatePath, help: "certificates by which clients know the router", ifUnknown: DisableLogins,
		needs:    func(l Live) bool { return l.MakeCertificate != nil },
		commands: commandsLike(plainCommands(), "", sign, export),
		items:    itemLists[certificateItems],
		rows:     (*execution).certificateRows,
		legend:   "Flags: K - private-key, E - expired", flags: []string{"K", "E"},
		columns: []column{{"name", 12}, {"common-name", 16}, {"subject-alt-name", 24}, {"fingerprint", 0}}, rare: []string{"subject-alt-name"},
		readOnly: []readOnly{
			{name: "issuer", help: "who has signed it"},
			{name: "key-type", help: "kind of key"},
			{name: "key-size", help: "bits of the key, or its curve"},
			{name: "invalid-before", help: "from when clients take it"},
			{name: "invalid-after", help: "until when clients take it"},
			{name: "fingerprint", help: "SHA-256 of the certificate, as clients can show it"},
		},
		properties: properties,
	}}
}

// certificateRows are the certificates: of one that there is, what is in it.
func (x *execution) certificateRows() ([]row, error) {
	rows := x.configured(x.menu(certificatePath))
	for i := range rows {
		c := x.cfg.Certificates[i]
		info, err := c.Info()
		if err != nil {
			continue // there is none yet
		}
		zoned := func(t time.Time) string { return t.UTC().Add(x.cfg.TimeZone).Format(time.DateTime) }
		set := func(name, value string) {
			if value != "" && rows[i].value(name) == "" {
				rows[i].pairs = append(rows[i].pairs, textPair(name, value))
			}
		}
		set("common-name", Printable(info.CommonName))
		set("subject-alt-name", Printable(strings.Join(info.AltNames, ",")))
		set("issuer", Printable(info.Issuer))
		set("key-type", info.KeyType)
		set("key-size", info.KeySize)
		set("invalid-before", zoned(info.From))
		set("invalid-after", zoned(info.To))
		set("fingerprint", info.Fingerprint)
		rows[i].flags |= flagPrivateKey
		if x.live.Now != nil && x.live.Now().After(info.To) {
			rows[i].flags |= flagExpired
		}
	}
	return rows, nil
}

// signCertificates makes the certificates of items.
func (x *execution) signCertificates(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	for _, i := range indices {
		x.own(m)
		if err := x.cfg.makeCertificate(x.live, i); err != nil {
			return err
		}
	}
	return err
}

// own makes the list of m one that may be changed in place.
func (x *execution) own(m *menu) { m.items.own(&x.cfg) }

func (c *Config) makeCertificate(live Live, i int) error {
	made, err := live.MakeCertificate(c.Certificates[i])
	if err != nil {
		return fmt.Errorf("failure: %w", err)
	}
	c.Certificates[i] = made
	return nil
}

func (x *execution) exportCertificates(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	for _, i := range indices {
		if x.cfg.Certificates[i].Chain == "" {
			return fmt.Errorf("failure: certificate %s is not signed; expected sign first", x.cfg.Certificates[i].Name)
		}
		x.out.WriteString(x.cfg.Certificates[i].PEM())
	}
	return err
}

// completeCertificates gives each service over TLS that is enabled a certificate: the router's own if none is named, and one that is
// named and not yet made is made.
func (c *Config) completeCertificates(live Live) error {
	if live.MakeCertificate == nil || live.Denied&MayWrite != 0 {
		return nil
	}
	for _, s := range tlsServices {
		if s.of(c).Disabled || s.TLS(*c).Key != "" {
			continue
		}
		named := func() int {
			return slices.IndexFunc(c.Certificates, func(o certificate.Certificate) bool { return o.Name == s.of(c).Certificate })
		}
		if s.of(c).Certificate == "" {
			s.of(c).Certificate = ownCertificate
			if named() < 0 {
				itemLists[certificateItems].add(c)
				c.Certificates[len(c.Certificates)-1] = certificate.Certificate{
					Name: ownCertificate, CommonName: c.Identity, AltNames: c.ownAltNames(), Days: ownDays,
				}
			}
		}
		i := named()
		if i < 0 || c.Certificates[i].Key != "" || c.Certificates[i].Chain != "" {
			continue // which checkCertificates refuses, or there was one already
		}
		itemLists[certificateItems].clone(c)
		if err := c.makeCertificate(live, i); err != nil {
			return err
		}
	}
	return nil
}

// ownAltNames are the names and addresses by which hosts of the LAN ask for the router.
func (c *Config) ownAltNames() (all []string) {
	room := maxCertificateWords - len(ownCertificate) - len(c.Identity)
	add := func(name string) {
		if name != "" && len(all) < certificate.MaxAltNames && len(name) < room && !slices.Contains(all, name) {
			all, room = append(all, name), room-len(name)-1
		}
	}
	add(certificate.DNSName(c.Identity))
	own := map[netip.Addr]bool{}
	for _, a := range c.Addresses {
		if !a.Disabled && a.Address.Addr().IsPrivate() {
			add("IP:" + a.Address.Addr().String())
			own[a.Address.Addr()] = true
		}
	}
	for _, n := range c.DNSServer.Static {
		if !n.Disabled && own[n.Address] {
			add(certificate.DNSName(n.Name))
		}
	}
	return all
}

// keepCertificates gives c the keys of old for certificates that are to be made as old's were: lines of an export have no keys.
func (c *Config) keepCertificates(old Config) {
	for i, t := range c.Certificates {
		for _, o := range old.Certificates {
			if t.Key == "" && t.Chain == "" && t.Name == o.Name && t.CommonName == o.CommonName && reflect.DeepEqual(t.AltNames, o.AltNames) {
				itemLists[certificateItems].clone(c)
				c.Certificates[i].Chain, c.Certificates[i].Key = o.Chain, o.Key
			}
		}
	}
}

// maxCertificateWords bounds the names of a certificate, so that a line of the configuration holds it.
const maxCertificateWords = 512

// checkCertificates refuses names that are taken, or not there, and keys that are not those of their certificates.
func (c Config) checkCertificates() error {
	for i, t := range c.Certificates {
		if slices.ContainsFunc(c.Certificates[:i], func(o certificate.Certificate) bool { return o.Name == t.Name }) {
			return fmt.Errorf("failure: certificate with the same name already exists: %s", t.Name)
		}
		if len(t.Name)+len(t.CommonName)+len(t.Comment)+len(strings.Join(t.AltNames, ",")) > maxCertificateWords {
			return fmt.Errorf("/certificate %d: failure: name, common-name, subject-alt-name and comment have more than %d bytes together", i, maxCertificateWords)
		}
		if err := t.Check(); err != nil {
			return fmt.Errorf("/certificate %d: failure: %w", i, err)
		}
	}
	for _, s := range NetworkServices {
		name := s.of(&c).Certificate
		switch {
		case name == "":
		case !s.tls:
			return fmt.Errorf("/ip service %s: failure: it has no TLS, and so no certificate; expected one of %s", s.Name, strings.Join(serviceNames(tlsServices), " | "))
		case !slices.ContainsFunc(c.Certificates, func(t certificate.Certificate) bool { return t.Name == name }):
			return fmt.Errorf("/ip service %s: input does not match any value of certificate: %s; expected %s", s.Name, Printable(name),
				strings.Join(append(certificateNames(c.Certificates), "none"), " | "))
		}
	}
	return nil
}

func serviceNames(all []NetworkService) (names []string) {
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

func certificateNames(all []certificate.Certificate) (names []string) {
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}
