"""Where the daemon is, who we are to it, and why there is no connection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union
from urllib.parse import urlsplit

import grpc

from . import _wire
from .errors import SettingsError, TlsError

PathLike = Union[str, "os.PathLike[str]"]

Servers = Union[None, str, Sequence[str]]
"""One https://HOST:PORT or several, also with commas between them; none: the environment's BIRTHMARK_SERVER."""

OPENING = 10.0
"""How many seconds connecting with the first call may take; a healthy line network needs milliseconds."""

_PROBING = 3.0

_AVOIDED = 10.0
"""For how many seconds a daemon that was left is asked after the others."""

OPTIONS: list[tuple[str, Any]] = [
    # A daemon that lost its power sends no FIN: without pings a station would wait for it indefinitely.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The session decides what is sent again, and when to connect again: each time with a channel of its own.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # The daemon is on the line's network; a proxy for the internet is none for it.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.primary_user_agent", "birthmark-station-python"),
]

_REFUSALS = (
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
    "ALERT_DECRYPT_ERROR",
    "ALERT_CERTIFICATE_REQUIRED",
    "CERTIFICATE_REQUIRED",
)


@dataclass(frozen=True)
class Identity:
    """The files with which a station proves who it is, and knows the daemon; all PEM.

    They are read again for each connection, so a certificate may be renewed while the program runs.
    """

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def from_folder(cls, folder: PathLike) -> Identity:
        """A folder with cert.pem, key.pem and ca.pem, as "birthmark station enroll" makes it."""
        return cls(Path(folder) / "cert.pem", Path(folder) / "key.pem", Path(folder) / "ca.pem")

    def check(self) -> None:
        """Raises SettingsError if they cannot be used."""
        self._context()

    def credentials(self) -> grpc.ChannelCredentials:
        """The files as gRPC wants them."""
        self.check()
        try:
            parts = [path.read_bytes() for path in (self.ca, self.key, self.certificate)]
        except OSError as error:
            raise SettingsError(f"cannot read the identity: {error}") from None
        return grpc.ssl_channel_credentials(*parts)

    def _context(self) -> ssl.SSLContext:
        for path in (self.certificate, self.key, self.ca):
            try:
                mode = path.stat().st_mode
            except OSError as error:
                raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None
            # Windows has no such mode: there the folder's access list protects the key.
            if path == self.key and os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise SettingsError(
                    f"the private key {path} can be used by others (mode {stat.S_IMODE(mode):04o}); "
                    f"run chmod 600 {path}, and enroll again if somebody may have read it"
                )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        try:
            context.load_verify_locations(cafile=str(self.ca))
        except (ssl.SSLError, OSError) as error:
            raise SettingsError(f"{self.ca} holds no PEM certificate: {error}") from None
        try:
            # Without a password nobody is asked for one on a terminal.
            context.load_cert_chain(str(self.certificate), str(self.key), password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            raise SettingsError(f"{self.certificate} and {self.key} cannot be used together: {error}") from None
        return context


class Targets:
    """The daemons that serve one ledger, one or several: which is asked first, and which when that one is away."""

    def __init__(self, servers: list[tuple[str, int]], identity: Identity) -> None:
        self.identity = identity
        self._servers = servers
        self._left: Optional[tuple[Target, float]] = None

    @classmethod
    def of(cls, server: Servers, identity: Union[None, PathLike, Identity]) -> Targets:
        """What the caller said, or the environment: BIRTHMARK_SERVER and BIRTHMARK_IDENTITY. Raises SettingsError."""
        server = server or os.environ.get("BIRTHMARK_SERVER")
        identity = identity or os.environ.get("BIRTHMARK_IDENTITY")
        if not server:
            raise SettingsError("say which daemon: https://HOST:PORT, or set BIRTHMARK_SERVER")
        if not identity:
            raise SettingsError(
                'say who this is: the folder that "birthmark station enroll" made, or set BIRTHMARK_IDENTITY'
            )
        names = [server] if isinstance(server, str) else server
        servers = [_host_and_port(url.strip()) for name in names for url in name.split(",")]
        if not isinstance(identity, Identity):
            identity = Identity.from_folder(identity)
        identity.check()
        return cls(servers, identity)

    def in_order(self) -> list[Target]:
        """All daemons. Each identity has an order of its own, so that stations spread; one that was left comes last."""
        targets = [
            Target(host, port, self.identity, at) for host, port in self._servers for at in _addresses(host, port)
        ]
        try:
            who = Path(self.identity.certificate).read_bytes()
        except OSError:
            # It is being renewed.
            who = b""
        targets.sort(key=lambda target: hashlib.sha256(who + target.address.encode()).digest())
        if self._left is not None and time.monotonic() - self._left[1] < _AVOIDED:
            left = self._left[0]
            targets.sort(key=lambda target: target == left)
        return targets

    def leave(self, target: Target) -> None:
        """It was of no use: for a moment the others come first."""
        self._left = (target, time.monotonic())


@dataclass(frozen=True)
class Target:
    """A daemon, and who we are to it."""

    host: str
    port: int
    identity: Identity
    at: Optional[str] = None
    """One of the name's addresses, if it stands for several machines."""

    @property
    def address(self) -> str:
        """As gRPC wants it."""
        host = self.at or self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def options(self) -> list[tuple[str, Any]]:
        """The certificate is that of the name, whichever of its addresses this is."""
        if self.at is None:
            return OPTIONS
        return [*OPTIONS, ("grpc.ssl_target_name_override", self.host)]

    def diagnose(self, failure: _wire.Failure) -> _wire.Failure:
        """Why a connection could not be made, which gRPC tells in words that help nobody. Raises TlsError.

        It connects once more, without gRPC.
        """
        if failure.reason or failure.code not in ("UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED"):
            return failure
        at = f"cannot connect to the daemon at https://{self.address}"
        context = self.identity._context()
        try:
            with (
                socket.create_connection((self.at or self.host, self.port), _PROBING) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as secured,
            ):
                # With TLS 1.3 a refusal of our certificate comes after the handshake, in place of HTTP/2's first frame.
                with contextlib.suppress(TimeoutError, socket.timeout):
                    secured.recv(1)
        except ssl.SSLCertVerificationError as error:
            raise TlsError(f"{at}: {_untrusted(error)}") from None
        except ssl.SSLError as error:
            word = error.reason or ""
            if any(refusal in word for refusal in _REFUSALS):
                raise TlsError(f"{at}: the daemon refused the identity's certificate ({word})") from None
            if word in ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
                raise TlsError(
                    f"{at}: it does not speak TLS; perhaps this is the daemon's HTTP port and not that of gRPC"
                ) from None
            return _wire.Failure("UNAVAILABLE", f"{at}: {error}")
        except OSError as error:
            return _wire.Failure("UNAVAILABLE", f"{at}: {error.strerror or error}")
        return failure


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _addresses(host: str, port: int) -> list[Optional[str]]:
    """Those of a name that stands for several machines; otherwise none, and gRPC resolves it."""
    if _is_address(host):
        return [None]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return [None]
    families: dict[Any, list[Optional[str]]] = {}
    for family, _, _, _, address in found:
        addresses = families.setdefault(family, [])
        if str(address[0]) not in addresses:
            addresses.append(str(address[0]))
    if all(len(addresses) < 2 for addresses in families.values()):
        return [None]
    return [address for addresses in families.values() for address in addresses]


def _host_and_port(server: str) -> tuple[str, int]:
    try:
        parts = urlsplit(server)
        if parts.scheme == "https" and parts.hostname and parts.port and server.count("/") == 2 and not parts.username:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise SettingsError(f"{server!r} is not an address of the form https://HOST:PORT")


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    # OpenSSL's X509_V_ERR_…
    if error.verify_code in (2, 18, 19, 20, 21, 7):
        return f"the daemon's certificate does not come from the CA in the identity's ca.pem ({error.verify_message})"
    if error.verify_code in (9, 10):
        return f"{error.verify_message}: renew the daemon's certificate, or set this computer's clock"
    return f"the daemon's certificate is not valid here: {error.verify_message}"
