# The router of the manual's example: a LAN on ether2, masqueraded out of ether1, and closed
# to whoever calls from outside.
/ip address add address=192.168.0.1/24 interface=ether2 comment=LAN
/ip address add address=10.1.0.104/24 interface=ether1 comment=WAN
/ip route add dst-address=0.0.0.0/0 gateway=10.1.0.1
/ip firewall nat add chain=srcnat action=masquerade src-address=192.168.0.0/24
/ip firewall filter add chain=input action=accept connection-state=established,related
/ip firewall filter add chain=input action=accept in-interface=ether1 protocol=icmp icmp-options=8:0
/ip firewall filter add chain=input action=drop in-interface=!ether2
/ip firewall filter add chain=forward action=accept connection-state=established,related
/ip firewall filter add chain=forward action=drop connection-state=invalid
/ip firewall filter add chain=forward action=drop in-interface=!ether2 connection-state=new
# A client on 192.168.0.0/24 may not reach FTP servers, but by SOCKS.
/ip firewall filter add chain=forward action=drop src-address=192.168.0.0/24 dst-port=21 protocol=tcp
/ip socks set enabled=yes
/ip socks access add src-address=192.168.0.2 dst-port=21 action=allow
/ip socks access add dst-port=1024-65535 action=allow
/ip socks access add action=deny
