# 2024-01-12 02:11:22 by RouterOS 7.4
# software id = ABCD-124X
#
# model = RB750Gr3
# serial number = HEX0124
/interface vlan
add interface=ether2 name=guest vlan-id=50
/interface list
add name=WAN
/ip pool
add name=lan ranges=192.168.1.100-192.168.1.200
add name=guest ranges=172.16.50.10-172.16.50.250
/ip dhcp-server
add address-pool=lan interface=ether2 name=lan
add address-pool=guest interface=guest lease-time=1h name=guest
/queue simple
add max-limit=10M/10M name=guests target=guest
/interface list member
add interface=ether1 list=WAN
/ip address
add address=192.168.1.1/24 interface=ether2 network=192.168.1.0
add address=172.16.50.1/24 interface=guest network=172.16.50.0
/ip dhcp-client
add interface=ether1 use-peer-ntp=no
/ip dhcp-server network
add address=192.168.1.0/24 dns-server=192.168.1.1 gateway=192.168.1.1
add address=172.16.50.0/24 dns-server=9.9.9.9 gateway=172.16.50.1
/ip firewall filter
add action=accept chain=input connection-state=established,related
add action=drop chain=input comment="guests reach nothing of the router but DHCP" dst-port=!67 in-interface=guest protocol=udp
add action=drop chain=input in-interface=guest protocol=tcp
add action=drop chain=input in-interface-list=WAN
add action=fasttrack-connection chain=forward connection-state=established,related
add action=accept chain=forward connection-state=established,related
add action=drop chain=forward comment="guests to LAN" dst-address=192.168.0.0/16 in-interface=guest
add action=drop chain=forward connection-nat-state=!dstnat connection-state=new in-interface-list=WAN
/ip firewall nat
add action=masquerade chain=srcnat out-interface-list=WAN
add action=redirect chain=dstnat dst-port=53 in-interface=ether2 protocol=udp to-ports=53
