package firewall

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/postern-router/postern/match"
)

// TestRuleEqual changes each property of a rule, so that none of them is forgotten where rules are compared.
func TestRuleEqual(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	one := &Rule{}
	assert.True(t, one.Equal(&Rule{}))
	assert.Equal(t, one.digest(), (&Rule{}).digest())
	seen := map[digest]string{one.digest(): "none"}
	fields := reflect.TypeFor[Rule]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		var values []any
		switch reflect.New(fields.Field(i).Type).Elem().Interface().(type) {
		case string:
			values = []any{"x"}
		case bool:
			values = []any{true}
		case time.Duration:
			values = []any{time.Second}
		case match.Addresses:
			values = []any{match.Addresses{From: address, To: address}, match.Addresses{From: address, To: address, Not: true}}
		case match.Ports:
			values = []any{match.Ports{Ranges: []match.PortRange{{From: 1, To: 2}}}, match.Ports{Ranges: []match.PortRange{{From: 1, To: 3}}}}
		case [len(Matchers)]string:
			for m := range Matchers {
				extra := [len(Matchers)]string{}
				extra[m] = "x"
				values = append(values, extra)
			}
		default:
			t.Fatalf("%s has a type that this test does not know", name)
		}
		for _, value := range values {
			other := &Rule{}
			reflect.ValueOf(other).Elem().Field(i).Set(reflect.ValueOf(value))
			assert.False(t, one.Equal(other), name)
			assert.False(t, other.Equal(one), name)
			assert.True(t, other.Equal(other), name)
			if name == "Comment" || name == "Log" || name == "LogPrefix" {
				assert.Equal(t, one.digest(), other.digest(), name)
				continue
			}
			assert.Empty(t, seen[other.digest()], name)
			seen[other.digest()] = name
		}
	}
}

func TestConfigEqual(t *testing.T) {
	rule := Rule{Chain: "input", Action: "drop"}
	config := func() Config {
		return Config{Filter: []Rule{rule}, NAT: []Rule{{Chain: "srcnat", Action: "masquerade"}}, Lists: map[string]Interfaces{"LAN": {Names: []string{"ether2"}}}}
	}
	assert.True(t, config().Equal(config()))
	for name, change := range map[string]func(*Config){
		"a rule":          func(c *Config) { c.Filter[0].Disabled = true },
		"one rule more":   func(c *Config) { c.Mangle = []Rule{rule} },
		"a list":          func(c *Config) { c.Lists["LAN"] = Interfaces{} },
		"clamp":           func(c *Config) { c.Clamp = []string{"pppoe-out1"} },
		"an address list": func(c *Config) { c.AddressLists = map[string][]match.Addresses{"x": nil} },
	} {
		other := config()
		change(&other)
		assert.False(t, config().Equal(other), name)
	}
}
