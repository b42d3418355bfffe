# 2024-01-13 03:11:22 by RouterOS 7.4
# software id = ABCD-134X
#
# model = RB750Gr3
# serial number = HEX0134
/ip address
add address=10.2.0.1/24 interface=ether2 network=10.2.0.0
:global wan "ether1"
:if ([:len [/interface find name=$wan]] > 0) do={
/ip firewall nat add chain=srcnat action=masquerade out-interface=$wan
}
{
:local n 3
:for i from=1 to=$n do={ :put $i }
}
:put [/system identity get name]
/system identity
set name=scripted
