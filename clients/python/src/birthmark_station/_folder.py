"""Where the command's CSRs come from: a folder as it is now, or one that is watched.

A watched folder is looked at again and again, since notifications do not reach across network shares. A file is taken
once two looks found it unchanged; one that is not whole, or cannot be read, is final only after it was unchanged for a
while.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Callable, Optional

from . import _der
from ._archive import Archive
from ._places import Places
from ._session import is_id
from .errors import Refused
from .model import Request

_ENDINGS = {".csr", ".pem", ".der", ".p10", ".req"}

ORDER_AGAIN = 2.0
"""How often a refused order is tried again."""

FILE_AGAIN = 10.0
"""When a certificate that could not be written is tried again."""


@dataclass(frozen=True)
class FileRequest(Request):
    """A request whose CSR came from a file."""

    file: Path = Path()


class Holds:
    """The files of a watched folder that stay there, though they were asked for, and when they are asked for again.

    Two things hold a file: the whole order is refused (used up, closed, …), or its certificate cannot be written. While
    an order is refused, one file at a time asks whether it still is.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # With the time of the next try; none while it is being asked for.
        self._files: dict[Path, Optional[float]] = {}
        self._reason: Optional[str] = None
        self._again = 0.0
        self._probe: Optional[Path] = None

    def __len__(self) -> int:
        with self._lock:
            return len(self._files)

    def refuse_order(self, file: Path, reason: str) -> tuple[bool, bool]:
        """The order is refused. Whether that is new, and whether the file was not held before."""
        with self._lock:
            first = file not in self._files
            self._files[file] = self._clock()
            self._again = self._clock() + ORDER_AGAIN
            new = self._reason != reason
            if new:
                self._reason, self._probe = reason, None
            return new, first

    def not_written(self, file: Path) -> bool:
        """The file's certificate could not be written. Whether it was not held before."""
        with self._lock:
            first = file not in self._files
            self._files[file] = self._clock() + FILE_AGAIN
            return first

    def release(self, file: Path, issued: bool) -> bool:
        """The file was answered for good. Whether the order, which was refused, is usable again."""
        with self._lock:
            self._files.pop(file, None)
            if self._reason is None or self._probe != file:
                return False
            if issued:
                self._reason = None
            else:
                # It says nothing about the order; the next file asks.
                self._again = self._clock()
            return issued

    def is_due(self, file: Path) -> bool:
        """Whether the file is held and its time has come."""
        with self._lock:
            due = self._files.get(file)
            return due is not None and due <= self._clock()

    def may_ask(self, file: Path) -> bool:
        """Whether the file may be asked for now. While an order is refused one may now and then."""
        with self._lock:
            if self._reason is not None:
                if self._clock() < self._again:
                    return False
                self._again = self._clock() + ORDER_AGAIN
                self._probe = file
            if file in self._files:
                self._files[file] = None
            return True

    def retain(self, there: set[Path]) -> None:
        """Forgets the files that somebody took away."""
        with self._lock:
            self._files = {file: due for file, due in self._files.items() if file in there}


@dataclass
class _Known:
    look: tuple[int, int]
    since: float
    taken: bool = False


