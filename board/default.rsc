# What a Postern router starts with: a LAN on ether2, masqueraded out of ether1,
# and closed to whoever calls from outside.
/ip address add address=192.168.0.1/24 interface=ether2 comment=LAN
/ip firewall nat add chain=srcnat action=masquerade src-address=192.168.0.0/24
/ip firewall filter add chain=input action=accept connection-state=established,related
/ip firewall filter add chain=input action=accept in-interface=ether1 protocol=icmp icmp-options=8:0
/ip firewall filter add chain=input action=drop in-interface=!ether2
/ip firewall filter add chain=forward action=accept connection-state=established,related
/ip firewall filter add chain=forward action=drop connection-state=invalid
/ip firewall filter add chain=forward action=drop in-interface=!ether2 connection-state=new
