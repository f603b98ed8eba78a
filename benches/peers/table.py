"""Prints the results in a folder as one table: table.py FOLDER"""

import json
import pathlib
import sys


def read(name: str) -> dict:
    return json.loads((pathlib.Path(sys.argv[1]) / f"{name}.json").read_text())


def row(name: str, keeps: str, certificates_per_second: float, cpu_us: float | None, ours: float) -> list[str]:
    cpu = f"{cpu_us:.0f}" if cpu_us else "-"
    return [name, keeps, f"{certificates_per_second:,.0f}", cpu, f"{ours / certificates_per_second:.2f} ×"]


birthmark = read("birthmark")
ours = birthmark["certificates_per_second"]
rows = [["WHO", "KEY, AND WHAT IS KEPT", "CERTIFICATES/S", "CPU µs/CERTIFICATE", "BIRTHMARK IS"]]
keeps = "SoftHSM; serial numbers before signing, certificates, fsync"
rows.append(row("birthmark", keeps, ours, birthmark["daemon_cpu_us_per_certificate"], ours))
for name, title, keeps in [
    ("cfssl", "cfssl serve", "software key; nothing"),
    ("python-x509-pkcs11", "python-x509-pkcs11", "SoftHSM; nothing"),
    ("openssl", "openssl x509 -req, a loop", "software key; nothing"),
]:
    peer = read(name)
    if peer.get("failed"):
        sys.exit(f"table: {peer['failed']} of the requests to {title} failed; its figure would mean nothing")
    cpu = peer["cpu_seconds"] / peer["certificates"] * 1e6 if "cpu_seconds" in peer else None
    rows.append(row(title, keeps, peer["certificates"] / peer["seconds"], cpu, ours))

widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
for line in rows:
    cells = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))]
    print("  ".join(cells).rstrip())
