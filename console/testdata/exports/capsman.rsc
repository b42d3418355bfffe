# 2024-08-11 01:18:22 by RouterOS 7.11
# software id = ABCD-8111X
#
# model = RB750Gr3
# serial number = HEX08111
/caps-man channel
add band=2ghz-g/n control-channel-width=20mhz name=ch1
/caps-man manager
set enabled=yes
/interface bridge
add name=br-lan
/interface wifi
set [ find default-name=wifi1 ] configuration.mode=ap .ssid=example disabled=no
/interface wifi cap
set enabled=yes
/ip address
add address=10.0.0.1/24 interface=br-lan network=10.0.0.0
/ip smb shares
set [ find default=yes ] directory=/pub
/container config
set registry-url=https://registry-1.docker.io tmpdir=disk1/pull
/certificate
add common-name=ca name=ca
/system scheduler
add interval=1d name=backup on-event="/system backup save name=auto" policy=read,write start-time=03:00:00
/system script
add dont-require-permissions=no name=hello owner=admin policy=read source=":log info hello"
/snmp
set enabled=yes
/radius
add address=10.0.0.5 service=login
/lcd
set time-interval=hour
