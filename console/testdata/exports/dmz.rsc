# 2023-11-02 18:22:41 by RouterOS 7.11.2
# software id = QQQQ-1234
/interface list
add name=dmz
add include=dmz name=trusted
/interface list member
add interface=ether3 list=dmz
/ip address
add address=192.0.2.34/28 interface=ether1 network=192.0.2.32
add address=192.0.2.49/28 interface=ether3 network=192.0.2.48
add address=10.3.0.1/24 interface=ether2 network=10.3.0.0
/ip firewall filter
add action=accept chain=forward comment="answers" connection-state=established,related,untracked
add action=jump chain=forward jump-target=to-dmz out-interface-list=dmz
add action=accept chain=to-dmz dst-address=192.0.2.50 dst-port=25,465,587 protocol=tcp
add action=accept chain=to-dmz dst-address=192.0.2.51 dst-port=80,443 protocol=tcp
add action=accept chain=to-dmz dst-address=192.0.2.51 dst-port=443 protocol=udp
add action=accept chain=to-dmz in-interface=ether2
add action=reject chain=to-dmz log=yes log-prefix=dmz: reject-with=icmp-port-unreachable
add action=accept chain=forward in-interface=ether2 out-interface=ether1
add action=drop chain=forward
/ip firewall nat
add action=accept chain=srcnat dst-address=192.0.2.48/28
add action=src-nat chain=srcnat out-interface=ether1 src-address=10.3.0.0/24 to-addresses=192.0.2.34
/ip route
add disabled=no dst-address=0.0.0.0/0 gateway=192.0.2.33
/system identity
set name="dmz router"
