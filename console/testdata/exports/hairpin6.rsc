# jan/08/2022 18:05:48 by RouterOS 6.44
# software id = WXYZ-884A
#
# model = RB2011UiAS
# serial number = 7E0884
/ip address
add address=192.168.10.1/24 interface=ether2 network=192.168.10.0
add address=198.51.100.2/30 interface=ether1 network=198.51.100.0
/ip firewall nat
add action=masquerade chain=srcnat dst-address=192.168.10.0/24 src-address=\
    192.168.10.0/24
add action=src-nat chain=srcnat out-interface=ether1 to-addresses=198.51.100.2
add action=dst-nat chain=dstnat dst-address=198.51.100.2 dst-port=80 protocol=\
    tcp to-addresses=192.168.10.5 to-ports=8080
add action=netmap chain=dstnat dst-address=198.51.100.8/29 to-addresses=\
    192.168.10.8/29
/ip route
add distance=1 gateway=198.51.100.1
add distance=1 dst-address=10.0.0.0/8 type=blackhole
add check-gateway=ping distance=2 gateway=198.51.100.1
