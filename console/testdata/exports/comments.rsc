# 2024-09-14 04:19:22 by RouterOS 7.12
# software id = ABCD-9412X
#
# model = RB750Gr3
# serial number = HEX09412
# what the installer wrote
/ip address
add address=10.7.0.1/24 comment="LAN ; do not \"touch\"" interface=ether2 network=10.7.0.0
;;; the provider
add address=192.0.2.50/29 interface=ether1 network=192.0.2.48
/ip firewall filter
# nothing from outside
add action=drop chain=input comment="100% \$ure" in-interface=ether1 connection-state=!established,related
add action=accept chain=input comment="caf\C3\A9" src-address=10.7.0.0/24
