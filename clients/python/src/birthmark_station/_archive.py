"""``done/`` and ``failed/`` of a hot folder by day.

What came before today lies in a folder of its day, and goes when that is old. Certificates are never touched.
"""

from __future__ import annotations

import contextlib
from datetime import date, timedelta
from pathlib import Path
from typing import Optional

_MOVED = (".csr", ".pem", ".der", ".p10", ".req", ".error.json")


class Archive:
    """The folders that CSRs move to; one in which certificates are written is left alone."""

    def __init__(self, watched: Path, certificates: Path, keep_days: int) -> None:
        out = certificates.resolve()
        folders = [watched / "done", watched / "failed"]
        self._folders = [folder for folder in folders if folder.resolve() not in (out, *out.parents)]
        self._keep_days = keep_days
        # The day of what lies in the folders themselves.
        self._day: Optional[date] = None

    def turn(self, today: date) -> list[str]:
        """Puts away what came before this day, and removes what is old, once a day; gives what is in the way."""
        if self._day == today:
            return []
        before, self._day = self._day, today
        faults = []
        for folder in self._folders:
            # A folder that is not there has nothing to put away.
            try:
                with contextlib.suppress(FileNotFoundError):
                    _put_away(folder, before, today)
                    self._remove_old(folder, today)
            except OSError as error:
                faults.append(f"cannot put away what is in {folder}: {error.strerror or error}")
        return faults

    def _remove_old(self, folder: Path, today: date) -> None:
        for place in list(folder.iterdir()) if self._keep_days else []:
            day = _day_named(place.name)
            if day is not None and (today - day) > timedelta(self._keep_days) and _is_folder(place):
                _remove_day(place)


def _put_away(folder: Path, before: Optional[date], today: date) -> None:
    """Into the folder of the day before this one, or if that is not known, of when something was last moved there."""
    day = before or date.fromtimestamp(folder.stat().st_mtime)
    if day >= today:
        return
    place = folder / day.isoformat()
    for file in list(folder.iterdir()):
        if _is_ours(file):
            place.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                file.replace(place / file.name)


def _remove_day(folder: Path) -> None:
    """Removes the CSRs and refusals of a day, and its folder if there is nothing else in it."""
    for file in list(folder.iterdir()):
        if _is_ours(file):
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_ours(file: Path) -> bool:
    return not file.name.startswith(".") and file.name.lower().endswith(_MOVED) and not _is_folder(file)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _day_named(name: str) -> Optional[date]:
    try:
        return date.fromisoformat(name) if len(name) == len("2026-01-31") else None
    except ValueError:
        return None
