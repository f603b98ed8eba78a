"""CSRs as devices make them."""

from __future__ import annotations

import itertools
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def csr(name: str, key: Any = None, encoding: serialization.Encoding = serialization.Encoding.PEM) -> bytes:
    """A CSR for a new P-256 key, or this one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(encoding)


_FRESH = itertools.count()


def fresh(prefix: str) -> str:
    """A device that no test has had before."""
    return f"{prefix}-{next(_FRESH)}"


def csrs(prefix: str, count: int) -> list[tuple[str, bytes]]:
    """Fresh devices and their CSRs."""
    names = [fresh(prefix) for _ in range(count)]
    return [(name, csr(name)) for name in names]


def weak_csr(name: str) -> bytes:
    """A key that no daemon takes."""
    return csr(name, rsa.generate_private_key(public_exponent=65537, key_size=1024))
