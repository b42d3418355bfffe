# 2024-02-13 03:12:22 by RouterOS 7.5
# software id = ABCD-235X
#
# model = CCR1009
# serial number = HEX0235
/interface list
add name=WAN
/routing table
add disabled=no fib name=to-isp1
add disabled=no fib name=to-isp2
/interface list member
add interface=ether1 list=WAN
add interface=ether2 list=WAN
/ip address
add address=192.0.2.2/30 interface=ether1 network=192.0.2.0
add address=198.51.100.2/30 interface=ether2 network=198.51.100.0
add address=192.168.1.1/24 interface=ether3 network=192.168.1.0
/ip firewall mangle
add action=mark-connection chain=prerouting connection-mark=no-mark in-interface=ether1 new-connection-mark=isp1 passthrough=yes
add action=mark-routing chain=prerouting connection-mark=isp1 in-interface=ether3 new-routing-mark=to-isp1 passthrough=no
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
add action=masquerade chain=srcnat out-interface=ether2
/ip route
add check-gateway=ping comment="first" distance=1 dst-address=0.0.0.0/0 gateway=192.0.2.1
add check-gateway=ping comment="second" distance=2 dst-address=0.0.0.0/0 gateway=198.51.100.1
add distance=1 gateway=192.0.2.1 routing-table=to-isp1
/tool netwatch
add down-script="/ip route disable [find comment=first]" host=8.8.8.8 up-script="/ip route enable [find comment=first]"
