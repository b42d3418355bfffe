# 2025-03-18 09:12:40 by RouterOS 7.16.1
# software id = ABCD-1618X
#
# model = RB750Gr3
# serial number = HEX1618
/interface list
add name=WAN
add name=LAN
/interface list member
add interface=ether1 list=WAN
add interface=ether2 list=LAN
/ip address
add address=10.1.0.104/24 interface=ether1 network=10.1.0.0
add address=192.168.0.1/24 comment=defconf interface=ether2 network=192.168.0.0
/ip dns
set servers=10.1.0.1
/ip firewall address-list
add address=198.51.100.7 comment=office list=friends
add address=203.0.113.64/26 list=friends
/ip firewall filter
add action=accept chain=input comment="defconf: accept established,related,untracked" connection-state=established,related,untracked
add action=drop chain=input connection-state=invalid
add action=accept chain=input limit=5,10:packet protocol=icmp
add action=drop chain=input src-address-list=shut
add action=add-src-to-address-list address-list=shut address-list-timeout=1d chain=input connection-state=new dst-port=23 in-interface-list=WAN protocol=tcp
add action=accept chain=input dst-port=22,8291 protocol=tcp src-address-list=friends
add action=drop chain=input comment="defconf: drop all not coming from LAN" in-interface-list=!LAN log=yes log-prefix=in:
add action=fasttrack-connection chain=forward connection-state=established,related hw-offload=yes
add action=accept chain=forward connection-state=established,related,untracked
add action=jump chain=forward jump-target=hosts out-interface-list=WAN
add action=drop chain=forward connection-nat-state=!dstnat connection-state=new in-interface-list=WAN
add action=reject chain=hosts connection-limit=100,32 protocol=tcp reject-with=tcp-reset tcp-flags=syn,!ack
add action=drop chain=hosts src-mac-address=02:00:00:00:00:99
add action=reject chain=hosts dst-port=25 protocol=tcp reject-with=icmp-admin-prohibited src-address=!192.168.0.10-192.168.0.12
add action=return chain=hosts
/ip firewall mangle
add action=change-mss chain=forward new-mss=1400 out-interface=ether1 passthrough=yes protocol=tcp tcp-flags=syn tcp-mss=1401-65535
add action=mark-connection chain=prerouting connection-mark=no-mark dst-port=5060 new-connection-mark=phone passthrough=yes protocol=udp
add action=mark-packet chain=prerouting connection-mark=phone new-packet-mark=voice passthrough=no
add action=change-dscp chain=postrouting new-dscp=46 packet-mark=voice passthrough=yes
/ip firewall nat
add action=masquerade chain=srcnat comment=hairpin dst-address=192.168.0.20 out-interface=ether2 protocol=tcp src-address=192.168.0.0/24
add action=masquerade chain=srcnat comment="defconf: masquerade" ipsec-policy=out,none out-interface-list=WAN
add action=dst-nat chain=dstnat dst-address-type=local dst-port=80,443 protocol=tcp to-addresses=192.168.0.20
add action=dst-nat chain=dstnat dst-port=2222 in-interface-list=WAN protocol=tcp src-address-list=friends to-addresses=192.168.0.20 to-ports=22
add action=netmap chain=dstnat dst-address=10.99.0.0/24 to-addresses=192.168.0.0/24
add action=redirect chain=dstnat disabled=yes dst-port=53 protocol=udp to-ports=53
/ip firewall raw
add action=drop chain=prerouting dst-port=137-139 in-interface-list=WAN protocol=udp
add action=notrack chain=prerouting dst-address=224.0.0.0/4
/ip route
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=10.1.0.1 pref-src="" routing-table=main scope=30 suppress-hw-offload=no target-scope=10
/system identity
set name=booted
