"""The synchronous client."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Optional, Union

from . import _wire
from ._channel import CallFailed, Connection, Event, Stream
from ._confirming import Confirming, Taken
from ._connect import OPENING, Identity, PathLike, Target
from ._session import Broken, OnProgress, Session, Wanted, limit, unavailable
from .errors import SettingsError
from .model import Access, Certificate, Confirmation, Csr, Request, Result

# How long a wait lasts at most: on Windows Ctrl-C does not interrupt one.
_SLICE = 0.5


class Station:
    """A station's connection to the daemon. It connects when it is first needed, and again whenever that is needed.

    All methods may be called from several threads at once.

    Args:
        server: The daemon's address, ``https://HOST:PORT``; if none, the environment's ``BIRTHMARK_SERVER``.
        identity: The folder with cert.pem, key.pem and ca.pem that ``birthmark station enroll`` made, or an `Identity`;
            if none, the environment's ``BIRTHMARK_IDENTITY``.

    Raises:
        SettingsError: The address or the identity cannot be used.
    """

    def __init__(self, server: Optional[str] = None, identity: Union[None, PathLike, Identity] = None) -> None:
        self._target = Target.of(server, identity)
        self._connecting = threading.Lock()
        # Never held while anything is waited for.
        self._lock = threading.Lock()
        self._connection: Optional[Connection] = None
        self._connected = self._closed = False

    def __enter__(self) -> Station:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and with it the calls under way."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.channel.close()

    def issue(
        self,
        device_id: str,
        csr: Csr,
        *,
        profile: str,
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
            profile: The name of the profile that decides what the certificate says.
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
            profile: For those that name none themselves.
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
        stream: Optional[Stream] = None
        try:
            while not session.done:
                session.check()
                if stream is None and not session.idle and time.monotonic() >= session.reopen_at:
                    stream = self._open(session, events)
                    continue
                if stream is not None:
                    stream.send(session.due())
                kind: str
                origin: Any
                content: Any
                if session.room and source.has_more():
                    kind, origin, content = "item", None, source.take()
                elif isinstance(source, _Inline) and session.room:
                    session.input_ended = True
                    continue
                else:
                    try:
                        kind, origin, content = events.get(timeout=min(session.pause(stream is not None), _SLICE))
                    except queue.Empty:
                        continue
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
                else:
                    raise content
                if result is not None:
                    yield result
                    source.settled()
        finally:
            source.stop()
            if stream is not None:
                stream.close(cancel=not session.idle)
                self._release(stream.connection)

    def _open(self, session: Session, events: queue.Queue[Event]) -> Optional[Stream]:
        session.opening()
        try:
            connection = self._acquire(session.time_left(OPENING))
        except CallFailed as error:
            session.broken(error.failure)
            return None
        stream = Stream(connection, events.put)
        stream.send(session.opened(connection.access))
        return stream

    def _break(self, stream: Stream, session: Session, failure: _wire.Failure) -> None:
        stream.close(cancel=True)
        self._drop(stream.connection)
        self._release(stream.connection)
        session.broken(failure)

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

    def _connect(self, timeout: float) -> Connection:
        try:
            connection = Connection(self._target)
        except SettingsError as error:
            if not self._connected:
                raise
            # Somebody is renewing the certificate.
            raise CallFailed(_wire.Failure("UNAVAILABLE", error.message)) from None
        try:
            reply = connection.call(_wire.GET_ISSUER, _wire.get_issuer_request(), timeout)
        except CallFailed as error:
            connection.channel.close()
            raise CallFailed(self._target.diagnose(error.failure)) from None
        except BaseException:
            connection.channel.close()
            raise
        connection.access = _wire.get_issuer_reply(reply)
        return connection

    def _drop(self, connection: Connection) -> None:
        """Nobody gets this connection again."""
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def _release(self, connection: Connection) -> None:
        with self._lock:
            connection.users -= 1
            unused = connection.users == 0 and self._connection is not connection
        if unused:
            connection.channel.close()


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
