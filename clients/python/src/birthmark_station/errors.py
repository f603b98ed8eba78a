"""What can go wrong. Every exception has a reason for programs and a sentence for people."""

from __future__ import annotations


class BirthmarkError(Exception):
    """Whatever this package raises.

    Attributes:
        message: One sentence for people.
        reason: A word for programs, such as ``KEY_REUSED``: the daemon's own (issuance.proto lists them) or, where none
            came from there, the name of the gRPC status code or one that this package documents.
        code: The name of the gRPC status code, such as ``ALREADY_EXISTS``; empty if the daemon was not asked.
        retryable: Whether the same call may succeed later without anything being changed. Asking again is always free:
            a device that has its certificate already gets the very same one.
        unanswered: The devices that were asked for and not answered when this ended a call.
    """

    retryable = False

    def __init__(self, message: str, reason: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.unanswered: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})" if self.reason else self.message


class SettingsError(BirthmarkError):
    """The address, the identity or an argument cannot be used; nothing was sent. Reason ``SETTINGS``."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "SETTINGS")


class TlsError(BirthmarkError):
    """One side refuses the other's certificate, or what listens there speaks no TLS. Reason ``TLS``.

    Trying again cannot help: certificates, addresses or clocks have to be put right first.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, "TLS")


class NotAllowed(BirthmarkError):
    """The daemon refuses this peer as a whole, not one device: the identity is not a station's, for example."""


class Refused(BirthmarkError):
    """The daemon gives this device no certificate, or does not confirm this one, and would not if it was asked again.

    Reasons that come from this package: ``REQUEST_INVALID`` and ``CSR_MALFORMED`` for what need not be sent, and
    ``REPLY_MISMATCH`` for a certificate that does not answer the CSR.
    """


class Unavailable(BirthmarkError):
    """The daemon could not be reached, or could not sign, for as long as the caller wanted to wait."""

    retryable = True


class DeadlineExceeded(Unavailable):
    """The time of the call is over. Reason ``DEADLINE_EXCEEDED``."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
