# nov/03/2021 18:22:41 by RouterOS 6.48.4
# software id = ABCD-7KQ1
#
# model = RB951G-2HnD
/interface list
add comment="T\FCr nach drau\DFen" name=WAN
/interface list member
add interface=ether1 list=WAN
/ip address
add address=192.168.10.1/24 comment="\CB\EE\EA\E0\EB\FC\ED\E0\FF \F1\E5\F2\FC" interface=ether2 network=192.168.10.0
/ip dhcp-client
add comment="Gr\E4fin \80 5,\85" disabled=no interface=ether1
/ip firewall address-list
add address=192.168.10.20 comment="K\FCche\r\
    \nzweite Zeile" list="G\E4ste"
/ip firewall filter
add action=jump chain=forward comment="\E0\E2\EE" jump-target="G\E4ste" src-address-list="G\E4ste"
add action=drop chain="G\E4ste" comment="\C2\85\C2\AD"
/queue simple
add comment="\C4\EE\EC" max-limit=5M/10M name="\CF\E5\F2\FF" target=192.168.10.20/32
