# 2024-01-14 04:11:22 by RouterOS 7.4
# software id = ABCD-144X
#
# model = RB750Gr3
# serial number = HEX0144
/ip firewall address-list
add address=5.8.16.0/20 list=country
add address=5.9.32.0/20 list=country
add address=31.24.48.0/20 list=country
add address=37.4.64.0/20 list=country
add address=46.16.80.0/20 list=country
add address=62.80.96.0/20 list=country
add address=77.20.112.0/20 list=country
add address=78.30.128.0/20 list=country
add address=80.64.144.0/20 list=country
add address=81.88.160.0/20 list=country
add address=82.100.176.0/20 list=country
add address=83.120.192.0/20 list=country
add address=198.51.100.200 comment="example.net" disabled=yes list=country
/ip firewall filter
add action=accept chain=input dst-port=443 protocol=tcp src-address-list=country
add action=drop chain=input dst-port=443 protocol=tcp src-address-list=!country
add action=drop chain=forward dst-address-list=!country src-address=192.168.1.200-192.168.1.210
/ip firewall nat
add action=dst-nat chain=dstnat dst-port=443 in-interface=ether1 protocol=tcp src-address-list=country to-addresses=192.168.1.5
