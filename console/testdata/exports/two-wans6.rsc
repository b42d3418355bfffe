# jan/04/2022 13:05:44 by RouterOS 6.48
# software id = WXYZ-348A
#
# model = RB1100
# serial number = 7E0348
/ip address
add address=10.20.0.1/24 interface=ether5 network=10.20.0.0
/ip dhcp-client
add add-default-route=no dhcp-options=hostname,clientid disabled=no interface=ether1
add default-route-distance=2 dhcp-options=hostname,clientid disabled=no interface=\
    ether2
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1 src-address=\
    10.20.0.0/24
add action=masquerade chain=srcnat out-interface=ether2
/ip route
add check-gateway=ping distance=1 gateway=172.30.0.1
add distance=1 dst-address=8.8.4.4/32 gateway=172.30.0.1 scope=10
add disabled=yes distance=3 gateway=172.31.0.1
/ip route rule
add src-address=10.20.0.0/25 table=isp1
