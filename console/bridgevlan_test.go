package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBridgeVLANScreens(t *testing.T) {
	for _, test := range []struct{ name, screen string }{
		{"what there is", `[admin@postern] > interface bridge vlan add bridge=bridge1 vlan-ids=30-40 tagged=ether2 comment=servers
[admin@postern] > interface bridge vlan add bridge=bridge1 vlan-ids=50,60-69 tagged=bridge1,ether2 untagged=usb1 disabled=yes
[admin@postern] > interface bridge vlan print
Flags: X - disabled, D - dynamic
 #   BRIDGE           VLAN-IDS       CURRENT-TAGGED         CURRENT-UNTAGGED
 0 D ;;; added by pvid
     bridge1          1                                     bridge1,ether2
 1 D ;;; added by vlan on bridge
     bridge1          20             bridge1
 2   ;;; servers
     bridge1          30-40          ether2                 ether1
 3 X bridge1          50,60-69
[admin@postern] > interface bridge vlan print detail where tagged~"ether2"
Flags: X - disabled, D - dynamic
 0   ;;; servers
     bridge=bridge1 vlan-ids=30-40 tagged=ether2 current-tagged=ether2
     current-untagged=ether1
 1 X bridge=bridge1 vlan-ids=50,60-69 tagged=bridge1,ether2 untagged=usb1
[admin@postern] > interface ethernet set ether2 name=trunk
[admin@postern] > interface bridge set bridge1 name=switch
[admin@postern] > interface bridge vlan export
/interface bridge vlan
add bridge=switch comment=servers tagged=trunk vlan-ids=30-40
add bridge=switch disabled=yes tagged=switch,trunk untagged=usb1 \
    vlan-ids=50,60-69
[admin@postern] > interface bridge vlan remove 0,1
[admin@postern] > interface bridge vlan export
`},
		{"what cannot be", `[admin@postern] > interface bridge vlan add bridge=bridge1 tagged=ether2
missing value(s) of argument(s) vlan-ids
[admin@postern] > interface bridge vlan add bridge=bridge1 vlan-ids=0
invalid value for argument vlan-ids; expected 1..4094 or a range (10-20), or a list of them: at most 128, not "0"
[admin@postern] > interface bridge vlan add bridge=bridge1 vlan-ids=20-10
invalid value for argument vlan-ids; expected 1..4094 or a range (10-20), or a list of them: at most 128, not "20-10"
[admin@postern] > interface bridge add name=b frame-types=admit-only
ambiguous value of frame-types, more than one possible value matches input; expected admit-only-untagged-and-priority-tagged | admit-only-vlan-tagged, not "admit-only"
[admin@postern] > interface bridge add name=b pvid=4095
value of pvid out of range (1..4094)
`},
		{"what has no effect", `[admin@postern] > interface bridge port set 0 ingress-filtering=no pvid=20
[admin@postern] > interface bridge port print
Flags: X - disabled, I - invalid, D - dynamic
 #   INTERFACE        BRIDGE           PVID FRAME-TYPES
 0   ether2           bridge1          20   admit-all
 1 X usb1             bridge1          1    admit-all
[admin@postern] > interface bridge set bridge1 vlan-filtering=yes
[admin@postern] > interface bridge port print
Flags: X - disabled, I - invalid, D - dynamic
 #   INTERFACE        BRIDGE           PVID FRAME-TYPES
 0   ether2           bridge1          20   admit-all
 1 X usb1             bridge1          1    admit-all
;;; ingress-filtering=no has no effect: a frame of a VLAN that its port is not
;;; in never comes in
[admin@postern] > interface bridge export
/interface bridge
add comment=LAN name=bridge1 vlan-filtering=yes
/interface bridge port
add bridge=bridge1 ingress-filtering=no interface=ether2 pvid=20
add bridge=bridge1 disabled=yes interface=usb1
`},
	} {
		t.Run(test.name, func(t *testing.T) { checkScreen(t, linksConfig, linkLive(), 80, test.screen) })
	}
}

// What a change would break is refused by the name of what would break.
func TestBridgeVLANValidate(t *testing.T) {
	ports := []string{"ether1", "ether2", "usb1"}
	base := linksConfig + "/interface bridge vlan add bridge=bridge1 vlan-ids=20,30-40 tagged=bridge1,ether2 untagged=guests\n"
	for _, test := range []struct{ name, line, want string }{
		{"good", "/interface bridge set bridge1 vlan-filtering=yes pvid=99 frame-types=admit-only-vlan-tagged", ""},
		{"no such port", "/interface bridge vlan add bridge=bridge1 vlan-ids=50 tagged=ether1,ether9",
			"/interface bridge vlan 1: input does not match any value of tagged: ether1,ether9; expected ether1 | ether2 | usb1 | bridge1 | guests | lost"},
		{"no such bridge", "/interface bridge vlan add bridge=ether1 vlan-ids=50", "bridge vlan 1: bridge=ether1: expected a bridge"},
		{"a VLAN twice", "/interface bridge vlan add bridge=bridge1 vlan-ids=35", "bridge vlan 1: vlan-ids=35: expected each VLAN once in a bridge, bridge1 has it already"},
		{"a VLAN twice, disabled", "/interface bridge vlan add bridge=bridge1 vlan-ids=35 disabled=yes", ""},
		{"a port twice", "/interface bridge vlan add bridge=bridge1 vlan-ids=50 tagged=ether1,ether2 untagged=ether2", "bridge vlan 1: untagged=ether2: expected what is not among tagged"},
		{"frames with tags that cannot be kept out", "/interface bridge set bridge1 vlan-filtering=yes; /interface bridge port set [find interface=ether2] frame-types=admit-only-untagged-and-priority-tagged",
			"bridge bridge1: frame-types=admit-only-untagged-and-priority-tagged: expected ether2 in no VLAN with a tag, it is so in VLAN 20: Linux lets the frames of such a VLAN in too"},
		{"too many", "/interface bridge set bridge1 vlan-filtering=yes; /interface bridge vlan set 0 vlan-ids=2-4094; /interface bridge port add bridge=bridge1 interface=ether1; " +
			"/interface bridge vlan set 0 tagged=bridge1,ether1,ether2", "bridge bridge1: expected no more than 8192 times a port in a VLAN, all bridges together"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, err := Load("before", strings.NewReader(base))
			require.NoError(t, err)
			result, err := new(Session).Execute(before, linkLive(), test.line)
			require.NoError(t, err)
			if err = ValidateChange(before, result.Config, ports); test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.want)
		})
	}
	t.Run("in use", func(t *testing.T) {
		before, err := Load("before", strings.NewReader(base))
		require.NoError(t, err)
		after := before.Clone()
		after.VLANs = after.VLANs[1:]
		assert.ErrorContains(t, ValidateChange(before, after, ports), "in use by ")
	})
}
