# 2024-06-18 08:16:22 by RouterOS 7.9
# software id = ABCD-689X
#
# model = RB750Gr3
# serial number = HEX0689
/ip address
add address=10.0.0.1/30 interface=ether1 network=10.0.0.0
add address=10.1.0.1/24 comment="floor 1" interface=ether2 network=10.1.0.0
add address=10.2.0.1/24 comment="floor 2" disabled=yes interface=ether3 network=10.2.0.0
/ip route
add comment=default disabled=no distance=1 dst-address=0.0.0.0/0 gateway=10.0.0.2 pref-src="" routing-table=main scope=30 suppress-hw-offload=no target-scope=10
add blackhole comment="no way" disabled=no dst-address=192.168.0.0/16
add dst-address=172.20.0.0/16 gateway=10.1.0.254
add disabled=yes dst-address=172.21.0.0/16 gateway=10.1.0.253
add dst-address=172.22.0.0/16 gateway=10.1.0.254 pref-src=10.1.0.1
add check-gateway=ping dst-address=172.23.0.0/16 gateway=10.1.0.254
add dst-address=172.24.0.0/16 gateway=ether2
/routing rule
add action=lookup src-address=10.2.0.0/24 table=main
