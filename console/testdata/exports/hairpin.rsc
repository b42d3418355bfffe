# 2024-07-17 07:17:22 by RouterOS 7.10
# software id = ABCD-7710X
#
# model = RB750Gr3
# serial number = HEX07710
/interface bridge
add name=lan
/interface bridge port
add bridge=lan interface=ether2
add bridge=lan interface=ether3
/ip address
add address=10.1.0.1/16 interface=lan network=10.1.0.0
add address=203.0.113.10/29 interface=ether1 network=203.0.113.8
/ip dns
set servers=9.9.9.9
/ip firewall nat
add action=masquerade chain=srcnat comment="hairpin" dst-address=10.1.0.50 out-interface=lan protocol=tcp src-address=10.1.0.0/16
add action=masquerade chain=srcnat out-interface=ether1
add action=dst-nat chain=dstnat dst-address=203.0.113.10 dst-port=443 protocol=tcp to-addresses=10.1.0.50
add action=dst-nat chain=dstnat dst-address-type=local dst-port=25,587,993 protocol=tcp to-addresses=10.1.0.51
/ip route
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=203.0.113.9 pref-src="" routing-table=main scope=30 suppress-hw-offload=no target-scope=10
/system identity
set name=hairpin
