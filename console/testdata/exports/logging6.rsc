# jan/06/2022 14:05:46 by RouterOS 6.46
# software id = WXYZ-466A
#
# model = RB750Gr3
# serial number = 7E0466
/system logging action
set 0 memory-lines=500
set 3 remote=192.168.88.5 remote-port=514
/system logging
set 0 action=memory topics=info,!firewall
add action=remote topics=critical
add action=remote prefix=RB topics=firewall,info
add topics=dhcp,debug
/system clock
set time-zone-autodetect=no time-zone-name=Etc/UTC
/system clock manual
set time-zone=+01:00
/system ntp client
set enabled=yes primary-ntp=192.0.2.123 secondary-ntp=0.0.0.0
/system note
set note="Authorised people only" show-at-login=yes
/snmp community
set [ find default=yes ] addresses=10.0.0.0/8
/tool e-mail
set address=10.0.0.25 from=router@example.net
/tool graphing interface
add interface=ether1
/tool sniffer
set filter-interface=ether1
