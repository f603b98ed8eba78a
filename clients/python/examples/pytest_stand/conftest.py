"""A test stand in pytest: the connection to the daemon, and the device on the stand.

    pytest examples/pytest_stand --serial-number SN-0001 --order lot-42

The daemon and this stand's identity come from BIRTHMARK_SERVER and BIRTHMARK_IDENTITY.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark_station import Station


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--serial-number", required=True, help="of the device on the stand, as the scanner reads it")
    parser.addoption("--order", required=True, help="the production order")
    parser.addoption("--profile", default="device", help="the profile of the certificate")


@pytest.fixture(scope="session")
def station() -> Iterator[Station]:
    """One connection for all devices; it connects again by itself."""
    with Station() as station:
        yield station


class Device:
    """The device on the stand. Here it is made of Python; put what speaks with yours in its place."""

    def __init__(self, serial_number: str) -> None:
        self.serial_number = serial_number
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = b""

    def read_csr(self) -> bytes:
        """The device makes a key, which never leaves it, and a CSR for it."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.serial_number)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
        return csr.public_bytes(serialization.Encoding.DER)

    def write_certificates(self, pem: str) -> None:
        """The device stores its certificate and those of its CAs."""
        self._certificate = pem.encode()

    def read_certificate(self) -> bytes:
        """What the device has stored, DER."""
        first = x509.load_pem_x509_certificates(self._certificate)[0]
        return first.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Device:
    """The device on the stand."""
    return Device(request.config.getoption("--serial-number"))
