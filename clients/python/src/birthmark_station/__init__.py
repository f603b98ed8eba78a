"""Device certificates for a test stand: the station client of the Birthmark signing daemon.

from birthmark_station import Station

with Station("https://ca.line1:8443", "line1-tester1") as station:
    certificate = station.issue("SN-0001", csr, profile="device", order="lot-42")
"""

from importlib.metadata import version

from . import _fork as _fork
from ._confirming import Taken
from ._connect import Identity
from ._session import OnProgress, Wanted
from .aio import AsyncStation
from .errors import (
    BirthmarkError,
    DeadlineExceeded,
    NotAllowed,
    Refused,
    SettingsError,
    TlsError,
    Unavailable,
)
from .model import Access, Certificate, Confirmation, Csr, Issuer, Profile, Progress, Request, Result
from .station import Station

__version__ = version("birthmark-station")

__all__ = [
    "Access",
    "AsyncStation",
    "BirthmarkError",
    "Certificate",
    "Confirmation",
    "Csr",
    "DeadlineExceeded",
    "Identity",
    "Issuer",
    "NotAllowed",
    "OnProgress",
    "Profile",
    "Progress",
    "Refused",
    "Request",
    "Result",
    "SettingsError",
    "Station",
    "Taken",
    "TlsError",
    "Unavailable",
    "Wanted",
    "__version__",
]
