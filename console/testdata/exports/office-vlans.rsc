# 2024-09-11 01:19:22 by RouterOS 7.12
# software id = ABCD-9112X
#
# model = RB4011iGS+
# serial number = HEX09112
/interface bridge
add comment="all VLANs" ingress-filtering=no name=bridge1 vlan-filtering=yes
/interface ethernet
set [ find default-name=ether1 ] comment="provider" name=wan
set [ find default-name=ether2 ] comment="trunk to switch"
set [ find default-name=sfp1 ] advertise=10M-baseT-half,10M-baseT-full,100M-baseT-half,100M-baseT-full,1G-baseT-half,1G-baseT-full
/interface vlan
add interface=bridge1 name=vlan10-office vlan-id=10
add interface=bridge1 name=vlan20-phones vlan-id=20
add interface=bridge1 name=vlan99-mgmt vlan-id=99
/interface list
add name=WAN
add name=inside
/ip pool
add name=office ranges=10.10.10.100-10.10.10.199
add name=phones ranges=10.10.20.100-10.10.20.199
/ip dhcp-server option
add code=66 name=tftp value="'10.10.20.2'"
/ip dhcp-server
add address-pool=office interface=vlan10-office lease-time=8h name=office
add address-pool=phones interface=vlan20-phones lease-time=1d name=phones
/interface bridge port
add bridge=bridge1 frame-types=admit-only-vlan-tagged interface=ether2
add bridge=bridge1 interface=ether3 pvid=10
add bridge=bridge1 interface=ether4 pvid=20
/interface bridge vlan
add bridge=bridge1 tagged=bridge1,ether2 untagged=ether3 vlan-ids=10
add bridge=bridge1 tagged=bridge1,ether2 untagged=ether4 vlan-ids=20
add bridge=bridge1 tagged=bridge1,ether2 vlan-ids=99
/interface list member
add interface=wan list=WAN
add interface=vlan10-office list=inside
add interface=vlan20-phones list=inside
add interface=vlan99-mgmt list=inside
/ip address
add address=10.10.10.1/24 interface=vlan10-office network=10.10.10.0
add address=10.10.20.1/24 interface=vlan20-phones network=10.10.20.0
add address=10.10.99.1/24 interface=vlan99-mgmt network=10.10.99.0
add address=192.0.2.18/30 interface=wan network=192.0.2.16
/ip dhcp-server network
add address=10.10.10.0/24 dns-server=10.10.10.1 domain=office.example gateway=10.10.10.1 ntp-server=10.10.10.1
add address=10.10.20.0/24 dhcp-option=tftp dns-server=10.10.20.1 gateway=10.10.20.1
/ip dns
set allow-remote-requests=yes cache-size=4096KiB servers=192.0.2.53,9.9.9.9
/ip firewall address-list
add address=10.10.99.0/24 list=admins
add address=10.10.10.5 comment="boss" list=admins
/ip firewall filter
add action=accept chain=input connection-state=established,related,untracked
add action=drop chain=input connection-state=invalid
add action=accept chain=input protocol=icmp
add action=accept chain=input comment="management" dst-port=22,8291 protocol=tcp src-address-list=admins
add action=accept chain=input comment="DNS and NTP" dst-port=53,123 in-interface-list=inside protocol=udp
add action=accept chain=input dst-port=53 in-interface-list=inside protocol=tcp
add action=drop chain=input comment="all the rest" log=yes log-prefix=in-drop
add action=accept chain=forward connection-state=established,related,untracked
add action=drop chain=forward connection-state=invalid
add action=accept chain=forward in-interface-list=inside out-interface-list=WAN
add action=accept chain=forward dst-address=10.10.20.0/24 src-address-list=admins
add action=reject chain=forward in-interface-list=inside out-interface-list=inside reject-with=icmp-admin-prohibited
add action=drop chain=forward
/ip firewall nat
add action=src-nat chain=srcnat out-interface-list=WAN to-addresses=192.0.2.18
/ip route
add gateway=192.0.2.17
/ip service
set telnet disabled=yes
set ftp disabled=yes
set www disabled=yes
set ssh address=10.10.99.0/24
set api disabled=yes
set winbox address=10.10.99.0/24,10.10.10.5/32
set api-ssl disabled=yes
/system clock
set time-zone-name=Europe/Paris
/system identity
set name=office-gw
/system logging
add action=remote prefix=gw topics=firewall
/system logging action
set 3 remote=10.10.99.5
/system ntp client
set enabled=yes
/system ntp server
set enabled=yes
/system ntp client servers
add address=0.pool.ntp.org
add address=1.pool.ntp.org
