"""The asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Optional, Union, cast

import grpc
import grpc.aio

from . import _wire
from ._confirming import Confirming, Taken
from ._connect import OPENING, OPTIONS, Identity, PathLike, Target
from ._session import Broken, OnProgress, Session, Wanted
from .errors import SettingsError
from .model import Access, Certificate, Confirmation, Csr, Request, Result

Event = tuple[str, Any, Any]


class AsyncStation:
    """As `Station`, for asyncio: each method is one to await, and ``issue_many`` an asynchronous generator.

    To be used within one event loop. A call that is cancelled leaves nothing behind; asking again is free.
    """

    def __init__(self, server: Optional[str] = None, identity: Union[None, PathLike, Identity] = None) -> None:
        self._target = Target.of(server, identity)
        self._connecting: Optional[asyncio.Lock] = None
        self._connection: Optional[_Connection] = None
        self._connected = self._closed = False

    async def __aenter__(self) -> AsyncStation:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Station.close`."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.channel.close()

    async def issue(
        self,
        device_id: str,
        csr: Csr,
        *,
        profile: str,
        order: Optional[str] = None,
        reissue: bool = False,
        timeout: Optional[float] = 60.0,
    ) -> Certificate:
        """See `Station.issue`."""
        results = self.issue_many(
            [Request(device_id, csr)],
            profile=profile,
            order=order,
            reissue=reissue,
            timeout=timeout,
            give_up_after=None,
        )
        try:
            result = await results.__anext__()
        finally:
            await results.aclose()
        return result.unwrap()

    def issue_many(
        self,
        requests: Union[Iterable[Wanted], AsyncIterable[Wanted]],
        *,
        profile: Optional[str] = None,
        order: Optional[str] = None,
        reissue: bool = False,
        window: int = 64,
        timeout: Optional[float] = None,
        give_up_after: Optional[float] = 60.0,
        progress: Optional[OnProgress] = None,
    ) -> AsyncGenerator[Result, None]:
        """See `Station.issue_many`. Requests that are not asynchronous are read in the event loop and must not wait."""
        session = Session(
            profile=profile,
            order=order,
            reissue=reissue,
            window=window,
            timeout=timeout,
            give_up_after=give_up_after,
            progress=progress,
        )
        return self._results(requests, window, session)

    async def confirm(self, certificate: Taken, *, timeout: Optional[float] = 60.0) -> None:
        """See `Station.confirm`."""
        error = (await self.confirm_many([certificate], timeout=timeout))[0].error
        if error is not None:
            raise error

    async def confirm_many(
        self, certificates: Iterable[Taken], *, timeout: Optional[float] = 60.0
    ) -> list[Confirmation]:
        """See `Station.confirm_many`."""
        confirming = Confirming(certificates, timeout)
        while (message := confirming.batch()) is not None:
            try:
                connection = await self._acquire(confirming.time_left(OPENING))
            except _CallFailed as error:
                await asyncio.sleep(confirming.failed(error.failure))
                continue
            try:
                reply = await connection.call(_wire.CONFIRM, message, confirming.time_left(OPENING))
                pause = confirming.answered(_wire.confirm_reply(reply))
            except _CallFailed as error:
                self._drop(connection)
                pause = confirming.failed(error.failure)
            finally:
                await self._release(connection)
            await asyncio.sleep(pause)
        return confirming.results()

    async def access(self, *, timeout: Optional[float] = 10.0) -> Access:
        """See `Station.access`."""
        session = Session(
            profile=None, order=None, reissue=False, window=1, timeout=timeout, give_up_after=0.0, progress=None
        )
        try:
            connection = await self._acquire(session.time_left(OPENING) if timeout else OPENING)
        except _CallFailed as error:
            session.broken(error.failure)
            session.check()
            raise
        try:
            return connection.access
        finally:
            await self._release(connection)

    async def _results(
        self, requests: Union[Iterable[Wanted], AsyncIterable[Wanted]], window: int, session: Session
    ) -> AsyncGenerator[Result, None]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        permits = asyncio.Semaphore(window)
        feeder = loop.create_task(_feed(requests, events, permits))
        stream: Optional[_Stream] = None
        try:
            while not session.done:
                session.check()
                if stream is None and not session.idle and time.monotonic() >= session.reopen_at:
                    stream = await self._open(session, events)
                    continue
                if stream is not None:
                    stream.send(session.due())
                # Not wait_for, which may lose what comes at the very moment when the time is over.
                pause = session.pause(stream is not None)
                tick = loop.call_later(min(pause, 3600.0), events.put_nowait, ("tick", None, None))
                try:
                    kind, origin, content = await events.get()
                finally:
                    tick.cancel()
                result = None
                if kind == "item":
                    added = session.add(content)
                    if isinstance(added, Result):
                        result = added
                    elif stream is not None:
                        stream.send([added])
                elif kind == "reply":
                    try:
                        result = session.settle(content)
                    except Broken as error:
                        if stream is not None and origin is stream:
                            broken, stream = stream, None
                            await self._break(broken, session, error.failure)
                elif kind == "broken":
                    if stream is not None and origin is stream:
                        broken, stream = stream, None
                        await self._break(broken, session, content)
                elif kind == "ended":
                    session.input_ended = True
                elif kind == "failed":
                    raise content
                if result is not None:
                    yield result
                    permits.release()
        finally:
            feeder.cancel()
            if stream is not None:
                await stream.close(cancel=not session.done)
                await self._release(stream.connection)

    async def _open(self, session: Session, events: asyncio.Queue[Event]) -> Optional[_Stream]:
        session.opening()
        try:
            connection = await self._acquire(session.time_left(OPENING))
        except _CallFailed as error:
            session.broken(error.failure)
            return None
        stream = _Stream(connection, events)
        stream.send(session.opened(connection.access))
        return stream

    async def _break(self, stream: _Stream, session: Session, failure: _wire.Failure) -> None:
        self._drop(stream.connection)
        await stream.close(cancel=True)
        await self._release(stream.connection)
        session.broken(failure)

    async def _acquire(self, timeout: float) -> _Connection:
        """The connection, which is made if there is none. Raises TlsError and _CallFailed."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        # Each attempt is bounded, so the lock is free again soon.
        async with self._connecting:
            if self._closed:
                raise SettingsError("the station is closed")
            if self._connection is None:
                self._connection = await self._connect(timeout)
                self._connected = True
            self._connection.users += 1
            return self._connection

    async def _connect(self, timeout: float) -> _Connection:
        try:
            connection = _Connection(self._target)
        except SettingsError as error:
            if not self._connected:
                raise
            # Somebody is renewing the certificate.
            raise _CallFailed(_wire.Failure("UNAVAILABLE", error.message)) from None
        try:
            reply = await connection.call(_wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
        except _CallFailed as error:
            await connection.channel.close()
            loop = asyncio.get_running_loop()
            raise _CallFailed(await loop.run_in_executor(None, self._target.diagnose, error.failure)) from None
        except BaseException:
            await connection.channel.close()
            raise
        connection.access = _wire.get_issuer_reply(reply)
        return connection

    def _drop(self, connection: _Connection) -> None:
        """Nobody gets this connection again."""
        if self._connection is connection:
            self._connection = None

    async def _release(self, connection: _Connection) -> None:
        connection.users -= 1
        if connection.users == 0 and self._connection is not connection:
            await connection.channel.close()


class _CallFailed(Exception):
    def __init__(self, failure: _wire.Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class _Connection:
    """A channel, and what the daemon said at its beginning."""

    def __init__(self, target: Target) -> None:
        self.channel: Any = grpc.aio.secure_channel(target.address, target.identity.credentials(), OPTIONS)
        self.access = Access((), ())
        self.users = 0

    async def call(self, method: str, message: bytes, timeout: float) -> bytes:
        """One unary call."""
        try:
            return cast(bytes, await self.channel.unary_unary(method)(message, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            raise _CallFailed(_wire.failure_of_call(error)) from None
        except grpc.aio.UsageError as error:
            # The channel was closed meanwhile.
            raise _CallFailed(_wire.Failure("CANCELLED", str(error))) from None


class _Stream:
    """An Issue stream: one task reads it, one writes it."""

    def __init__(self, connection: _Connection, events: asyncio.Queue[Event]) -> None:
        self.connection = connection
        self._events = events
        self._outgoing: asyncio.Queue[Optional[bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._call: Any = connection.channel.stream_stream(_wire.ISSUE)()
        self._reader = loop.create_task(self._read())
        self._writer = loop.create_task(self._write())

    def send(self, messages: Iterable[bytes]) -> None:
        """Never waits: the session bounds what is unanswered."""
        for message in messages:
            self._outgoing.put_nowait(message)

    async def close(self, cancel: bool) -> None:
        """Lets the daemon end the stream in good order, or ends it."""
        self._outgoing.put_nowait(None)
        if not cancel:
            await asyncio.wait([self._reader], timeout=1.0)
        for task in (self._reader, self._writer):
            task.cancel()
        self._call.cancel()
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)

    async def _write(self) -> None:
        try:
            while (message := await self._outgoing.get()) is not None:
                await self._call.write(message)
            await self._call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The reader knows why.
            pass

    async def _read(self) -> None:
        try:
            while (octets := await self._call.read()) is not grpc.aio.EOF:
                self._events.put_nowait(("reply", self, _wire.issue_reply(octets)))
            code = await self._call.code()
            failure = _wire.Failure("UNAVAILABLE", "the daemon ended the stream")
            if code is not grpc.StatusCode.OK:
                details, trailing = await self._call.details(), await self._call.trailing_metadata()
                failure = _wire.failure_of(code.name, details, trailing)
        except grpc.aio.AioRpcError as error:
            failure = _wire.failure_of_call(error)
        except asyncio.CancelledError:
            # Either this task was cancelled, or the call, because its channel was closed.
            if not self._call.cancelled():
                raise
            failure = _wire.Failure("CANCELLED", "the connection was closed")
        except Exception as error:
            failure = _wire.Failure("INTERNAL", f"the stream broke: {error}")
        self._events.put_nowait(("broken", self, failure))


async def _feed(
    requests: Union[Iterable[Wanted], AsyncIterable[Wanted]], events: asyncio.Queue[Event], permits: asyncio.Semaphore
) -> None:
    """Reads requests, never more than the window ahead."""
    try:
        if isinstance(requests, AsyncIterable):
            iterator: AsyncIterator[Wanted] = requests.__aiter__()
            while True:
                await permits.acquire()
                try:
                    request = await iterator.__anext__()
                except StopAsyncIteration:
                    break
                events.put_nowait(("item", None, request))
        else:
            for request in requests:
                await permits.acquire()
                events.put_nowait(("item", None, request))
    except Exception as error:
        events.put_nowait(("failed", None, error))
    else:
        events.put_nowait(("ended", None, None))
