# 2024-09-13 03:19:22 by RouterOS 7.12
# software id = ABCD-9312X
#
# model = RB750Gr3
# serial number = HEX09312
/ip firewall filter
add action=jump chain=input comment="from outside" in-interface=ether1 jump-target=from-wan
add action=jump chain=forward in-interface=ether1 jump-target=from-wan
add action=accept chain=from-wan connection-state=established,related
add action=jump chain=from-wan jump-target=icmp protocol=icmp
add action=return chain=from-wan connection-nat-state=dstnat
add action=drop chain=from-wan log=yes log-prefix="WAN:"
add action=accept chain=icmp icmp-options=8:0-255 protocol=icmp
add action=accept chain=icmp icmp-options=3:0-255 protocol=icmp
add action=return chain=icmp
/ip firewall nat
add action=jump chain=dstnat dst-address=203.0.113.1 jump-target=forwards
add action=dst-nat chain=forwards dst-port=80 protocol=tcp to-addresses=192.168.1.10
add action=dst-nat chain=forwards dst-port=53 protocol=udp to-addresses=192.168.1.11
add action=masquerade chain=srcnat out-interface=ether1
