# 2024-07-12 02:17:22 by RouterOS 7.10
# software id = ABCD-7210X
#
# model = RB750Gr3
# serial number = HEX07210
/interface bonding
add mode=802.3ad name=bond1 slaves=ether3,ether4
/interface vrrp
add interface=ether2 name=vrrp1
/interface eoip
add mac-address=02:AA:BB:CC:DD:EE name=eoip1 remote-address=192.0.2.9 tunnel-id=1
/interface bridge
add name=core
/interface bridge port
add bridge=core interface=bond1
/routing ospf instance
add name=default router-id=10.255.0.1
/routing ospf area
add instance=default name=backbone
/routing bgp template
set default as=65530
/mpls ldp
add lsr-id=10.255.0.1
/ip vrf
add interfaces=ether5 name=red
/ip traffic-flow
set enabled=yes
/ip address
add address=10.255.0.1/32 interface=core network=10.255.0.1
