# 2025-02-28 23:59:59 by RouterOS 7.18
/ip dhcp-client
add interface=ether1 name=client1
/ip dns
set servers=9.9.9.9,149.112.112.112
/ip firewall filter
add action=accept chain=input src-address=10.0.0.0/8
add action=accept chain=input dst-port=22 protocol=tcp src-address-list=!bad
add action=drop chain=input connection-state=invalid,new
/ip firewall address-list
add address=198.51.100.0/25 list=bad
/ip ssh
set host-key-type=ed25519
/system identity
set name=probe
/system ntp client
set enabled=yes servers=time.example.net
