"""One call of issue_many without any input or output: what is unanswered, what to send when, and when to stop.

The synchronous and the asyncio client both drive it, so they behave alike. It follows `birthmark station sign`: a retry
is free, so after any failure whatever is unanswered is sent again.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import re
import time
from dataclasses import dataclass
from typing import Callable, Optional, Union

from . import _der, _wire
from .errors import BirthmarkError, DeadlineExceeded, NotAllowed, Refused, SettingsError, Unavailable
from .model import Access, Certificate, Csr, Progress, Request, Result

OnProgress = Callable[[Progress], None]

Wanted = Union[Request, tuple[str, Csr]]
"""A device that is to have a certificate: a request, or its id and its CSR."""

LONGEST_BACKOFF = 5.0
"""The longest pause before connecting again. How long it is in truth is random: stations do not come all at once."""

SHORTEST_BACKOFF = 0.1

DEFAULT_RETRY = 1.0
"""When to ask again if the daemon does not say."""

LONGEST_RETRY = 60.0
"""Upper bound on the pause that the daemon asks for: recovery is not announced."""

# UNKNOWN, CANCELLED and INTERNAL are also what a connection that breaks looks like.
_PASSING = {"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"}

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*\Z")


def is_id(text: str, longest: int = 128) -> bool:
    """Whether the text fits the protocol's rule for device ids and (64 characters at most) order ids."""
    return len(text) <= longest and _ID.match(text) is not None


def backoff(attempts: int) -> float:
    """Full jitter: anything from nothing to an exponentially growing bound."""
    return random.random() * min(SHORTEST_BACKOFF * 2.0 ** min(attempts, 10), LONGEST_BACKOFF)


def final_error(failure: _wire.Failure) -> Optional[BirthmarkError]:
    """The exception if a call or stream that failed so is not worth another try."""
    if failure.code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return NotAllowed(f"the daemon does not let this peer do that: {failure.message}", failure.word, failure.code)
    if failure.code in _PASSING or failure.retry_after is not None:
        return None
    return NotAllowed(f"the daemon refuses the call: {failure.message}", failure.word, failure.code)


def unavailable(failure: _wire.Failure) -> BirthmarkError:
    """The exception for a call that is not to be tried again, whatever may pass."""
    return final_error(failure) or Unavailable(failure.message, failure.word, failure.code)


def passing_pause(failure: _wire.Failure) -> Optional[float]:
    """After how many seconds the item that failed so is to be asked again; none if its failure is final."""
    if failure.retry_after is None and failure.code != "UNAVAILABLE":
        return None
    delay = DEFAULT_RETRY if failure.retry_after is None else min(failure.retry_after, LONGEST_RETRY)
    # Up to a quarter later, so that a window of requests does not come back at once.
    return delay * (1 + random.random() / 4)


def limit(name: str, seconds: Optional[float]) -> Optional[float]:
    """Checks a time that a caller gave."""
    if seconds is not None and not 0 <= seconds < 1e9:
        raise SettingsError(f"{name} must be a number of seconds, not {seconds}")
    return seconds


@dataclass
class _Unanswered:
    request: Request
    message: bytes
    key: bytes
    delayed: bool = False
    """It met the outage. The outage is over when nothing unanswered has met it."""
    unlisted: bool = False
    """Its certificate came from an issuer that the daemon had not listed when the stream was opened."""


