"""Judges issued device certificates with Python's cryptography: python.py ROOT.pem ISSUER.pem CERT.pem…

ROOT is trusted; ISSUER holds the issuing CA first, then whatever stands between it and ROOT. Prints
`N certificates verified`, or on standard error the first bad certificate and what is wrong with it, and exits 1.
"""

import datetime
import sys

from cryptography import x509
from cryptography.hazmat.primitives import serialization

SKI = x509.SubjectKeyIdentifier
AKI = x509.AuthorityKeyIdentifier


class Bad(Exception):
    pass


def must(holds, message):
    if not holds:
        raise Bad(message)


def read(path):
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificates(file.read())


def extension(certificate, kind):
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def issued(issuer, certificate):
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception as error:
        raise Bad(f"not issued by {issuer.subject.rfc4514_string()}: {error!r}") from error


def check(certificate, issuer):
    issued(issuer, certificate)
    now = datetime.datetime.now(datetime.timezone.utc)
    must(certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc, "it is not valid now")
    must(certificate.version == x509.Version.v3, "it is not version 3")
    must(0 < certificate.serial_number < 1 << 159, "its serial number is not positive and up to 20 octets")
    must(certificate.issuer.public_bytes() == issuer.subject.public_bytes(), "its issuer is not the CA's subject")
    constraints = extension(certificate, x509.BasicConstraints)
    must(constraints and constraints.critical and not constraints.value.ca, "it does not say that it is no CA")
    usage = extension(certificate, x509.KeyUsage)
    must(usage and usage.critical and usage.value.digital_signature, "its key may not sign")
    must(not usage.value.key_cert_sign and not usage.value.crl_sign, "its key may sign certificates or CRLs")
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    client = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
    must(purposes is None or client in purposes.value, "it is not for TLS clients")
    authority = extension(certificate, AKI)
    identifier = extension(issuer, SKI).value.digest
    must(authority and authority.value.key_identifier == identifier, "its AKI is not the issuer's SKI")
    # Everything that can be read is read: a malformed value raises.
    for found in certificate.extensions:
        known = not isinstance(found.value, x509.UnrecognizedExtension)
        must(known or not found.critical, f"the critical extension {found.oid.dotted_string} is not known")
    certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def main():
    if len(sys.argv) < 4:
        sys.exit("usage: python.py ROOT.pem ISSUER.pem CERT.pem…")
    path = sys.argv[2]
    try:
        chain = read(path) + read(sys.argv[1])[:1]
        for below, above in zip(chain, chain[1:]):
            if below != above:
                issued(above, below)
        serials = set()
        for path in sys.argv[3:]:
            certificates = read(path)
            must(len(certificates) == 1, f"it holds {len(certificates)} certificates")
            check(certificates[0], chain[0])
            must(certificates[0].serial_number not in serials, "its serial number was used before")
            serials.add(certificates[0].serial_number)
    except (Bad, ValueError, OSError) as error:
        print(f"python: {path}: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{len(sys.argv) - 3} certificates verified")


main()
