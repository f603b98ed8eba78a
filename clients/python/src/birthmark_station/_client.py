"""What the synchronous and the asyncio client do alike: who uses the connection, and what follows from what happens."""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional, Union

from . import _wire
from ._channel import CallFailed, Connection, Event, Stream
from ._connect import Identity, PathLike, Servers, Target, Targets
from ._session import Broken, Session
from .errors import SettingsError
from .model import Result


class Client:
    """The connection of a station, and how many calls use it."""

    def __init__(self, server: Servers = None, identity: Union[None, PathLike, Identity] = None) -> None:
        self._targets = Targets.of(server, identity)
        # Never held while anything is waited for.
        self._lock = threading.Lock()
        self._connection: Optional[Connection] = None
        self._connected = self._closed = False

    def _end(self) -> None:
        """Ends the connection, and with it the calls under way."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.channel.close()

    def _use(self, made: Optional[Connection]) -> Optional[Connection]:
        """The connection that is there, or the one that was just made, with one user more. Raises SettingsError."""
        with self._lock:
            if not self._closed:
                self._connection = self._connection or made
                if self._connection is not None:
                    self._connected = True
                    self._connection.users += 1
                return self._connection
        if made is not None:
            made.channel.close()
        raise SettingsError("the station is closed")

    def _channel_to(self, target: Target) -> Connection:
        """A channel on which nothing was said yet. Raises CallFailed and, the first time, SettingsError."""
        try:
            return Connection(target)
        except SettingsError as error:
            if not self._connected:
                raise
            # Somebody is renewing the certificate.
            raise CallFailed(_wire.Failure("UNAVAILABLE", error.message)) from None

    def _drop(self, connection: Connection) -> None:
        """Nobody gets this connection again."""
        self._targets.leave(connection.target)
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def _release(self, connection: Connection) -> None:
        with self._lock:
            connection.users -= 1
            unused = connection.users == 0 and self._connection is not connection
        if unused:
            connection.channel.close()


class Exchange:
    """One call of issue_many, and the stream that is open for it."""

    def __init__(self, client: Client, session: Session) -> None:
        self._client, self._session = client, session
        self._stream: Optional[Stream] = None

    def needs_stream(self) -> bool:
        """Whether one is to be opened now; raises when the caller's patience is over."""
        session = self._session
        session.check()
        return self._stream is None and not session.idle and time.monotonic() >= session.reopen_at

    def open(self, connection: Connection, put: Callable[[Event], object]) -> None:
        """Opens a stream; what comes is put there."""
        self._stream = Stream(connection, put)
        self._stream.send(self._session.opened(connection.access))

    def pause(self) -> float:
        """Sends what is due; how many seconds there is nothing more to do unless something comes."""
        if self._stream is not None:
            self._stream.send(self._session.due())
        return self._session.pause(self._stream is not None)

    def take(self, event: Event) -> Optional[Result]:
        """What became of a request, if that is known now."""
        kind, origin, content = event
        if kind == "item":
            added = self._session.add(content)
            if isinstance(added, Result):
                return added
            if self._stream is not None:
                self._stream.send([added])
        elif kind == "reply":
            try:
                return self._session.settle(content)
            except Broken as error:
                self._break(origin, error.failure)
        elif kind == "broken":
            self._break(origin, content)
        elif kind == "ended":
            self._session.input_ended = True
        elif kind == "failed":
            raise content
        return None

    def close(self) -> None:
        """Ends the stream, in good order if nothing is unanswered."""
        if self._stream is not None:
            self._leave(self._stream, cancel=not self._session.idle)

    def _break(self, origin: object, failure: _wire.Failure) -> None:
        # An earlier stream's end says nothing about this one.
        if self._stream is not None and origin is self._stream:
            self._client._drop(self._stream.connection)
            self._leave(self._stream, cancel=True)
            self._session.broken(failure)

    def _leave(self, stream: Stream, cancel: bool) -> None:
        self._stream = None
        stream.close(cancel=cancel)
        self._client._release(stream.connection)
