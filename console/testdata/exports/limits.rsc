# 2024-08-12 02:18:22 by RouterOS 7.11
# software id = ABCD-8211X
#
# model = RB750Gr3
# serial number = HEX08211
/ip firewall filter
add action=accept chain=input limit=10,5:packet protocol=icmp
add action=drop chain=input protocol=icmp
add action=drop chain=input connection-limit=30,32 dst-port=80 protocol=tcp
add action=drop chain=forward packet-size=1500-65535 protocol=icmp
add action=drop chain=forward src-mac-address=00:11:22:33:44:55
add action=drop chain=forward comment="at night" src-address=192.168.1.66 time=22h-6h,mon,tue,wed,thu,sun
add action=reject chain=forward content=example protocol=tcp reject-with=tcp-reset
add action=drop chain=forward layer7-protocol=torrent
add action=drop chain=forward port=6881-6889 protocol=tcp
add action=drop chain=forward dst-port=25 protocol=tcp src-address-list=!mail
add action=passthrough chain=forward comment="only counts"
add action=accept chain=output dst-port=123 protocol=udp
/ip firewall raw
add action=drop chain=prerouting in-interface=ether1 src-address-list=bogons
/ip firewall layer7-protocol
add name=torrent regexp="^x"
