# jan/14/2021 20:41:07 by RouterOS 6.48.6
# software id = ABCD-513X
#
# model = RB952Ui-5ac2nD
# serial number = HEX0513
/interface bridge
add name=bridge1
/ip pool
add name=dhcp_pool0 ranges=192.168.10.2-192.168.10.254
/ip dhcp-server
add address-pool=dhcp_pool0 disabled=no interface=bridge1 name=dhcp1
/interface bridge port
add bridge=bridge1 interface=ether2
add bridge=bridge1 interface=ether3
/ip address
add address=192.168.10.1/24 interface=bridge1 network=192.168.10.0
/ip dhcp-client
add disabled=no interface=ether1
/ip dhcp-server lease
add address=192.168.10.50 mac-address=00:11:22:33:44:50 server=dhcp1 comment="tablet"
/ip dhcp-server network
add address=192.168.10.0/24 dns-server=192.168.10.1 gateway=192.168.10.1
/ip dns
set allow-remote-requests=yes
/ip firewall address-list
add address=192.168.10.50 list=kids
add address=192.168.10.51 list=kids
/ip firewall filter
add action=accept chain=forward comment="weekend" src-address-list=kids time=8h-22h,sun,sat
add action=accept chain=forward comment="school days" src-address-list=kids time=15h-20h30m,mon,tue,wed,thu,fri
add action=drop chain=forward comment="else nothing" src-address-list=kids
add action=drop chain=forward comment="console off at night" src-mac-address=00:11:22:33:44:60 time=21h-1d,sun,mon,tue,wed,thu,fri,sat
add action=drop chain=forward src-mac-address=00:11:22:33:44:60 time=0s-7h,sun,mon,tue,wed,thu,fri,sat
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
add action=redirect chain=dstnat dst-port=53 protocol=udp src-address-list=kids time=0s-1d,sun,mon,tue,wed,thu,fri,sat to-ports=53
/system clock
set time-zone-name=Europe/Berlin
