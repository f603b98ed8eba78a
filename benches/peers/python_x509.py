"""Signs CSRs with python-x509-pkcs11 for some seconds and prints how many: python_x509.py SECONDS CSR…

The token is named by PKCS11_MODULE, PKCS11_TOKEN and PKCS11_PIN. The key is made first.
"""

import asyncio
import itertools
import json
import sys
import time

from python_x509_pkcs11 import ca, csr

NAME = {"common_name": "Peer CA"}


async def main() -> None:
    seconds = float(sys.argv[1])
    requests = [open(path, encoding="ascii").read() for path in sys.argv[2:]]
    await ca.create("peer-ca", NAME, key_type="secp256r1")
    began = time.monotonic()
    signed = 0
    for request in itertools.cycle(requests):
        await csr.sign_csr("peer-ca", NAME, request, key_type="secp256r1")
        signed += 1
        elapsed = time.monotonic() - began
        if elapsed >= seconds:
            break
    print(json.dumps({"certificates": signed, "seconds": elapsed, "cpu_seconds": time.process_time()}))


asyncio.run(main())
