"""The synchronous client."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Optional, Union

from . import _wire
from ._channel import CallFailed, Connection, Event, why
from ._client import Client, Exchange
from ._confirming import Confirming, Taken
from ._connect import OPENING, Identity, PathLike, Servers, Target
from ._session import OnProgress, Session, Wanted, limit, unavailable
from .errors import TlsError
from .model import Access, Certificate, Confirmation, Csr, Request, Result

# How long a wait lasts at most: on Windows Ctrl-C does not interrupt one.
_SLICE = 0.5


class Station(Client):
    """A station's connection to the daemon. It connects when it is first needed, and again whenever that is needed.

    All methods may be called from several threads at once.

    Args:
        server: The daemon's address, ``https://HOST:PORT``, or those of several daemons that serve one ledger, as a
            list or with commas between them; if none, the environment's ``BIRTHMARK_SERVER``.
        identity: The folder with cert.pem, key.pem and ca.pem that ``birthmark station enroll`` made, or an `Identity`;
            if none, the environment's ``BIRTHMARK_IDENTITY``.

    Raises:
        SettingsError: The address or the identity cannot be used.
    """

    def __init__(self, server: Servers = None, identity: Union[None, PathLike, Identity] = None) -> None:
        super().__init__(server, identity)
        self._connecting = threading.Lock()

    def __enter__(self) -> Station:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and with it the calls under way."""
        self._end()

    def issue(
        self,
        device_id: str,
        csr: Csr,
        *,
        profile: Optional[str] = None,
        order: Optional[str] = None,
        reissue: bool = False,
        timeout: Optional[float] = 60.0,
    ) -> Certificate:
        """Gets one device's certificate, whatever it takes within the time.

        Calling it again with the same arguments is free and gives the byte-identical certificate, also from another
        program, after a crash or years later.

        Args:
            device_id: The device.
            csr: Its CSR, PEM or DER.
            profile: The name of the profile that decides what the certificate says; none: the order's.
            order: The production order that the device is charged to; only some profiles can do without.
            reissue: The device's certificate was scrapped or revoked, and it is to have a new one, for a new key.
            timeout: Seconds in all, retries and reconnects included; none: wait indefinitely.

        Raises:
            Refused: The device gets none.
            DeadlineExceeded: The time is over; ask again.
            NotAllowed, TlsError: The daemon does not let this station in.
        """
        results = self.issue_many(
            [Request(device_id, csr)],
            profile=profile,
            order=order,
            reissue=reissue,
            timeout=timeout,
            give_up_after=None,
        )
        result = next(results)
        results.close()
        return result.unwrap()

    def issue_many(
        self,
        requests: Iterable[Wanted],
        *,
        profile: Optional[str] = None,
        order: Optional[str] = None,
        reissue: bool = False,
        window: int = 64,
        timeout: Optional[float] = None,
        give_up_after: Optional[float] = 60.0,
        progress: Optional[OnProgress] = None,
    ) -> Generator[Result, None, None]:
        """Gets the certificates of many devices; yields what became of each as it is known, in any order.

        A refused device is a result with an ``error`` and ends nothing. After a lost connection, whatever is unanswered
        is asked for again.

        Args:
            requests: The devices. But for a list or tuple it is read in a thread of its own, so it may wait for devices
                to come, and never more than ``window`` ahead of what was yielded.
            profile: For those that name none themselves; none: that of their order.
            order: For those that name none themselves.
            reissue: For those that do not say.
            window: How many may be unanswered, 1 to 4096.
            timeout: Seconds for all of it; none: no limit.
            give_up_after: Seconds to wait for a daemon that is away, or cannot sign, or does not answer; none: wait
                indefinitely.
            progress: Called after each answer, and whenever an outage begins, changes or is over.

        Raises:
            DeadlineExceeded, Unavailable: Some are unanswered (``unanswered`` names them); ask for them again.
            NotAllowed, TlsError: The daemon does not let this station in.
        """
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

    def confirm(self, certificate: Taken, *, timeout: Optional[float] = 60.0) -> None:
        """Says that a device has taken its certificate: the certificate, or its serial number. Again is free.

        Raises:
            Refused: It cannot be confirmed, since it is revoked, for example.
            DeadlineExceeded: The time is over; ask again.
            NotAllowed, TlsError: The daemon does not let this station in.
        """
        error = self.confirm_many([certificate], timeout=timeout)[0].error
        if error is not None:
            raise error

    def confirm_many(self, certificates: Iterable[Taken], *, timeout: Optional[float] = 60.0) -> list[Confirmation]:
        """As `confirm`; gives what became of each, in the order in which they were given."""
        confirming = Confirming(certificates, timeout)
        while (message := confirming.batch()) is not None:
            try:
                connection = self._acquire(confirming.time_left(OPENING))
            except CallFailed as error:
                time.sleep(confirming.failed(error.failure))
                continue
            try:
                reply = connection.call(_wire.CONFIRM, message, confirming.time_left(OPENING))
                pause = confirming.answered(_wire.confirm_reply(reply))
            except CallFailed as error:
                self._drop(connection)
                pause = confirming.failed(error.failure)
            finally:
                self._release(connection)
            time.sleep(pause)
        return confirming.results()

    def access(self, *, timeout: Optional[float] = 10.0) -> Access:
        """Tells which issuers and profiles this station may use. It asks once, and so tells if the daemon is there.

        Raises:
            Unavailable: The daemon cannot be reached.
            NotAllowed, TlsError: The daemon does not let this station in.
        """
        limit("timeout", timeout)
        timeout = OPENING if timeout is None else max(0.001, min(timeout, OPENING))
        try:
            connection = self._acquire(timeout)
        except CallFailed as error:
            raise unavailable(error.failure) from None
        try:
            reply = connection.call(_wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
            connection.access = _wire.get_issuer_reply(reply)
            return connection.access
        except CallFailed as error:
            self._drop(connection)
            raise unavailable(error.failure) from None
        finally:
            self._release(connection)

    def _results(self, requests: Iterable[Wanted], window: int, session: Session) -> Generator[Result, None, None]:
        events: queue.Queue[Event] = queue.Queue()
        source: Union[_Inline, _Feeder] = (
            _Inline(requests) if isinstance(requests, (list, tuple)) else _Feeder(requests, events, window)
        )
        exchange = Exchange(self, session)
        try:
            while not session.done:
                if exchange.needs_stream():
                    self._open(exchange, session, events)
                    continue
                pause = exchange.pause()
                event: Event
                if session.room and source.has_more():
                    event = "item", None, source.take()
                elif isinstance(source, _Inline) and session.room:
                    event = "ended", None, None
                else:
                    try:
                        event = events.get(timeout=min(pause, _SLICE))
                    except queue.Empty:
                        continue
                result = exchange.take(event)
                if result is not None:
                    yield result
                    source.settled()
        finally:
            source.stop()
            exchange.close()

    def _open(self, exchange: Exchange, session: Session, events: queue.Queue[Event]) -> None:
        session.opening()
        try:
            connection = self._acquire(session.time_left(OPENING))
        except CallFailed as error:
            session.broken(error.failure)
        else:
            exchange.open(connection, events.put)

    def _acquire(self, timeout: float) -> Connection:
        """The connection, which is made if there is none. Raises TlsError and CallFailed."""
        deadline = time.monotonic() + timeout
        if not self._connecting.acquire(timeout=timeout):
            raise CallFailed(_wire.Failure("DEADLINE_EXCEEDED", "still connecting"))
        try:
            connection = self._use(None)
            if connection is None:
                made = self._connect(max(0.001, deadline - time.monotonic()))
                connection = self._use(made)
            assert connection is not None
            return connection
        finally:
            self._connecting.release()

    def _connect(self, timeout: float) -> Connection:
        targets = self._targets.in_order()
        faults: list[Exception] = []
        for target in targets:
            try:
                return self._connect_to(target, timeout / len(targets))
            except (CallFailed, TlsError) as error:
                faults.append(error)
        raise why(faults)

    def _connect_to(self, target: Target, timeout: float) -> Connection:
        connection = self._channel_to(target)
        try:
            reply = connection.call(_wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
        except CallFailed as error:
            connection.channel.close()
            raise CallFailed(target.diagnose(error.failure)) from None
        except BaseException:
            connection.channel.close()
            raise
        connection.access = _wire.get_issuer_reply(reply)
        return connection


class _Inline:
    """Requests that are all there."""

    def __init__(self, requests: Iterable[Wanted]) -> None:
        self._requests = iter(requests)
        self._next: Optional[Wanted] = None

    def has_more(self) -> bool:
        if self._next is None:
            self._next = next(self._requests, None)
        return self._next is not None

    def take(self) -> Optional[Wanted]:
        taken, self._next = self._next, None
        return taken

    def settled(self) -> None:
        pass

    def stop(self) -> None:
        pass


class _Feeder:
    """Reads requests in a thread, never more than the window ahead."""

    def __init__(self, requests: Iterable[Wanted], events: queue.Queue[Event], window: int) -> None:
        self._events = events
        self._permits = threading.Semaphore(window)
        self._stopped = False
        threading.Thread(target=self._read, args=(iter(requests),), name="birthmark-requests", daemon=True).start()

    def has_more(self) -> bool:
        return False

    def take(self) -> Optional[Wanted]:
        return None

    def settled(self) -> None:
        self._permits.release()

    def stop(self) -> None:
        self._stopped = True
        self._permits.release()

    def _read(self, requests: Iterator[Wanted]) -> None:
        try:
            while True:
                self._permits.acquire()
                if self._stopped:
                    return
                try:
                    request = next(requests)
                except StopIteration:
                    break
                self._events.put(("item", None, request))
        except BaseException as error:
            self._events.put(("failed", None, error))
        else:
            self._events.put(("ended", None, None))
