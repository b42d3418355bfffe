# 2024-03-16 06:13:22 by RouterOS 7.6
# software id = ABCD-366X
#
# model = RB750Gr3
# serial number = HEX0366
/interface/bridge
add name=bridge
/interface/bridge/port
add bridge=bridge interface=ether2
/ip/address
add address=10.5.0.1/24 interface=bridge network=10.5.0.0
/ip/firewall/filter
add action=drop chain=input in-interface=ether1
/system/clock
set time-zone-name=Australia/Sydney
/system/ntp/client
set enabled=yes
/system/ntp/client/servers
add address=time.cloudflare.com
