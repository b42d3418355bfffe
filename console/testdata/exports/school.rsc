# 2024-06-11 01:16:22 by RouterOS 7.9
# software id = ABCD-619X
#
# model = RB750Gr3
# serial number = HEX0619
/interface vlan
add interface=ether2 name=pupils vlan-id=100
add interface=ether2 name=teachers vlan-id=200
/ip address
add address=10.100.0.1/22 interface=pupils network=10.100.0.0
add address=10.200.0.1/24 interface=teachers network=10.200.0.0
add address=192.0.2.66/28 interface=ether1 network=192.0.2.64
/ip pool
add name=pupils ranges=10.100.0.50-10.100.3.254
add name=teachers next-pool=none ranges=10.200.0.50-10.200.0.99,10.200.0.150-10.200.0.199
/ip dhcp-server
add address-pool=pupils authoritative=after-2sec-delay interface=pupils lease-time=1h name=pupils
add address-pool=teachers interface=teachers lease-time=12h name=teachers
/ip dhcp-server network
add address=10.100.0.0/22 dns-server=10.100.0.1 gateway=10.100.0.1
add address=10.200.0.0/24 dns-server=10.200.0.1,9.9.9.9 gateway=10.200.0.1 wins-server=10.200.0.5
/ip firewall filter
add action=reject chain=forward in-interface=pupils out-interface=teachers
add action=accept chain=forward connection-state=established,related,new in-interface=teachers
add action=accept chain=forward in-interface=pupils out-interface=ether1 dst-port=80,443 protocol=tcp
add action=drop chain=forward in-interface=pupils
add action=accept chain=input in-interface=teachers
add action=accept chain=input protocol=igmp
add action=accept chain=input protocol=ospf
add action=accept chain=input protocol=vrrp
add action=drop chain=input
/ip firewall nat
add action=src-nat chain=srcnat out-interface=ether1 src-address=10.100.0.0/22 to-addresses=192.0.2.67
add action=src-nat chain=srcnat out-interface=ether1 src-address=10.200.0.0/24 to-addresses=192.0.2.68-192.0.2.70
add action=same chain=srcnat disabled=yes out-interface=ether1 to-addresses=192.0.2.71-192.0.2.72
/ip route
add gateway=192.0.2.65
