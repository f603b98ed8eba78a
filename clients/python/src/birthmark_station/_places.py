"""The files of one run of the command: where they are, and whether the folder can hold them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from . import _der
from ._session import is_id
from .model import Certificate

_CHAIN = ".chain"
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10)}

# The next device's certificate could not be written either.
_CONCERNS_ALL = {errno.ENOENT, errno.ENOSPC, errno.EROFS} | {
    getattr(errno, name) for name in ("EDQUOT", "ESTALE") if hasattr(errno, name)
}


def concerns_all(error: OSError) -> bool:
    """Whether no other file could be written either."""
    return error.errno in _CONCERNS_ALL


class Places:
    """Certificates go to ``out``; of a watched folder, CSRs move to its ``done`` and ``failed``."""

    def __init__(self, out: Path, chain: bool, watched: Optional[Path]) -> None:
        self.out, self.chain_wanted, self.watched = out, chain, watched
        # The devices that are asked for and those whose certificates are there, by their id in lower case, with the
        # number of their CSRs that were not refused; hashes, since a hot folder runs for years. None: names may differ
        # in case alone.
        self._taken: Optional[dict[int, tuple[int, int]]] = None
        self._colon = True
        self._lock = threading.Lock()

    def make(self) -> list[str]:
        """Makes the folders, and finds out what ``out`` can hold. Gives sentences about the others. Raises OSError."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._look_at_names()
        if self._taken is not None:
            for path in self.out.glob("*.pem"):
                self._take(path.stem)
        said = []
        for name in ("done", "failed") if self.watched is not None else ():
            assert self.watched is not None
            try:
                (self.watched / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                said.append(f"cannot make {self.watched / name}: {error.strerror or error}")
        return said

    def _look_at_names(self) -> None:
        ending = self._ending()
        upper, lower = self.out / f".BIRTHMARK{ending}", self.out / f".birthmark{ending}"
        upper.write_bytes(b"")
        same = lower.exists()
        upper.unlink()
        if self.watched is not None:
            # Each name in a hot folder must be one on Windows too, wherever it is: it is often a share.
            self._taken, self._colon = {}, False
            return
        if not same:
            return
        colon = self.out / f".birthmark_{ending}".replace("_", ":")
        try:
            colon.write_bytes(b"")
            self._colon = colon.name in os.listdir(self.out)  # noqa: PTH208
        except OSError:
            self._colon = False
        # Where a colon names a stream of a file, this takes the file away.
        for left in (colon, self.out / ".birthmark"):
            with contextlib.suppress(OSError):
                left.unlink()
        self._taken = {}

    def claim(self, device_id: str) -> Optional[str]:
        """Takes the names of this device's files, until `release`; a sentence if they are another's or cannot be."""
        if self.chain_wanted and device_id.lower().endswith(_CHAIN):
            return f'with --chain a device id cannot end in "{_CHAIN}", as the chain files do'
        if self._taken is None:
            return None
        if (":" in device_id and not self._colon) or device_id.lower().partition(".")[0] in _RESERVED:
            return f'"{device_id}" is no file name on Windows, where {self.out} may be'
        if not self._take(device_id):
            return (
                f'"{device_id}" differs only in upper and lower case from another device whose files are in '
                f"{self.out}, and file systems such as Windows' do not tell them apart; sign it with another --out"
            )
        return None

    def release(self, device_id: str) -> None:
        """Gives the names back: the device has no files, and the next may be what it should have been called."""
        if self._taken is None:
            return
        name = hash(device_id.lower())
        with self._lock:
            owner, uses = self._taken.pop(name, (0, 0))
            if uses > 1:
                self._taken[name] = owner, uses - 1

    def _take(self, device_id: str) -> bool:
        """False if the name is another's."""
        assert self._taken is not None
        name, device = hash(device_id.lower()), hash(device_id)
        with self._lock:
            owner, uses = self._taken.get(name, (device, 0))
            if owner != device:
                return False
            self._taken[name] = device, uses + 1
            return True

    def certificate(self, device_id: str) -> Path:
        """The certificate's file."""
        return self.out / f"{device_id}.pem"

    def chain(self, device_id: str) -> Path:
        """The chain's file."""
        return self.out / f"{device_id}{_CHAIN}.pem"

    def existing(self, device_id: str, key: bytes) -> Optional[bytes]:
        """The DER certificate of this key that the device has from an earlier run, if all its files are there."""
        try:
            text = self.certificate(device_id).read_bytes()
            certificate = _der.first_certificate(text)
            if certificate is None or _der.certificate_key(certificate) != key:
                return None
            if self.chain_wanted and not self.chain(device_id).read_bytes().startswith(text):
                return None
        except (OSError, ValueError):
            return None
        return certificate

    def put_certificate(self, certificate: Certificate) -> None:
        """Writes the device's files. Raises OSError."""
        # The certificate comes last: where it is, the chain is.
        if self.chain_wanted:
            self.put(self.chain(certificate.device_id), certificate.chain_pem)
        self.put(self.certificate(certificate.device_id), certificate.pem)

    def put(self, path: Path, content: str) -> None:
        """Whoever reads the path finds the old or the new content, on stable storage. Raises OSError."""
        temporary = path.with_name(f".{path.name}{self._ending()}")
        try:
            with temporary.open("wb") as file:
                file.write(content.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def put_refusal(self, device_id: str, file: Path, content: dict[str, str]) -> None:
        """Writes why a device was refused, where that is no other CSR's file. Raises OSError."""
        by_device, by_file = self._refusals(device_id, file)
        place = by_device
        if place is None or self._is_of_another(place, device_id, file) or content["reason"] == "DUPLICATE_DEVICE":
            place = by_file
        if place is None:
            return
        now = datetime.now(timezone.utc).replace(microsecond=0)
        told = {"device_id": device_id, "file": file.name, **content, "time": now.isoformat().replace("+00:00", "Z")}
        self.put(place, json.dumps(told, indent=2, ensure_ascii=False) + "\n")

    def void_refusals(self, device_id: str, file: Path) -> None:
        """Removes what is void now that the device has its certificate. Raises OSError."""
        for place in self._refusals(device_id, file):
            if place is not None and place.exists() and not self._is_of_another(place, device_id, file):
                place.unlink()

    def move_away(self, file: Path, to: str) -> None:
        """Moves the CSR of a watched folder; one of the same name that is there is replaced. Raises OSError."""
        if self.watched is None:
            return
        folder = self.watched / to
        try:
            file.replace(folder / file.name)
        except FileNotFoundError:
            # Somebody took the CSR away meanwhile, or the folder.
            if file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                file.replace(folder / file.name)

    def _refusals(self, device_id: str, file: Path) -> tuple[Optional[Path], Optional[Path]]:
        if self.watched is not None:
            folder = self.watched / "failed"
            return folder / f"{file.stem}.error.json", folder / f"{file.name}.error.json"
        if not is_id(device_id):
            return None, None
        return self.out / f"{device_id}.error.json", self.out / f"{file.name}.error.json"

    def _is_of_another(self, refusal: Path, device_id: str, file: Path) -> bool:
        """Whether it is about another device, or about another CSR of this one that is still there."""
        try:
            owner: Any = json.loads(refusal.read_bytes())
            owner_id, owner_file = owner.get("device_id"), owner.get("file")
        except (OSError, ValueError, AttributeError):
            return False
        if owner_id is not None and owner_id != device_id:
            return True
        if not isinstance(owner_file, str) or owner_file == file.name:
            return False
        folder = self.watched / "failed" if self.watched is not None else file.parent
        return (folder / owner_file).exists()

    @staticmethod
    def _ending() -> str:
        return f".{os.getpid()}.tmp"
