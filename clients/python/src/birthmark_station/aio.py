"""The asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Callable, Optional, Union

from . import _wire
from ._channel import CallFailed, Connection, Event, why
from ._client import Client, Exchange
from ._confirming import Confirming, Taken
from ._connect import OPENING, Identity, PathLike, Servers, Target
from ._session import OnProgress, Session, Wanted, limit, unavailable
from .errors import TlsError
from .model import Access, Certificate, Confirmation, Csr, Request, Result


class AsyncStation(Client):
    """As `Station`, for asyncio: each method is one to await, and ``issue_many`` an asynchronous generator.

    To be used within one event loop. A call that is cancelled leaves nothing behind; asking again is free.
    """

    def __init__(self, server: Servers = None, identity: Union[None, PathLike, Identity] = None) -> None:
        super().__init__(server, identity)
        self._connecting: Optional[asyncio.Lock] = None

    async def __aenter__(self) -> AsyncStation:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Station.close`."""
        self._end()

    async def issue(
        self,
        device_id: str,
        csr: Csr,
        *,
        profile: Optional[str] = None,
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
        exchange = Exchange(self, session)
        try:
            while not session.done:
                if exchange.needs_stream():
                    await self._open(exchange, session, events)
                    continue
                # Not wait_for, which may lose what comes at the very moment when the time is over.
                tick = loop.call_later(min(exchange.pause(), 3600.0), events.put_nowait, ("tick", None, None))
                try:
                    event = await events.get()
                finally:
                    tick.cancel()
                result = exchange.take(event)
                if result is not None:
                    yield result
                    permits.release()
        finally:
            feeder.cancel()
            exchange.close()

    async def _open(self, exchange: Exchange, session: Session, events: asyncio.Queue[Event]) -> None:
        session.opening()
        try:
            connection = await self._acquire(session.time_left(OPENING))
        except CallFailed as error:
            session.broken(error.failure)
        else:
            loop = asyncio.get_running_loop()
            exchange.open(connection, lambda event: _soon(loop, events.put_nowait, event))

    async def _acquire(self, timeout: float) -> Connection:
        """The connection, which is made if there is none. Raises TlsError and CallFailed."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        try:
            await asyncio.wait_for(self._connecting.acquire(), timeout)
        except asyncio.TimeoutError:
            raise CallFailed(_wire.Failure("DEADLINE_EXCEEDED", "still connecting")) from None
        try:
            connection = self._use(None) or self._use(await self._connect(timeout))
            assert connection is not None
            return connection
        finally:
            self._connecting.release()

    async def _connect(self, timeout: float) -> Connection:
        targets = await asyncio.get_running_loop().run_in_executor(None, self._targets.in_order)
        faults: list[Exception] = []
        for target in targets:
            try:
                return await self._connect_to(target, timeout / len(targets))
            except (CallFailed, TlsError) as error:
                faults.append(error)
        raise why(faults)

    async def _connect_to(self, target: Target, timeout: float) -> Connection:
        connection = self._channel_to(target)
        try:
            reply = await _call(connection, _wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
        except CallFailed as error:
            connection.channel.close()
            loop = asyncio.get_running_loop()
            raise CallFailed(await loop.run_in_executor(None, target.diagnose, error.failure)) from None
        except BaseException:
            connection.channel.close()
            raise
        connection.access = _wire.get_issuer_reply(reply)
        return connection


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
