"""Calls of the daemon through gRPC, for both clients.

The asyncio client does not use grpc.aio: there, a write that fails hides the status with which the daemon ended the
stream, and leaves a task behind that never ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional, cast

import grpc

from . import _wire
from ._connect import Target
from .model import Access

Event = tuple[str, Any, Any]
"""What happened, where, and what came."""


class CallFailed(Exception):
    def __init__(self, failure: _wire.Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def why(faults: Sequence[Exception]) -> Exception:
    """Of what kept all daemons from answering, what tells the most: that one may come back, if one may."""
    calls = [fault for fault in faults if isinstance(fault, CallFailed)]
    passing = [call for call in calls if call.failure.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")]
    if len(faults) > 1 and len(passing) == len(faults):
        return CallFailed(_wire.Failure("UNAVAILABLE", "; ".join(call.failure.message for call in passing)))
    return [*passing, *calls, *faults][0]


class Connection:
    """A channel, and what the daemon said at its beginning."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.channel: Any = grpc.secure_channel(target.address, target.identity.credentials(), target.options)
        self.access = Access((), ())
        self.users = 0

    def call(self, method: str, message: bytes, timeout: float) -> bytes:
        """One unary call."""
        try:
            return cast(bytes, self.channel.unary_unary(method)(message, timeout=timeout))
        except grpc.RpcError as error:
            raise CallFailed(_wire.failure_of_call(error)) from None
        except ValueError as error:
            # The channel was closed meanwhile.
            raise CallFailed(_wire.Failure("CANCELLED", str(error))) from None

    def start(self, method: str, message: bytes, timeout: float) -> Any:
        """Begins one unary call; gives gRPC's future. Raises CallFailed."""
        try:
            return self.channel.unary_unary(method).future(message, timeout=timeout)
        except ValueError as error:
            # The channel was closed meanwhile.
            raise CallFailed(_wire.Failure("CANCELLED", str(error))) from None

    @staticmethod
    def result(call: Any) -> bytes:
        """The reply to a call. Raises CallFailed."""
        try:
            return cast(bytes, call.result())
        except grpc.RpcError as error:
            raise CallFailed(_wire.failure_of_call(error)) from None
        except grpc.FutureCancelledError:
            raise CallFailed(_wire.Failure("CANCELLED", "the connection was closed")) from None


class Stream:
    """An Issue stream: a thread reads it."""

    def __init__(self, connection: Connection, put: Callable[[Event], object]) -> None:
        self.connection = connection
        self._put = put
        self._outgoing: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self._call: Any = None
        self._cancelled = False
        threading.Thread(target=self._read, name="birthmark-replies", daemon=True).start()

    def send(self, messages: Iterable[bytes]) -> None:
        """Never waits: the session bounds what is unanswered."""
        for message in messages:
            self._outgoing.put(message)

    def close(self, cancel: bool) -> None:
        """Lets the daemon end the stream in good order, or ends it."""
        self._outgoing.put(None)
        self._cancelled = cancel
        if cancel and self._call is not None:
            self._call.cancel()

    def _read(self) -> None:
        try:
            self._call = self.connection.channel.stream_stream(_wire.ISSUE)(iter(self._outgoing.get, None))
            if self._cancelled:
                # It was ended before this thread began.
                self._call.cancel()
            for octets in self._call:
                self._put(("reply", self, _wire.issue_reply(octets)))
            failure = _wire.Failure("UNAVAILABLE", "the daemon ended the stream")
        except grpc.RpcError as error:
            failure = _wire.failure_of_call(error)
        except Exception as error:
            failure = _wire.Failure("INTERNAL", f"the stream broke: {error}")
        self._put(("broken", self, failure))
