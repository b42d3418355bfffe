# What a Postern router starts with: its provider gives ether1 an address, it gives those of the
# LAN on ether2 theirs, and answers names. It is closed to whoever calls from outside.
/interface list add name=WAN comment=defconf
/interface list add name=LAN comment=defconf
/interface list member add list=LAN interface=ether2 comment=defconf
/interface list member add list=WAN interface=ether1 comment=defconf
/ip pool add name=default-dhcp ranges=192.168.0.10-192.168.0.254
/ip dhcp-server add name=defconf interface=ether2 address-pool=default-dhcp disabled=no
/ip address add address=192.168.0.1/24 interface=ether2 comment=defconf
/ip dhcp-client add interface=ether1 disabled=no comment=defconf
/ip dhcp-server network add address=192.168.0.0/24 gateway=192.168.0.1 dns-server=192.168.0.1 comment=defconf
/ip dns set allow-remote-requests=yes
/ip dns static add name=router.lan address=192.168.0.1 comment=defconf
/ip firewall nat add chain=srcnat action=masquerade out-interface-list=WAN comment="defconf: masquerade"
/ip firewall filter add chain=input action=accept connection-state=established,related,untracked comment="defconf: accept established,related,untracked"
/ip firewall filter add chain=input action=drop connection-state=invalid comment="defconf: drop invalid"
/ip firewall filter add chain=input action=accept protocol=icmp icmp-options=8:0 comment="defconf: accept echo requests"
/ip firewall filter add chain=input action=drop in-interface-list=!LAN comment="defconf: drop all not coming from LAN"
/ip firewall filter add chain=forward action=accept connection-state=established,related,untracked comment="defconf: accept established,related,untracked"
/ip firewall filter add chain=forward action=drop connection-state=invalid comment="defconf: drop invalid"
/ip firewall filter add chain=forward action=drop connection-state=new connection-nat-state=!dstnat in-interface-list=WAN comment="defconf: drop all from WAN not DSTNATed"
/ip neighbor discovery-settings set discover-interface-list=LAN
/ip service set ssh disabled=no
/ip service set api disabled=no
/ip service set www disabled=no
