"""A program that manages a router by librouteros over TLS: HOST PORT PASSWORD CAFILE. It prints what it has seen."""
import ssl
import sys
from functools import partial

from librouteros import connect

host, port, password, ca = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def over(context):
    return connect(host=host, port=port, username="admin", password=password, ssl_wrapper=partial(context.wrap_socket, server_hostname=host))


trusting = ssl.create_default_context(cafile=ca)
trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # as of Python 3.13
api = over(trusting)
print(*(row["name"] for row in api.path("system", "identity")))
api.close()

careless = ssl.create_default_context()
careless.check_hostname = False
careless.verify_mode = ssl.CERT_NONE
careless.maximum_version = ssl.TLSVersion.TLSv1_2
api = over(careless)
print(*(row["name"] for row in api.path("system", "identity")))
api.close()

for name, context in (("no CA", ssl.create_default_context()), ("TLS 1.1", ssl.create_default_context(cafile=ca))):
    if name == "TLS 1.1":
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        over(context)
    except ssl.SSLError:
        print(name, "is refused")
