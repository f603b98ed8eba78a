"""What goes in and what comes out."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Optional, Union

from . import _der
from .errors import Refused

Csr = Union[bytes, str]
"""A PKCS#10 certificate signing request, DER or PEM."""


def certificate_pem(der: bytes) -> str:
    """A DER certificate as PEM with lines of 64 characters that end in a line feed (RFC 7468)."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


@dataclass(frozen=True)
class Request:
    """A device that is to have a certificate."""

    device_id: str
    """1 to 128 characters of ``A-Z a-z 0-9 . _ : -``, the first a letter or digit."""
    csr: Csr
    profile: Optional[str] = None
    """Where it differs from the call's."""
    order: Optional[str] = None
    """Where it differs from the call's."""
    reissue: Optional[bool] = None
    """The device's certificate was scrapped or revoked, and it is to have a new one, for a new key."""


@dataclass(frozen=True)
class Certificate:
    """A certificate; its record was on stable storage before it was sent."""

    device_id: str
    der: bytes
    serial_number: bytes
    """The content octets of the certificate's serial number, big-endian."""
    certificate_id: str
    """SHA-256 of ``der``, lowercase hex: what AWS IoT calls the certificateId."""
    issuer: str
    """The issuer's name in the daemon's configuration."""
    replay: bool
    """It had been issued before: nothing was signed or counted."""
    chain: tuple[bytes, ...]
    """The issuing CA's certificate, and each one that issued the one before it, DER."""

    @property
    def serial(self) -> str:
        """The serial number as the daemon's command line writes it."""
        return self.serial_number.hex()

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return certificate_pem(self.der)

    @property
    def chain_pem(self) -> str:
        """What a device presents: its certificate and those of its CAs, but for a root above the issuing CA."""
        cas = [ca for index, ca in enumerate(self.chain) if index == 0 or not _der.is_self_issued(ca)]
        return "".join(certificate_pem(der) for der in (self.der, *cas))


@dataclass(frozen=True)
class Result:
    """What became of a request: either ``certificate`` or ``error`` is there."""

    request: Request
    certificate: Optional[Certificate] = None
    error: Optional[Refused] = None

    @property
    def device_id(self) -> str:
        """The device that was asked for."""
        return self.request.device_id

    def unwrap(self) -> Certificate:
        """The certificate.

        Raises:
            Refused: There is none.
        """
        if self.certificate is not None:
            return self.certificate
        raise self.error if self.error is not None else Refused("there is no answer", "REPLY_MISMATCH")


@dataclass(frozen=True)
class Confirmation:
    """Whether a certificate is confirmed: without an error it is, now or since before."""

    serial_number: bytes
    error: Optional[Refused] = None

    @property
    def serial(self) -> str:
        """The serial number as the daemon's command line writes it."""
        return self.serial_number.hex()


@dataclass(frozen=True)
class Progress:
    """How far a call is."""

    issued: int
    """New certificates."""
    replayed: int
    """Certificates that had been issued before and were given again."""
    refused: int
    unanswered: int
    """Asked for and not answered yet."""
    waiting: Optional[str]
    """Why the daemon cannot sign for now, as one sentence; none if it can."""


@dataclass(frozen=True)
class Issuer:
    """An issuing CA."""

    name: str
    chain: tuple[bytes, ...]
    """Its certificate, and each one that issued the one before it, DER."""


@dataclass(frozen=True)
class Profile:
    """A certificate profile."""

    name: str
    issuer: str
    key_types: tuple[str, ...]
    """``p256``, ``p384``, ``p521``, ``ed25519``, ``rsa2048``, ``rsa3072``, ``rsa4096``."""
    order_optional: bool


@dataclass(frozen=True)
class Access:
    """What the daemon lets this station use."""

    issuers: tuple[Issuer, ...]
    profiles: tuple[Profile, ...]
