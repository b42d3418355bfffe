# The manual's example, on top of what every board starts with: a client on
# 192.168.0.0/24 may not reach FTP servers, but by SOCKS.
/ip address add address=10.1.0.104/24 interface=ether1 comment=WAN
/ip route add dst-address=0.0.0.0/0 gateway=10.1.0.1
/ip firewall filter add chain=forward action=drop src-address=192.168.0.0/24 dst-port=21 protocol=tcp
/ip socks set enabled=yes
/ip socks access add src-address=192.168.0.2 dst-port=21 action=allow
/ip socks access add dst-port=1024-65535 action=allow
/ip socks access add action=deny
