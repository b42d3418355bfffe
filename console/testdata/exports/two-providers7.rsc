# 2024-05-11 19:44:02 by RouterOS 7.14.3
# software id = QQQQ-1111
#
# model = RB5009UG+S+
# serial number = HEX0999
/interface list
add name=WAN
add name=LAN
/routing table
add disabled=no fib name=to-isp1
add comment="the second provider" disabled=no fib name=to-isp2
/interface list member
add interface=ether1 list=WAN
add interface=ether2 list=WAN
add interface=ether3 list=LAN
/ip address
add address=192.0.2.2/30 interface=ether1 network=192.0.2.0
add address=198.51.100.2/30 interface=ether2 network=198.51.100.0
add address=192.168.88.1/24 interface=ether3 network=192.168.88.0
/ip firewall address-list
add address=10.0.0.0/8 list=own
add address=192.168.0.0/16 list=own
/ip firewall filter
add action=accept chain=forward connection-mark=!no-mark connection-state=established,related
add action=drop chain=forward packet-mark=video routing-mark=to-isp2 random=50
/ip firewall mangle
add action=accept chain=prerouting comment="between own networks" dst-address-list=own in-interface-list=LAN
add action=mark-connection chain=prerouting connection-mark=no-mark connection-state=new in-interface=ether1 new-connection-mark=isp1 passthrough=no
add action=mark-connection chain=prerouting connection-mark=no-mark connection-state=new in-interface=ether2 new-connection-mark=isp2 passthrough=no
add action=mark-connection chain=prerouting connection-mark=no-mark connection-state=new dst-address-type=!local in-interface-list=LAN new-connection-mark=isp1 nth=2,1 passthrough=yes
add action=mark-connection chain=prerouting connection-mark=no-mark connection-state=new dst-address-type=!local in-interface-list=LAN new-connection-mark=isp2 passthrough=yes
add action=mark-routing chain=prerouting connection-mark=isp1 in-interface-list=LAN new-routing-mark=to-isp1 passthrough=no
add action=mark-routing chain=prerouting connection-mark=isp2 in-interface-list=LAN new-routing-mark=to-isp2 passthrough=no
add action=mark-routing chain=output connection-mark=isp2 new-routing-mark=to-isp2 passthrough=no
add action=jump chain=forward jump-target=marks
add action=mark-packet chain=marks dst-port=1935 new-packet-mark=video passthrough=no protocol=tcp
add action=change-mss chain=forward new-mss=clamp-to-pmtu out-interface-list=WAN passthrough=yes protocol=tcp tcp-flags=syn
add action=change-ttl chain=postrouting disabled=yes new-ttl=set:64 out-interface-list=WAN passthrough=no
add action=change-dscp chain=postrouting new-dscp=46 packet-mark=video passthrough=no
add action=change-ttl chain=prerouting new-ttl=increment:1 ttl=equal:1
/ip firewall nat
add action=masquerade chain=srcnat out-interface-list=WAN
add action=netmap chain=dstnat dst-address=10.99.0.0/24 to-addresses=192.168.88.0/24
/ip firewall raw
add action=drop chain=prerouting in-interface-list=WAN src-address-list=own
add action=notrack chain=prerouting dst-port=53 protocol=udp
add action=notrack chain=output protocol=udp src-port=53
/ip route
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=192.0.2.1 routing-table=main scope=30 suppress-hw-offload=no target-scope=10
add disabled=no distance=2 dst-address=0.0.0.0/0 gateway=198.51.100.1 routing-table=main scope=30 suppress-hw-offload=no target-scope=10
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=192.0.2.1 pref-src="" routing-table=to-isp1 scope=30 suppress-hw-offload=no target-scope=10
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=198.51.100.1 pref-src="" routing-table=to-isp2 scope=30 suppress-hw-offload=no target-scope=10
/ip settings
set rp-filter=loose
/routing rule
add action=lookup-only-in-table disabled=no dst-address=203.0.113.0/24 src-address=192.168.88.64/26 table=to-isp2
add action=lookup disabled=no interface=ether3 routing-mark=main table=to-isp1
