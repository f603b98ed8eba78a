#!/usr/bin/env python3
"""Makes the CA certificates of the golden profiles anew: make-cas.py FOLDER. Their keys are thrown away.

The golden files change with them; `UPDATE_GOLDEN=1 cargo test --test it golden` writes those.
"""

import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

FROM = datetime.datetime(2025, 1, 1)
NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59)
VID = ObjectIdentifier("1.3.6.1.4.1.37244.2.1")


def certificate(common_name, key, until, issuer=None, issuer_key=None, path_length=0, vid=None):
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"),
                  x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if vid:
        attributes.append(x509.NameAttribute(VID, vid))
    subject = x509.Name(attributes)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    signing_key = issuer_key or key
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    builder = (x509.CertificateBuilder()
               .subject_name(subject)
               .issuer_name(issuer.subject if issuer else subject)
               .public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(FROM)
               .not_valid_after(until)
               .add_extension(x509.BasicConstraints(True, path_length), True)
               .add_extension(usage, True)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
               .add_extension(authority, False))
    return builder.sign(signing_key, hashes.SHA256())


def main():
    folder = pathlib.Path(sys.argv[1])
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = certificate("Golden Root", root_key, NEVER, path_length=1)
    certificates = {"root": root}
    for name, until, vid in [("issuer", datetime.datetime(2055, 1, 1), None), ("idevid-ca", NEVER, None),
                             ("pai", NEVER, "FFF1")]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificates[name] = certificate(f"Golden {name}", key, until, root, root_key, vid=vid)
    key = rsa.generate_private_key(65537, 3072)
    certificates["rsa"] = certificate("Golden rsa", key, datetime.datetime(2055, 1, 1), root, root_key)
    for name, made in certificates.items():
        (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))


main()
