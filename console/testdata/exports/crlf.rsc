# 2024-08-13 03:18:22 by RouterOS 7.11
# software id = ABCD-8311X
#
# model = RB750Gr3
# serial number = HEX08311
/ip address
add address=10.6.0.1/24 interface=ether2 network=10.6.0.0
/ip firewall nat
add action=masquerade chain=srcnat \
    out-interface=ether1
/system identity
set name="branch 6"
