# mar/03/2021 08:15:30 by RouterOS 6.47.9
# software id = QQQQ-2222
#
# model = 2011UiAS
# serial number = HEX0888
/ip address
add address=192.0.2.2/30 interface=ether1 network=192.0.2.0
add address=198.51.100.2/30 interface=ether2 network=198.51.100.0
add address=192.168.88.1/24 interface=ether3 network=192.168.88.0
/ip firewall mangle
add action=mark-connection chain=input in-interface=ether1 new-connection-mark=wan1_conn passthrough=yes
add action=mark-connection chain=input in-interface=ether2 new-connection-mark=wan2_conn passthrough=yes
add action=mark-routing chain=output connection-mark=wan1_conn \
    new-routing-mark=to_wan1 passthrough=yes
add action=mark-routing chain=output connection-mark=wan2_conn \
    new-routing-mark=to_wan2 passthrough=yes
add action=mark-routing chain=prerouting dst-port=25,587 in-interface=ether3 \
    new-routing-mark=to_wan2 passthrough=no protocol=tcp
add action=change-mss chain=forward new-mss=1440 out-interface=ether2 \
    passthrough=yes protocol=tcp tcp-flags=syn
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
add action=masquerade chain=srcnat out-interface=ether2
/ip firewall raw
add action=drop chain=prerouting dst-port=53 in-interface=ether1 protocol=udp
/ip route
add distance=1 gateway=192.0.2.1 routing-mark=to_wan1
add distance=1 gateway=198.51.100.1 routing-mark=to_wan2
add distance=1 gateway=192.0.2.1
add distance=2 gateway=198.51.100.1
/ip route rule
add dst-address=203.0.113.0/24 table=to_wan2
add action=unreachable src-address=192.168.88.200/32