class Broken(Exception):
    """The stream cannot go on; open another one."""

    def __init__(self, failure: _wire.Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Session:
    """See the module."""

    def __init__(
        self,
        *,
        profile: Optional[str],
        order: Optional[str],
        reissue: bool,
        window: int,
        timeout: Optional[float],
        give_up_after: Optional[float],
        progress: Optional[OnProgress],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= window <= 4096:
            raise SettingsError(f"window must be from 1 to 4096, not {window}")
        self._profile, self._order, self._reissue, self._window = profile, order, reissue, window
        self._timeout = limit("timeout", timeout)
        self._give_up_after = limit("give_up_after", give_up_after)
        self._progress, self._clock = progress, clock
        self.deadline = None if timeout is None else clock() + timeout
        self.input_ended = False
        self.reopen_at = 0.0
        # Sorted, so that what was asked first is asked first again.
        self._unanswered: dict[int, _Unanswered] = {}
        self._again: list[tuple[float, int]] = []
        self._next_id = 0
        self._chains: dict[str, tuple[bytes, ...]] = {}
        self._waiting_since: Optional[float] = None
        self._outage: Optional[float] = None
        self._trouble: Optional[_wire.Failure] = None
        self._attempts = 0
        self._issued = self._replayed = self._refused = 0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.input_ended and not self._unanswered

    @property
    def idle(self) -> bool:
        """Whether nothing is unanswered."""
        return not self._unanswered

    @property
    def room(self) -> bool:
        """Whether another request may be asked."""
        return not self.input_ended and len(self._unanswered) < self._window

    def add(self, wanted: Wanted) -> Union[bytes, Result]:
        """Takes a request: what to send, or what is already known to become of it."""
        request = wanted if isinstance(wanted, Request) else Request(*wanted)
        profile = request.profile if request.profile is not None else self._profile
        order = request.order if request.order is not None else self._order
        if not profile and not order:
            raise SettingsError(f"neither profile nor order is given for {request.device_id!r}, with it or for all")
        if not is_id(request.device_id):
            odd = next((c for c in request.device_id if not (c.isascii() and (c.isalnum() or c in "._:-"))), None)
            message = (
                f"{request.device_id[:140]!r} is not a device id: 1 to 128 characters of A-Z a-z 0-9 . _ : -, "
                f"the first a letter or digit{'' if odd is None else f'; {odd!r} (U+{ord(odd):04X}) is none of them'}"
            )
            return self._refuse(request, Refused(message, "REQUEST_INVALID"))
        if order and not is_id(order, 64):
            return self._refuse(request, Refused(f"{order[:80]!r} cannot be the id of an order", "REQUEST_INVALID"))
        try:
            csr = _der.csr_der(request.csr)
            key = _der.csr_key(csr)
        except ValueError as error:
            return self._refuse(request, Refused(str(error), "CSR_MALFORMED"))
        reissue = self._reissue if request.reissue is None else request.reissue
        number, self._next_id = self._next_id, self._next_id + 1
        message_ = _wire.issue_request(str(number), request.device_id, order or "", profile or "", csr, reissue)
        self._unanswered[number] = _Unanswered(request, message_, key)
        self._wait()
        return message_

    def opening(self) -> None:
        """A connection is being made."""
        self._wait()

    def opened(self, access: Access) -> list[bytes]:
        """A stream is open: what to send first."""
        self._chains = {issuer.name: issuer.chain for issuer in access.issuers}
        if self.idle:
            self._waiting_since = None
        later = {number for _, number in self._again}
        self._note_recovery()
        return [unanswered.message for number, unanswered in self._unanswered.items() if number not in later]

    def broken(self, failure: _wire.Failure) -> None:
        """The stream broke, or could not be opened; raises if another try cannot help."""
        error = final_error(failure)
        if error is not None:
            raise self.ended(error)
        self._note_outage(failure)
        for unanswered in self._unanswered.values():
            unanswered.delayed = True
        pause = max(backoff(self._attempts), min(failure.retry_after or 0.0, LONGEST_RETRY))
        self._attempts += 1
        self.reopen_at = self._clock() + pause

    def due(self) -> list[bytes]:
        """What is to be sent again now."""
        now, messages = self._clock(), []
        while self._again and self._again[0][0] <= now:
            unanswered = self._unanswered.get(heapq.heappop(self._again)[1])
            if unanswered is not None:
                messages.append(unanswered.message)
        return messages

    def settle(self, reply: _wire.Reply) -> Optional[Result]:
        """Takes a reply: what became of its request, if that is known now. Raises Broken."""
        number = int(reply.request_id) if reply.request_id.isascii() and reply.request_id.isdigit() else -1
        unanswered = self._unanswered.get(number)
        if unanswered is None:
            # A second answer is as good as the first one was.
            return None
        request, error = unanswered.request, None
        if reply.failure is not None:
            failure = reply.failure
            pause = passing_pause(failure)
            if pause is not None:
                unanswered.delayed = True
                heapq.heappush(self._again, (self._clock() + pause, number))
                self._note_outage(failure)
                return None
            error = Refused(failure.message, failure.word, failure.code)
        elif reply.issued is None:
            error = Refused("the daemon's reply holds neither certificate nor error", "REPLY_MISMATCH")
        else:
            issued = reply.issued
            chain = self._chains.get(issued.issuer)
            if chain is None and not unanswered.unlisted:
                # The daemon's configuration changed after this stream was opened.
                unanswered.unlisted = True
                raise Broken(_wire.Failure("ABORTED", f"the issuer {issued.issuer!r} is not listed yet"))
            error = _mismatch(issued, unanswered.key, chain)
        del self._unanswered[number]
        self._attempts = 0
        self._waiting_since = None if self.idle else self._clock()
        self._note_recovery()
        if error is not None:
            return self._refuse(request, error)
        assert reply.issued is not None and chain is not None
        issued = reply.issued
        if issued.replay:
            self._replayed += 1
        else:
            self._issued += 1
        certificate = Certificate(
            request.device_id,
            issued.certificate,
            issued.serial_number,
            issued.certificate_id,
            issued.issuer,
            issued.replay,
            chain,
        )
        self._tell()
        return Result(request, certificate)

    def check(self) -> None:
        """Raises when the caller's patience is over."""
        now = self._clock()
        if self.deadline is not None and now >= self.deadline:
            within = "in time" if self._timeout is None else f"within {self._timeout:g} s"
            raise self.ended(DeadlineExceeded(f"not done {within}{self._why()}"))
        if self._patience_ends() <= now:
            trouble = self._trouble
            message = f"the daemon could not sign for {self._give_up_after:g} s{self._why()}"
            reason = trouble.word if trouble is not None else "UNAVAILABLE"
            raise self.ended(Unavailable(message, reason, trouble.code if trouble is not None else ""))

    def pause(self, is_open: bool) -> float:
        """How many seconds there is nothing to do unless something comes."""
        times = [self._patience_ends()]
        if self.deadline is not None:
            times.append(self.deadline)
        if is_open and self._again:
            times.append(self._again[0][0])
        if not is_open and not self.idle:
            times.append(self.reopen_at)
        return max(0.0, min(times) - self._clock())

    def time_left(self, most: float) -> float:
        """How many seconds a call may take."""
        return max(0.001, min(most, self.pause(True)))

    def ended(self, error: BirthmarkError) -> BirthmarkError:
        """The error with the devices that are unanswered."""
        error.unanswered = tuple(unanswered.request.device_id for unanswered in self._unanswered.values())
        return error

    def _wait(self) -> None:
        if self._waiting_since is None:
            self._waiting_since = self._clock()

    def _patience_ends(self) -> float:
        since = [moment for moment in (self._outage, self._waiting_since) if moment is not None]
        if self._give_up_after is None or not since:
            return float("inf")
        return min(since) + self._give_up_after

    def _why(self) -> str:
        return "" if self._trouble is None else f": {self._trouble}"

    def _refuse(self, request: Request, error: Refused) -> Result:
        self._refused += 1
        self._tell()
        return Result(request, None, error)

    def _note_outage(self, failure: _wire.Failure) -> None:
        first = self._outage is None
        if first:
            self._outage = self._clock()
        changed, self._trouble = self._trouble != failure, failure
        if first or changed:
            self._tell()

    def _note_recovery(self) -> None:
        if self._outage is None or any(unanswered.delayed for unanswered in self._unanswered.values()):
            return
        self._outage = self._trouble = None
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            waiting = None if self._trouble is None else str(self._trouble)
            counts = (self._issued, self._replayed, self._refused, len(self._unanswered))
            self._progress(Progress(*counts, waiting))


def _mismatch(issued: _wire.Issued, key: bytes, chain: Optional[tuple[bytes, ...]]) -> Optional[Refused]:
    """A certificate is handed out only if it is this device's."""
    try:
        if _der.certificate_key(issued.certificate) != key:
            message = "the certificate carries another key than the CSR"
        elif hashlib.sha256(issued.certificate).hexdigest() != issued.certificate_id:
            message = "the certificate does not have the certificate id that came with it"
        elif _der.serial_number(issued.certificate) != issued.serial_number:
            message = "the certificate does not have the serial number that came with it"
        elif chain is None:
            message = f"the certificate is of the issuer {issued.issuer!r}, which the daemon does not list"
        else:
            return None
    except ValueError as error:
        message = f"what came is {error}"
    return Refused(message, "REPLY_MISMATCH")
