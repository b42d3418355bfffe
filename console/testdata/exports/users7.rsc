# 2024-05-17 07:15:22 by RouterOS 7.8
# software id = ABCD-578X
#
# model = RB750Gr3
# serial number = HEX0578
/user group
add name=monitor policy=read,winbox,!write
/user
add group=read name=view
/user settings
set minimum-password-length=8
/user aaa
set use-radius=no
/ip ssh
set always-allow-password-login=no forwarding-enabled=no
/ip service
set www-ssl certificate=web disabled=no
set ssh max-sessions=5
/ip cloud
set ddns-enabled=yes ddns-update-interval=1h
/ip settings
set max-neighbor-entries=8192 rp-filter=loose
/ip settings
set rp-filter=strict tcp-syncookies=yes
/ipv6 settings
set disable-ipv6=yes
/ip neighbor discovery-settings
set discover-interface-list=!dynamic
/ip tftp
add ip-addresses=10.0.0.0/24 real-filename=boot
