"""A program that manages a router by librouteros: HOST PORT PASSWORD. It prints what it has seen."""
import sys

from librouteros import connect
from librouteros.exceptions import TrapError
from librouteros.login import token
from librouteros.query import And, Key, Or

host, port, password = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def refused(do):
    try:
        do()
    except TrapError as e:
        print(e.message)
    else:
        sys.exit("it is not refused")


refused(lambda: connect(host=host, port=port, username="admin", password="wrong"))
refused(lambda: connect(host=host, port=port, username="admin", password=password, login_method=token))

api = connect(host=host, port=port, username="admin", password=password)
(resource,) = api.path("system", "resource")
print(resource["version"], "postern-version" in resource, resource["free-memory"] > 1000000)

refused(lambda: tuple(api.path("interface", "wireless")))
refused(lambda: tuple(api("/ip/address/frobnicate")))

for interface in api.path("interface"):
    assert interface["mtu"] >= 1280 and len(interface["mac-address"]) == 17 and interface["disabled"] is False, interface

addresses = api.path("ip", "firewall", "address-list")
first = addresses.add(list="friends", address="10.1.0.1", comment="c" * 200)
second = addresses.add(list="friends", address="10.1.0.2", disabled=True)
third = addresses.add(list="others", address="10.1.0.3")
key, lst, disabled = Key("address"), Key("list"), Key("disabled")


def show(*where):
    print(sorted(row["address"] for row in addresses.select(key).where(*where)))


show(lst == "friends")
show(lst == "friends", disabled == True)
show(disabled == False, lst.In("friends", "others"))
show(Or(key == "10.1.0.1", key == "10.1.0.3"))
show(And(lst == "friends", disabled == True))
show(lst != "friends")
addresses.update(**{".id": first, "address": "10.1.0.9", "comment": ""})
print([(row["address"], "comment" in row) for row in addresses if row[".id"] == first])
addresses.remove(first, second, third)
print(len(tuple(addresses)))
refused(lambda: addresses.remove(first))
refused(lambda: addresses.add(list="friends", address="10.1.0.300"))
api.close()
