# jan/08/2022 15:05:48 by RouterOS 6.44
# software id = WXYZ-584A
#
# model = RB750Gr3
# serial number = 7E0584
/ip hotspot profile
set [ find default=yes ] html-directory=flash/hotspot
add dns-name=login.example hotspot-address=10.5.50.1 name=hsprof1
/ip hotspot
add address-pool=hs disabled=no interface=ether3 name=hotspot1 profile=hsprof1
/ip pool
add name=hs ranges=10.5.50.2-10.5.50.254
/ip address
add address=10.5.50.1/24 comment="hotspot network" interface=ether3 network=\
    10.5.50.0
/ip firewall filter
add action=passthrough chain=unused-hs-chain comment=\
    "place hotspot rules here" disabled=yes
/ip firewall nat
add action=passthrough chain=unused-hs-chain comment=\
    "place hotspot rules here" disabled=yes
add action=masquerade chain=srcnat comment="masquerade hotspot network" \
    src-address=10.5.50.0/24
add action=redirect chain=dstnat dst-port=80 hotspot=auth protocol=tcp \
    to-ports=64874
/ip hotspot user
add name=guest
