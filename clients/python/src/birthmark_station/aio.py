"""The asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Callable, Optional, Union

from . import _wire
from ._channel import CallFailed, Connection, Event, Stream
from ._confirming import Confirming, Taken
from ._connect import OPENING, Identity, PathLike, Target
from ._session import Broken, OnProgress, Session, Wanted, limit, unavailable
from .errors import SettingsError
from .model import Access, Certificate, Confirmation, Csr, Request, Result


class AsyncStation:
    """As `Station`, for asyncio: each method is one to await, and ``issue_many`` an asynchronous generator.

    To be used within one event loop. A call that is cancelled leaves nothing behind; asking again is free.
    """

    def __init__(self, server: Optional[str] = None, identity: Union[None, PathLike, Identity] = None) -> None:
        self._target = Target.of(server, identity)
        self._connecting: Optional[asyncio.Lock] = None
        self._connection: Optional[Connection] = None
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
            connection.channel.close()

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
            except CallFailed as error:
                await asyncio.sleep(confirming.failed(error.failure))
                continue
            try:
                reply = await _call(connection, _wire.CONFIRM, message, confirming.time_left(OPENING))
                pause = confirming.answered(_wire.confirm_reply(reply))
            except CallFailed as error:
                self._drop(connection)
                pause = confirming.failed(error.failure)
            finally:
                self._release(connection)
            await asyncio.sleep(pause)
        return confirming.results()

    async def access(self, *, timeout: Optional[float] = 10.0) -> Access:
        """See `Station.access`."""
        limit("timeout", timeout)
        timeout = OPENING if timeout is None else max(0.001, min(timeout, OPENING))
        try:
            connection = await self._acquire(timeout)
        except CallFailed as error:
            raise unavailable(error.failure) from None
        try:
            reply = await _call(connection, _wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
            connection.access = _wire.get_issuer_reply(reply)
            return connection.access
        except CallFailed as error:
            self._drop(connection)
            raise unavailable(error.failure) from None
        finally:
            self._release(connection)

    async def _results(
        self, requests: Union[Iterable[Wanted], AsyncIterable[Wanted]], window: int, session: Session
    ) -> AsyncGenerator[Result, None]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        permits = asyncio.Semaphore(window)
        feeder = loop.create_task(_feed(requests, events, permits))
        stream: Optional[Stream] = None
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
                            self._break(broken, session, error.failure)
                elif kind == "broken":
                    if stream is not None and origin is stream:
                        broken, stream = stream, None
                        self._break(broken, session, content)
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
                stream.close(cancel=not session.idle)
                self._release(stream.connection)

    async def _open(self, session: Session, events: asyncio.Queue[Event]) -> Optional[Stream]:
        session.opening()
        try:
            connection = await self._acquire(session.time_left(OPENING))
        except CallFailed as error:
            session.broken(error.failure)
            return None
        loop = asyncio.get_running_loop()
        stream = Stream(connection, lambda event: _soon(loop, events.put_nowait, event))
        stream.send(session.opened(connection.access))
        return stream

    def _break(self, stream: Stream, session: Session, failure: _wire.Failure) -> None:
        self._drop(stream.connection)
        stream.close(cancel=True)
        self._release(stream.connection)
        session.broken(failure)

    async def _acquire(self, timeout: float) -> Connection:
        """The connection, which is made if there is none. Raises TlsError and CallFailed."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        try:
            await asyncio.wait_for(self._connecting.acquire(), timeout)
        except asyncio.TimeoutError:
            raise CallFailed(_wire.Failure("DEADLINE_EXCEEDED", "still connecting")) from None
        try:
            if self._closed:
                raise SettingsError("the station is closed")
            if self._connection is None:
                self._connection = await self._connect(timeout)
                self._connected = True
            self._connection.users += 1
            return self._connection
        finally:
            self._connecting.release()

    async def _connect(self, timeout: float) -> Connection:
        try:
            connection = Connection(self._target)
        except SettingsError as error:
            if not self._connected:
                raise
            # Somebody is renewing the certificate.
            raise CallFailed(_wire.Failure("UNAVAILABLE", error.message)) from None
        try:
            reply = await _call(connection, _wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
        except CallFailed as error:
            connection.channel.close()
            loop = asyncio.get_running_loop()
            raise CallFailed(await loop.run_in_executor(None, self._target.diagnose, error.failure)) from None
        except BaseException:
            connection.channel.close()
            raise
        connection.access = _wire.get_issuer_reply(reply)
        return connection

    def _drop(self, connection: Connection) -> None:
        """Nobody gets this connection again."""
        if self._connection is connection:
            self._connection = None

    def _release(self, connection: Connection) -> None:
        connection.users -= 1
        if connection.users == 0 and self._connection is not connection:
            connection.channel.close()


async def _call(connection: Connection, method: str, message: bytes, timeout: float) -> bytes:
    """One unary call. Raises CallFailed."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    call = connection.start(method, message, timeout)
    call.add_done_callback(lambda _: _soon(loop, done.set))
    try:
        await done.wait()
    finally:
        call.cancel()
    return connection.result(call)


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Runs it in the event loop, from another thread; a loop that is closed wants to know nothing."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)


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
