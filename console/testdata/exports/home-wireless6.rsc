# jan/05/2022 15:05:45 by RouterOS 6.47
# software id = WXYZ-557A
#
# model = RB951G-2HnD
# serial number = 7E0557
/interface bridge
add admin-mac=6C:3B:6B:01:02:03 auto-mac=no comment=defconf fast-forward=no name=bridge
/interface ethernet
set [ find default-name=ether1 ] arp=enabled mac-address=6C:3B:6B:01:02:02 speed=100Mbps
set [ find default-name=ether2 ] name=ether2-master speed=100Mbps
set [ find default-name=ether3 ] speed=100Mbps
/interface wireless
set [ find default-name=wlan1 ] band=2ghz-b/g/n channel-width=20/40mhz-XX \
    country=germany disabled=no distance=indoors frequency=auto mode=ap-bridge \
    ssid=home wireless-protocol=802.11
/interface wireless security-profiles
set [ find default=yes ] authentication-types=wpa2-psk mode=dynamic-keys \
    supplicant-identity=MikroTik wpa2-pre-shared-key=notthisone
/interface list
add name=WAN
add name=LAN
/ip pool
add name=dhcp ranges=192.168.1.50-192.168.1.199
/ip dhcp-server
add address-pool=dhcp disabled=no interface=bridge lease-time=1d name=dhcp1
/interface bridge port
add bridge=bridge interface=ether2-master
add bridge=bridge interface=wlan1
/interface list member
add interface=bridge list=LAN
add interface=ether1 list=WAN
/ip address
add address=192.168.1.1/24 interface=bridge network=192.168.1.0
/ip dhcp-client
add dhcp-options=hostname,clientid disabled=no interface=ether1 use-peer-dns=no
/ip dhcp-server lease
add address=192.168.1.20 client-id=1:0:11:22:33:44:55 comment=NAS mac-address=\
    00:11:22:33:44:55 server=dhcp1
add address=192.168.1.21 mac-address=00:11:22:33:44:56 server=dhcp1
/ip dhcp-server network
add address=192.168.1.0/24 dns-server=192.168.1.1 gateway=192.168.1.1 netmask=24
/ip dns
set allow-remote-requests=yes servers=1.1.1.1,8.8.8.8
/ip firewall filter
add action=accept chain=input protocol=icmp
add action=accept chain=input connection-state=established,related
add action=drop chain=input in-interface=ether1
add action=accept chain=forward connection-state=established,related
add action=drop chain=forward connection-state=invalid
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
/ip service
set telnet disabled=yes
set ftp disabled=yes
set www disabled=yes
set api disabled=yes
set winbox address=192.168.1.0/24
/system clock
set time-zone-name=Europe/Berlin
/system identity
set name=home-ap
/system leds
set 0 interface=wlan1
/tool bandwidth-server
set enabled=no
