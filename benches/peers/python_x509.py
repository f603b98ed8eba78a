"""Signs CSRs with python-x509-pkcs11 for some seconds and prints how many: python_x509.py SECONDS CSR…

The token is named by PKCS11_MODULE, PKCS11_TOKEN and PKCS11_PIN. The key is made first.
"""

import asyncio
import itertools
import json
import pathlib
import sys
import time

from python_x509_pkcs11 import ca, csr

NAME = {"common_name": "Peer CA"}


async def main(seconds: float, requests: list[str]) -> None:
    await ca.create("peer-ca", NAME, key_type="secp256r1")
    began, cpu = time.monotonic(), time.process_time()
    times: list[float] = []
    for request in itertools.cycle(requests):
        before = time.monotonic()
        certificate = await csr.sign_csr("peer-ca", NAME, request, key_type="secp256r1")
        if "BEGIN CERTIFICATE" not in certificate:
            sys.exit("no certificate")
        times.append((time.monotonic() - before) * 1e3)
        elapsed = time.monotonic() - began
        if elapsed >= seconds:
            break
    cpu = time.process_time() - cpu
    times.sort()
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    result = {"certificates": len(times), "seconds": elapsed, "cpu_seconds": cpu, "p50_ms": p50, "p99_ms": p99}
    print(json.dumps(result))


asyncio.run(main(float(sys.argv[1]), [pathlib.Path(path).read_text(encoding="ascii") for path in sys.argv[2:]]))
