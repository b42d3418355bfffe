# 2024-03-15 05:13:22 by RouterOS 7.6
# software id = ABCD-356X
#
# model = RB750Gr3
# serial number = HEX0356
/ip address
add address=192.168.0.1/24 interface=ether2 network=192.168.0.0
/ip firewall filter
add action=drop chain=forward dst-port=21 protocol=tcp src-address=192.168.0.0/24
/ip firewall nat
add action=masquerade chain=srcnat src-address=192.168.0.0/24
/ip socks
set enabled=yes version=5
/ip socks access
add action=allow dst-port=21 src-address=192.168.0.2
add action=allow dst-port=1024-65535 src-address=192.168.0.2
add action=deny
/ip socks users
add name=alice password=first
