# 2024-02-14 04:12:22 by RouterOS 7.5
# software id = ABCD-245X
#
# model = RB750Gr3
# serial number = HEX0245
/ip dns
set allow-remote-requests=yes cache-max-ttl=1d cache-size=4096KiB max-concurrent-queries=200 servers=1.1.1.1,1.0.0.1 use-doh-server="" verify-doh-cert=no
/ip dns static
add address=192.168.1.5 name=nas.lan ttl=1h
add address=192.168.1.6 name=printer.lan
add cname=nas.lan name=files.lan type=CNAME
add forward-to=10.8.0.53 match-subdomain=yes name=corp.example type=FWD
add name=ads.example type=NXDOMAIN
add address=0.0.0.0 regexp="^ads[0-9]*\\.example\$"
add disabled=yes name=mail.lan text="v=spf1 -all" type=TXT
add mx-exchange=mail.lan mx-preference=10 name=lan type=MX
/ip dns adlist
add ssl-verify=no url=https://example.net/hosts.txt
/ip firewall nat
add action=redirect chain=dstnat comment="all DNS comes here" dst-port=53 protocol=udp to-ports=53
add action=redirect chain=dstnat dst-port=53 protocol=tcp to-ports=53
