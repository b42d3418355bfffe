# 2024-02-15 05:12:22 by RouterOS 7.5
# software id = ABCD-255X
#
# model = RB750Gr3
# serial number = HEX0255
/interface bridge add name=bridge
/interface bridge port add bridge=bridge interface=ether2
/ip address add address=192.168.88.1/24 interface=bridge network=192.168.88.0
/ip pool add name=dhcp_pool0 ranges=192.168.88.2-192.168.88.254
/ip dhcp-server add address-pool=dhcp_pool0 interface=bridge name=dhcp1
/ip dhcp-server network add address=192.168.88.0/24 gateway=192.168.88.1
/ip dhcp-client add interface=ether1
/ip firewall nat add action=masquerade chain=srcnat out-interface=ether1
/system clock set time-zone-name=Asia/Tokyo
/system note set show-at-login=no
