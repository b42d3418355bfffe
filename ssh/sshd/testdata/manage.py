"""A program that manages a router by Netmiko: HOST PORT PASSWORD IDENTITY. It prints what it has seen.

Netmiko 2 cuts as much off an answer as RouterOS writes before it, which is the command, and the prompt and the command again.
Postern writes the command once, so that is off here, and send does it. Netmiko also presses Enter and waits for a tenth of a
second, which a slow machine takes longer for: so it is told what to wait for.
"""
import re
import sys
import time

from netmiko import ConnectHandler
from netmiko.ssh_exception import NetMikoAuthenticationException

host, port, password, identity = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
prompt = "[admin@%s] > " % identity


def connect(password, slow=1):
    """Logs in. Netmiko gives up if it is not prompted in about a second, or slow times that."""
    try:
        c = ConnectHandler(device_type="mikrotik_routeros", host=host, port=port, username="admin", password=password,
                           timeout=180, auth_timeout=180, banner_timeout=180, blocking_timeout=180, global_delay_factor=slow)
    except ValueError:
        if slow > 100:
            raise
        return connect(password, 12 * slow)
    c.global_delay_factor = 1
    return c


def send(command, until=r"\n" + re.escape(prompt) + "$"):
    said = connection.send_command(command, expect_string=until, strip_command=False, strip_prompt=False)
    return said[said.index(command) + len(command):].replace(prompt, "").strip("\n")


try:
    connect("wrong")
except NetMikoAuthenticationException:
    print("a wrong password is refused")

start = time.monotonic()
connection = connect(password)
print("Netmiko has logged in after %.1f s" % (time.monotonic() - start), file=sys.stderr)
print(connection.base_prompt.strip())
# What it has pressed Enter for is over with the first answer.
print(send("/system identity print", "name: (.*\n)+" + re.escape(prompt) + "$"))
print(send("/system identity prnt").split(";")[0])
connection.send_config_set(["/ip firewall address-list add list=friends address=203.0.113.%d" % i for i in (7, 8)])
print(send("/ip firewall address-list print count-only", r"\n2\r\n" + re.escape(prompt) + "$"))
long = "c" * 200
print(send("/ip firewall address-list add list=friends comment=%s address=203.0.113.9" % long) or "a long command says nothing")
export = send("/export").replace("\\\n    ", "")
print("\n".join(line for line in export.split("\n") if "list=friends" in line).replace(long, "C"))
assert prompt.strip() not in export and "\x1b" not in export, export
start = time.monotonic()
for _ in range(5):
    send("/system identity print")
print("five commands take %.1f s" % (time.monotonic() - start), file=sys.stderr)
send("/ip firewall address-list remove [find list=friends]")
connection.disconnect()
