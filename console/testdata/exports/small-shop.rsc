# 2024-02-16 06:12:22 by RouterOS 7.5
# software id = ABCD-265X
#
# model = RB750Gr3
# serial number = HEX0265
/interface bridge
add name=bridge-lan port-cost-mode=short protocol-mode=none
/interface ethernet
set [ find default-name=ether1 ] comment="fibre" name=wan1
set [ find default-name=ether5 ] comment="card reader"
/ip pool
add name=pool1 ranges=172.18.0.100-172.18.0.150
/ip dhcp-server
add address-pool=pool1 interface=bridge-lan lease-time=30m name=server1
/interface bridge port
add bridge=bridge-lan interface=ether2
add bridge=bridge-lan interface=ether3
/ip address
add address=172.18.0.1/24 interface=bridge-lan network=172.18.0.0
add address=172.18.5.1/30 interface=ether5 network=172.18.5.0
/ip arp
add address=172.18.5.2 interface=ether5 mac-address=00:AA:00:BB:00:CC
/ip dhcp-client
add default-route-tables=main interface=wan1
/ip dhcp-server lease
add address=172.18.0.10 mac-address=AA:BB:CC:00:11:22 comment="till"
/ip dhcp-server network
add address=172.18.0.0/24 dns-server=172.18.0.1 gateway=172.18.0.1
/ip dns
set allow-remote-requests=yes
/ip firewall filter
add action=accept chain=input connection-state=established,related
add action=accept chain=input in-interface=bridge-lan
add action=drop chain=input
add action=accept chain=forward connection-state=established,related
add action=accept chain=forward dst-address-list=bank src-address=172.18.5.2
add action=drop chain=forward src-address=172.18.5.2
add action=drop chain=forward connection-nat-state=!dstnat in-interface=wan1
/ip firewall address-list
add address=192.0.2.200-192.0.2.220 list=bank
/ip firewall nat
add action=masquerade chain=srcnat out-interface=wan1
/system scheduler
add interval=1d name=reboot on-event="/system reboot" policy=reboot start-time=04:00:00
/system clock
set time-zone-name=Europe/Madrid
