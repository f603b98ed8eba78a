"""The only file that knows protobuf: from our types to octets and back.

The messages live in a descriptor pool of their own. So they are in nobody's way who has generated code of the same
files or Google's, and fit every version of protobuf: generated Python code demands a runtime that is not older than its
generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any, Optional, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from .model import Access, Issuer, Profile

ISSUE = "/birthmark.v1.Issuance/Issue"
CONFIRM = "/birthmark.v1.Issuance/Confirm"
GET_ISSUER = "/birthmark.v1.Issuance/GetIssuer"

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def _load() -> descriptor_pool.DescriptorPool:
    octets = resources.files(__package__).joinpath("_wire.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(octets).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


_IssueRequest = _message("birthmark.v1.IssueRequest")
_IssueReply = _message("birthmark.v1.IssueReply")
_ConfirmRequest = _message("birthmark.v1.ConfirmRequest")
_ConfirmReply = _message("birthmark.v1.ConfirmReply")
_GetIssuerRequest = _message("birthmark.v1.GetIssuerRequest")
_GetIssuerReply = _message("birthmark.v1.GetIssuerReply")
_Status = _message("google.rpc.Status")
_ErrorInfo = _message("google.rpc.ErrorInfo")
_RetryInfo = _message("google.rpc.RetryInfo")


@dataclass(frozen=True)
class Failure:
    """An error that the daemon, or the way to it, gave."""

    code: str
    """The name of the gRPC status code."""
    message: str
    reason: str = ""
    """The daemon's; empty if it gave none."""
    retry_after: Optional[float] = None
    """Seconds, from google.rpc.RetryInfo."""

    @property
    def word(self) -> str:
        """The reason for programs."""
        return self.reason or self.code

    def __str__(self) -> str:
        if not self.message:
            return self.word
        return f"{self.message} ({self.reason})" if self.reason else self.message


@dataclass(frozen=True)
class Issued:
    """A certificate as it came."""

    certificate: bytes
    serial_number: bytes
    certificate_id: str
    issuer: str
    replay: bool


@dataclass(frozen=True)
class Reply:
    """An answer as it came; neither of the two is there if the daemon is newer than this package."""

    request_id: str
    issued: Optional[Issued]
    failure: Optional[Failure]


def issue_request(request_id: str, device_id: str, order: str, profile: str, csr: bytes, reissue: bool) -> bytes:
    """One certificate wanted."""
    message = _IssueRequest(
        request_id=request_id, device_id=device_id, order=order, profile=profile, csr=csr, reissue=reissue
    )
    return cast(bytes, message.SerializeToString())


def issue_reply(octets: bytes) -> Reply:
    """The answer to one request."""
    message = _IssueReply.FromString(octets)
    kind = message.WhichOneof("result")
    issued = failure = None
    if kind == "issued":
        was = message.issued
        issued = Issued(was.certificate, was.serial_number, was.certificate_id, was.issuer, was.replay)
    elif kind == "error":
        failure = _failure(message.error)
    return Reply(message.request_id, issued, failure)


def confirm_request(serial_numbers: list[bytes]) -> bytes:
    """The certificates that devices have taken."""
    return cast(bytes, _ConfirmRequest(serial_numbers=serial_numbers).SerializeToString())


def confirm_reply(octets: bytes) -> list[Optional[Failure]]:
    """The answers, in the order of the request; none: it is confirmed."""
    results = _ConfirmReply.FromString(octets).results
    return [_failure(result.error) if result.HasField("error") else None for result in results]


def get_issuer_request() -> bytes:
    """Asks for everything that this peer may use."""
    return cast(bytes, _GetIssuerRequest().SerializeToString())


#: OrderRequirement.ORDER_REQUIREMENT_OPTIONAL of issuance.proto.
_ORDER_REQUIREMENT_OPTIONAL = 2


def get_issuer_reply(octets: bytes) -> Access:
    """What this peer may use."""
    message = _GetIssuerReply.FromString(octets)
    issuers = tuple(Issuer(issuer.name, tuple(issuer.chain)) for issuer in message.issuers)
    profiles = tuple(
        Profile(
            profile.name,
            profile.issuer,
            tuple(profile.key_types),
            order_optional=profile.order_requirement == _ORDER_REQUIREMENT_OPTIONAL,
        )
        for profile in message.profiles
    )
    return Access(issuers, profiles)


def failure_of_call(error: Any) -> Failure:
    """What a ``grpc.RpcError`` that a call raised says."""
    return failure_of(error.code().name, error.details(), error.trailing_metadata())


def failure_of(code: str, details: Optional[str], trailing: Any) -> Failure:
    """What a call's status says."""
    for key, value in trailing or ():
        if key == "grpc-status-details-bin":
            try:
                failure = _failure(_Status.FromString(value))
            except Exception:  # Not the daemon's; protobuf's own type of error is not public in every version.
                break
            return Failure(code, failure.message, failure.reason, failure.retry_after)
    return Failure(code, details or "")


def _failure(status: Any) -> Failure:
    reason, retry_after = "", None
    for detail in status.details:
        name = detail.type_url.rpartition("/")[2]
        if name == "google.rpc.ErrorInfo":
            info = _ErrorInfo.FromString(detail.value)
            if info.domain == "birthmark":
                reason = info.reason
        elif name == "google.rpc.RetryInfo":
            delay = _RetryInfo.FromString(detail.value).retry_delay
            retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
    return Failure(_CODES.get(status.code, "UNKNOWN"), status.message, reason, retry_after)
