# 2024-09-12 02:19:22 by RouterOS 7.12
# software id = ABCD-9212X
#
# model = CSS610
# serial number = HEX09212
/interface bridge
add name=bridge1 priority=0x8000 protocol-mode=none
/interface ethernet switch
set 0 mirror-source=none
/interface bridge port
add bridge=bridge1 hw=yes ingress-filtering=no interface=ether1 trusted=yes
add bridge=bridge1 interface=ether2 internal-path-cost=10 path-cost=10
add bridge=bridge1 edge=yes interface=ether3
add bridge=bridge1 bpdu-guard=yes interface=ether4
/interface bridge settings
set use-ip-firewall=no
/ip dhcp-client
add interface=bridge1
/system identity
set name=sw1
/system swos
set allow-from-ports=p1