class Source:
    """Reads CSRs. What need not be asked for goes to ``existing`` and ``refused``."""

    def __init__(
        self,
        folder: Path,
        places: Places,
        *,
        say: Callable[[str], None],
        existing: Callable[[str, bytes, Path], None],
        refused: Callable[[str, Path, Refused], None],
    ) -> None:
        self._folder, self._places, self._say = folder, places, say
        self._existing, self._refused = existing, refused
        self.holds = Holds()
        self.stop = threading.Event()
        self.ignored = 0
        self._seen: dict[str, bytes] = {}

    def once(self) -> Iterator[FileRequest]:
        """Every CSR that is in the folder now. Raises OSError."""
        for path in sorted(self._folder.iterdir()):
            if self.stop.is_set():
                return
            if _is_csr(path.name) and not path.is_dir():
                yield from self._request(path, _read(path))
            elif not path.is_dir():
                self.ignored += 1

    def watch(self, poll: float, settle: float, keep_days: int) -> Iterator[FileRequest]:
        """Every CSR that is in the folder or comes later. Nothing that lies in the folder ends this."""
        archive = Archive(self._folder, self._places.out, keep_days)
        known: dict[str, _Known] = {}
        told: set[str] = set()
        readable = True
        while not self.stop.is_set():
            for fault in archive.turn(date.today()):
                self._say(fault)
            try:
                files, others = self._look()
            except OSError as error:
                # A network share that is gone comes back.
                if readable:
                    self._say(f"cannot read {self._folder}: {error.strerror or error}; will keep trying")
                readable = False
            else:
                if not readable:
                    self._say(f"{self._folder} can be read again")
                readable = True
                for name in sorted(others - told):
                    self._say(f"{self._folder / name} is left alone: it is not a file")
                told = others
                unchanged = _settled(known, files)
                self.holds.retain({self._folder / name for name in known})
                yield from self._take(unchanged, known, settle)
            self.stop.wait(poll)

    def _look(self) -> tuple[dict[str, tuple[int, int]], set[str]]:
        files, others = {}, set()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not _is_csr(entry.name):
                    continue
                try:
                    # Not the entry's own, which Windows does not keep up to date while a file is written.
                    status = os.stat(entry.path)  # noqa: PTH116
                except FileNotFoundError:
                    # It vanished between the two calls, or is a link to nowhere.
                    continue
                except OSError:
                    others.add(entry.name)
                    continue
                if stat.S_ISREG(status.st_mode):
                    files[entry.name] = (status.st_size, status.st_mtime_ns)
                elif not stat.S_ISDIR(status.st_mode):
                    others.add(entry.name)
        return files, others

    def _take(self, names: list[str], known: dict[str, _Known], settle: float) -> Iterator[FileRequest]:
        """Takes those of the unchanged files that are whole, and that nothing holds back."""
        for name in names:
            path, file = self._folder / name, known[name]
            # A file that is held is asked for again when its time has come.
            if file.taken and not self.holds.is_due(path):
                continue
            content = _read(path)
            if isinstance(content, FileNotFoundError):
                continue
            unfinished = isinstance(content, OSError) or _der.is_unfinished(content)
            if unfinished and time.monotonic() - file.since < settle:
                continue
            if not self.holds.may_ask(path):
                return
            file.taken = True
            yield from self._request(path, content)

    def _request(self, path: Path, content: bytes | OSError) -> Iterator[FileRequest]:
        device_id = path.stem
        if isinstance(content, OSError):
            message = f"cannot read {path}: {content.strerror or content}"
            self._refused(device_id, path, Refused(message, "CSR_UNREADABLE"))
            return
        try:
            csr = _der.csr_der(content)
        except ValueError as error:
            reason = "CSR_MALFORMED" if is_id(device_id) else "REQUEST_INVALID"
            self._refused(device_id, path, Refused(str(error), reason))
            return
        # A watched folder runs indefinitely and moves what is done; there the daemon alone decides.
        digest = hashlib.sha256(csr).digest()
        if self._places.watched is None and self._seen.setdefault(device_id, digest) != digest:
            message = "an earlier CSR of this run for the same device is a different one"
            self._refused(device_id, path, Refused(message, "DUPLICATE_DEVICE"))
            return
        # Last, so that nothing that is refused here has a name.
        taken = self._places.claim(device_id) if is_id(device_id) else None
        if taken is not None:
            self._refused(device_id, path, Refused(taken, "NAME_REFUSED"))
            return
        certificate = self._places.existing(device_id, _der.csr_key(csr)) if is_id(device_id) else None
        if certificate is not None:
            self._existing(device_id, certificate, path)
            return
        yield FileRequest(device_id, csr, file=path)


def _settled(known: dict[str, _Known], now: dict[str, tuple[int, int]]) -> list[str]:
    """The names of the files that did not change since the last look; ``known`` is brought up to date."""
    names = []
    for name in list(known):
        if name not in now:
            del known[name]
    for name, look in now.items():
        file = known.get(name)
        if file is None or file.look != look:
            known[name] = _Known(look, time.monotonic())
        else:
            names.append(name)
    return sorted(names)


def _is_csr(name: str) -> bool:
    # Half-written files of other programs begin with a dot.
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _ENDINGS  # noqa: PTH122


def _read(path: Path) -> bytes | OSError:
    """The beginning of a file; one byte more than the longest CSR's."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return OSError(f"{path.name} is not a file")
        with path.open("rb") as file:
            return file.read(_der.LONGEST_TEXT + 1)
    except OSError as error:
        return error
