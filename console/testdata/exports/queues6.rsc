# mar/02/2022 09:14:51 by RouterOS 6.49.2
# software id = ABCD-514X
#
# model = RB750Gr3
# serial number = HEX0514
/interface bridge
add name=bridge-lan
/queue simple
add max-limit=50M/200M name=total target=192.168.88.0/24
add burst-limit=4M/20M burst-threshold=1500k/8M burst-time=16s/16s comment="office PC" limit-at=1M/5M max-limit=2M/10M name=pc1 parent=total target=192.168.88.10/32
add limit-at=1M/5M max-limit=10M/50M name=pc2 parent=total priority=5/5 target=192.168.88.11/32
add disabled=yes max-limit=128k/256k name=old target=192.168.88.12/32,192.168.88.13/32
add max-limit=5M/5M name=voip packet-marks=voip parent=total priority=1/1 queue=default/default target=192.168.88.0/24
add max-limit=2M/2M name=night target=192.168.88.0/24 time=22h-1d,sun,mon,tue,wed,thu,fri,sat
add dst=ether1 max-limit=1M/3M name=guests target=192.168.99.0/24 total-queue=default
add max-limit=1M/1M name=fair queue=pcq-upload-default/pcq-download-default target=192.168.77.0/24
/queue interface
set ether1 queue=ethernet-default
/queue type
set 0 pfifo-limit=50
/interface bridge port
add bridge=bridge-lan interface=ether2
/ip address
add address=192.168.88.1/24 interface=bridge-lan network=192.168.88.0
add address=192.168.99.1/24 interface=ether3 network=192.168.99.0
/ip dhcp-client
add disabled=no interface=ether1
/ip firewall mangle
add action=mark-connection chain=forward dst-port=5060,10000-20000 new-connection-mark=voip-conn passthrough=yes protocol=udp
add action=mark-packet chain=forward connection-mark=voip-conn new-packet-mark=voip passthrough=no
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
