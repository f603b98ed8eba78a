"""One call of confirm_many without any input or output; see `_session.py`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Callable, Optional, Union

from . import _wire
from ._session import LONGEST_RETRY, backoff, final_error, limit, passing_pause
from .errors import DeadlineExceeded, Refused, SettingsError
from .model import Certificate, Confirmation

Taken = Union[Certificate, bytes, str]
"""A certificate, or its serial number: the content octets, or hex as the command line writes it."""

MOST = 1000
"""Serial numbers a call."""


def serial_number_of(taken: Taken) -> bytes:
    """The octets of a serial number. Raises SettingsError."""
    if isinstance(taken, Certificate):
        return taken.serial_number
    if isinstance(taken, str):
        try:
            return bytes.fromhex(taken.replace(":", ""))
        except ValueError:
            raise SettingsError(f"{taken[:80]!r} is no serial number: it is written as hex digits") from None
    return bytes(taken)


class Confirming:
    """What is not confirmed yet, and what became of the others."""

    def __init__(
        self, taken: Iterable[Taken], timeout: Optional[float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._serials = [serial_number_of(one) for one in taken]
        self._timeout, self._clock = limit("timeout", timeout), clock
        self._deadline = None if timeout is None else clock() + timeout
        self._errors: dict[int, Optional[Refused]] = {}
        self._open = list(range(len(self._serials)))
        self._asked: list[int] = []
        self._attempts = 0
        self._trouble: Optional[_wire.Failure] = None

    def batch(self) -> Optional[bytes]:
        """The next call's message; none if all are answered. Raises DeadlineExceeded."""
        if not self._open:
            return None
        if self._deadline is not None and self._clock() >= self._deadline:
            why = "" if self._trouble is None else f": {self._trouble}"
            error = DeadlineExceeded(f"{len(self._open)} not confirmed within {self._timeout:g} s{why}")
            error.unanswered = tuple(self._serials[index].hex() for index in self._open)
            raise error
        self._asked = self._open[:MOST]
        return _wire.confirm_request([self._serials[index] for index in self._asked])

    def time_left(self, most: float) -> float:
        """How many seconds the call may take."""
        return most if self._deadline is None else max(0.001, min(most, self._deadline - self._clock()))

    def answered(self, failures: list[Optional[_wire.Failure]]) -> float:
        """Takes the answers; gives the seconds to wait before the next call."""
        if len(failures) != len(self._asked):
            return self.failed(_wire.Failure("INTERNAL", "the daemon's reply has another number of answers"))
        pause = 0.0
        self._trouble = None
        for index, failure in zip(self._asked, failures):
            again = None if failure is None else passing_pause(failure)
            if again is not None:
                self._trouble, pause = failure, max(pause, again)
                continue
            self._errors[index] = None if failure is None else Refused(failure.message, failure.word, failure.code)
        # Those that wait go behind those that were not asked yet.
        waiting = [index for index in self._asked if index not in self._errors]
        self._open = self._open[len(self._asked) :] + waiting
        self._attempts = 0
        return self._within(pause)

    def failed(self, failure: _wire.Failure) -> float:
        """The call failed; gives the seconds to wait before the next, or raises."""
        error = final_error(failure)
        if error is not None:
            raise error
        self._trouble = failure
        pause = max(backoff(self._attempts), min(failure.retry_after or 0.0, LONGEST_RETRY))
        self._attempts += 1
        return self._within(pause)

    def results(self) -> list[Confirmation]:
        """What became of each, in the order in which they were given."""
        return [Confirmation(serial, self._errors.get(index)) for index, serial in enumerate(self._serials)]

    def _within(self, pause: float) -> float:
        return pause if self._deadline is None else max(0.0, min(pause, self._deadline - self._clock()))
