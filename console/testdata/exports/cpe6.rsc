# mar/14/2021 09:26:53 by RouterOS 6.47.9
# software id = 0000-CPE0
#
# model = RBLHG-5nD
/interface wireless
set [ find default-name=wlan1 ] band=5ghz-a/n country=no_country_set disabled=no \
    frequency=5180 mode=station-bridge ssid=tower nv2-security=enabled
/interface list
add name=WAN
add name=LAN
/interface list member
add interface=ether1 list=LAN
add interface=wlan1 list=WAN
/ip address
add address=192.168.88.1/24 interface=ether1 network=192.168.88.0
/ip dhcp-client
add disabled=no interface=wlan1
/ip firewall nat
add action=masquerade chain=srcnat out-interface-list=WAN
/ip service
set www port=8080
/system clock
set time-zone-name=America/Sao_Paulo
/system leds
set 1 interface=wlan1
/tool romon
set enabled=yes
