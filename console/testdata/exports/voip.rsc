# 2024-04-17 07:14:22 by RouterOS 7.7
# software id = ABCD-477X
#
# model = RB750Gr3
# serial number = HEX0477
/ip firewall service-port
set sip disabled=yes
set h323 disabled=yes
/ip firewall filter
add action=accept chain=forward dst-port=5060-5061 protocol=udp src-address-list=sip-provider
add action=accept chain=forward dst-port=10000-20000 protocol=udp
add action=accept chain=forward port=5060 protocol=udp
/ip firewall address-list
add address=192.0.2.128/27 list=sip-provider
add address=sip.example.net list=sip-provider
/ip firewall nat
add action=dst-nat chain=dstnat dst-port=5060 in-interface=ether1 protocol=udp to-addresses=10.0.0.9
add action=src-nat chain=srcnat out-interface=ether1 src-address=10.0.0.9 to-addresses=192.0.2.3
/queue type
add kind=pcq name=pcq-down pcq-classifier=dst-address
/queue tree
add name=voip parent=global priority=1
