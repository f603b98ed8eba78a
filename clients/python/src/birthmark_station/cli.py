"""The command `birthmark-hot-folder`: a folder of CSRs, and the folder of their certificates."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Optional, TextIO

from . import __version__, _der
from ._folder import FileRequest, Source
from ._places import Places, concerns_all
from ._session import Session, is_id
from .errors import BirthmarkError, DeadlineExceeded, NotAllowed, Refused, SettingsError, Unavailable
from .model import Certificate, Progress, Result
from .station import Station

# How long a run that was told to stop waits for what it has asked for.
_LAST_REPLIES = 5.0

# Signals that come together are one request to stop.
_ONE_REQUEST = 0.5

_EXAMPLES = 3

_SIGN = """\
Get a certificate for each CSR in a folder: <device-id>.csr, .pem, .der, .p10 or .req; other files are ignored.

It may be stopped and run again at any time: devices that have their certificate in DIR are left out, and asking again
for the others is free, since the daemon answers a retry with the same certificate ("replayed"). While the daemon is
away it waits and connects again by itself.

Files written:
  DIR/<device-id>.pem         the certificate
  DIR/<device-id>.chain.pem   with --chain: the certificate and its CAs but the root, as the device presents them
  DIR/<device-id>.error.json  why a device was refused; removed when it succeeds

A hot folder (--watch), and any DIR that does not tell upper from lower case, holds the files of one of Dev-1 and dev-1;
the other is refused, and so is what can be no file name on Windows, as CON and a:b.

With --watch, CSRs move to IN/done/ or, with their .error.json, to IN/failed/; one of the same name is replaced there.
What came on earlier days lies in a folder of its day there, such as IN/done/2026-01-31/.
A CSR that is not whole, or cannot be read, is given the time of --settle. While the order as a whole is refused (used
up, closed, not open yet, unknown), CSRs stay in IN and are tried again, and one line says why; so does a CSR whose
certificate cannot be written.

With --json, standard output has an object per device as it completes, with device_id, status (issued, replayed,
already_there, refused, or held with --watch), serial_number, certificate_id and file, or reason and message; and at the
end {"summary": …}."""

_EXITS = """\
Exit codes:
  0    every device has its certificate
  1    none has, there is no CSR, or something that concerns all devices is wrong
  2    wrong usage
  3    some devices were refused
  130  stopped by SIGINT (Ctrl-C); what was asked for has up to 5 s to come in, a second one stops at once
  143  stopped by SIGTERM, likewise"""

_CONFIRM = """\
Confirm that devices have installed their certificates. Confirming again is free: after a failure, run it again.

Exit codes: 0 every certificate is confirmed, 1 none is, 2 wrong usage, 3 some were refused."""


def main(arguments: Optional[list[str]] = None) -> int:
    """The command; gives its exit code."""
    parsed = _parser().parse_args(arguments)
    # What gRPC's core prints about connections that fail helps nobody, and what is wrong is said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code: int = parsed.run(parsed)
    except (BirthmarkError, OSError) as error:
        _say(str(error))
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="birthmark-hot-folder", description="A station of the Birthmark signing daemon."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    sign = commands.add_parser(
        "sign", help="get a certificate for each CSR in a folder", description=_SIGN, epilog=_EXITS, formatter_class=raw
    )
    sign.set_defaults(run=_sign)
    sign.add_argument("--order", metavar="ID", help="the production order; only some profiles can do without")
    sign.add_argument("--profile", metavar="NAME", help="the profile of the certificates, if it is not the order's")
    sign.add_argument("--reissue", action="store_true", help="the devices' certificates were scrapped or revoked")
    sign.add_argument("--in", dest="input", metavar="IN", type=Path, required=True, help="the folder of CSRs")
    sign.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder for the certificates")
    sign.add_argument("--chain", action="store_true", help="also write <device-id>.chain.pem")
    sign.add_argument("--watch", action="store_true", help="go on and sign whatever comes into IN, until stopped")
    sign.add_argument("--poll", metavar="TIME", type=_duration, default=0.5, help="how often --watch looks (500ms)")
    sign.add_argument(
        "--settle",
        metavar="TIME",
        type=_duration,
        default=30.0,
        help="how long --watch waits for the rest of a file (30s)",
    )
    keep = "for how many days --watch keeps what it moved to done/ and failed/ (365); 0: forever"
    sign.add_argument("--keep-days", metavar="DAYS", type=_days, default=365, help=keep)
    sign.add_argument("--window", metavar="N", type=_window, default=64, help="how many may be unanswered (64)")
    sign.add_argument(
        "--give-up-after",
        metavar="TIME",
        type=_duration,
        help="end when the daemon has been away or has answered nothing for this time (wait indefinitely)",
    )
    sign.add_argument("--json", action="store_true", help="print a JSON object for each device")

    confirm = commands.add_parser(
        "confirm", help="confirm that devices have their certificates", description=_CONFIRM, formatter_class=raw
    )
    confirm.set_defaults(run=_confirm)
    which = confirm.add_mutually_exclusive_group(required=True)
    which.add_argument("serial_numbers", metavar="SERIAL", nargs="*", default=[], help="serial numbers, hex")
    which.add_argument("--certificates", metavar="DIR", type=Path, help="every certificate in a folder")
    confirm.add_argument("--json", action="store_true", help="print JSON")

    for command in (sign, confirm):
        group = command.add_argument_group("connection")
        server = "https://HOST:PORT; of several daemons that serve one ledger, each (BIRTHMARK_SERVER, with commas)"
        group.add_argument("--server", metavar="URL", action="append", help=server)
        group.add_argument(
            "--identity", metavar="DIR", help="a folder with cert.pem, key.pem and ca.pem (BIRTHMARK_IDENTITY)"
        )
    return parser


def _sign(arguments: argparse.Namespace) -> int:
    folder, out = arguments.input, arguments.out
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder")
    if out.is_dir() and folder.samefile(out):
        raise SettingsError(f"CSRs and certificates cannot share the folder {out}: a certificate could replace a CSR")
    if not arguments.order and not arguments.profile:
        raise SettingsError("name an order with --order, a profile with --profile, or both")
    if arguments.order and not is_id(arguments.order, 64):
        raise SettingsError(f"{arguments.order!r} cannot be the id of an order")
    places = Places(out, arguments.chain, folder if arguments.watch else None)
    output = _Output(places, arguments)
    with Station(arguments.server, arguments.identity) as station:
        try:
            for warning in places.make():
                _say(warning)
            if arguments.profile:
                _check_profile(station, arguments.profile, arguments.order)
            ended = output.run(station)
        except (BirthmarkError, OSError) as error:
            output.finish(str(error))
            raise
    output.finish(ended)
    if output.stopped:
        return 128 + output.stopped
    if output.succeeded + output.refused == 0:
        _say(f"there is no CSR in {folder}; it has {output.source.ignored} files of other names")
        return 1
    if output.refused:
        return 3 if output.succeeded else 1
    return 0


def _check_profile(station: Station, profile: str, order: Optional[str]) -> None:
    try:
        profiles = station.access().profiles
    except Unavailable:
        # The run waits for the daemon.
        return
    found = next((known for known in profiles if known.name == profile), None)
    if found is None:
        names = ", ".join(known.name for known in profiles)
        raise SettingsError(f"this station may use no profile {profile!r}; it may use: {names or 'none'}")
    if not (order or found.order_optional):
        raise SettingsError(f"the profile {profile!r} requires an order; name one with --order")


class _Output:
    """Writes what became of each device. The source's thread calls it too."""

    def __init__(self, places: Places, arguments: argparse.Namespace) -> None:
        self._places, self._arguments = places, arguments
        self._lock = threading.RLock()
        self._report: Optional[TextIO] = sys.stdout if arguments.json else None
        self._started = time.monotonic()
        self._groups: dict[str, dict[str, Any]] = {}
        self._counts = {"issued": 0, "replayed": 0, "already_there": 0, "refused": 0}
        self._waiting = False
        self._session: Optional[Session] = None
        self._stopped_at = 0.0
        self.stopped = 0
        self.source = Source(
            arguments.input, places, say=_say, existing=self._already_there, refused=self._refused_file
        )

    @property
    def succeeded(self) -> int:
        """Devices that have their certificate now."""
        return self._counts["issued"] + self._counts["replayed"] + self._counts["already_there"]

    @property
    def refused(self) -> int:
        """Devices that got none."""
        return self._counts["refused"]

    def run(self, station: Station) -> Optional[str]:
        """Signs; why it ended before all was done, if it did. Raises what ends it."""
        arguments = self._arguments
        session = self._session = Session(
            profile=arguments.profile,
            order=arguments.order,
            reissue=arguments.reissue,
            window=arguments.window,
            timeout=None,
            give_up_after=arguments.give_up_after,
            progress=self._on_progress,
        )
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        source = self.source
        requests = source.once()
        if arguments.watch:
            requests = source.watch(arguments.poll, arguments.settle, arguments.keep_days)
        try:
            for result in station._results(requests, arguments.window, session):
                self._settle(result)
        except DeadlineExceeded:
            # There is no other deadline than that of a run that was told to stop.
            pass
        finally:
            source.stop.set()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return "stopped" if self.stopped else None

    def finish(self, ended: Optional[str]) -> None:
        """Tells the summary."""
        held = len(self.source.holds)
        seconds = time.monotonic() - self._started
        counts = self._counts
        if self.succeeded + self.refused + held:
            text = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
            _say(f"{text} in {seconds:.1f} s" + (f", {held} waiting" if held else ""))
            for reason, group in self._groups.items():
                more = "; …" if group["count"] > _EXAMPLES else ""
                _say(f"  {reason}: {group['count']}: {'; '.join(group['examples'])}{more}")
        summary: dict[str, Any] = dict(
            counts, held=held, ignored_files=self.source.ignored, refused_by_reason=self._groups, seconds=seconds
        )
        if ended is not None:
            summary["ended"] = ended
        self._line({"summary": summary})

    def _on_signal(self, number: int, _frame: Optional[FrameType]) -> None:
        now = time.monotonic()
        if self.stopped:
            if now - self._stopped_at >= _ONE_REQUEST:
                os._exit(128 + number)
            return
        self.stopped, self._stopped_at = int(number), now
        self.source.stop.set()
        if self._session is not None:
            self._session.input_ended = True
            self._session.deadline = now + _LAST_REPLIES

    def _on_progress(self, progress: Progress) -> None:
        if progress.waiting is not None and not self._waiting:
            after = self._arguments.give_up_after
            bound = f"for up to {after:g} s" if after is not None else "(--give-up-after limits this)"
            _say(f"the daemon cannot sign for now: {progress.waiting}; waiting {bound}")
        elif progress.waiting is None and self._waiting:
            _say("the daemon is back")
        self._waiting = progress.waiting is not None

    def _settle(self, result: Result) -> None:
        request = result.request
        assert isinstance(request, FileRequest)
        if result.certificate is not None:
            self._certificate(request, result.certificate)
            return
        error = result.error
        assert error is not None
        self._places.release(request.device_id)
        if self._places.watched is not None and _concerns_order(error):
            self._held(request, error)
        elif _concerns_all(error):
            raise NotAllowed(f"the daemon refuses: {error.message}", error.reason, error.code)
        else:
            self._refused_file(request.device_id, request.file, error)

    def _certificate(self, request: FileRequest, certificate: Certificate) -> None:
        with self._lock:
            try:
                self._places.put_certificate(certificate)
            except OSError as error:
                self._not_written(request, error)
                return
            self._counts["replayed" if certificate.replay else "issued"] += 1
            self._done(request.device_id, request.file, not certificate.replay)
            self._tell("replayed" if certificate.replay else "issued", request.device_id, certificate.der)

    def _already_there(self, device_id: str, certificate: bytes, file: Path) -> None:
        with self._lock:
            self._counts["already_there"] += 1
            self._done(device_id, file, False)
            self._tell("already_there", device_id, certificate)

    def _done(self, device_id: str, file: Path, issued: bool) -> None:
        try:
            self._places.void_refusals(device_id, file)
        except OSError as error:
            _say(f"cannot remove the refusal of {device_id}: {error}")
        self._move(file, "done", issued)

    def _refused_file(self, device_id: str, file: Path, error: Refused) -> None:
        with self._lock:
            terms = {"order": self._arguments.order or "", "profile": self._arguments.profile or ""}
            try:
                self._places.put_refusal(device_id, file, {**terms, "reason": error.reason, "message": error.message})
            except OSError as trouble:
                _say(f"{device_id}: cannot write the refusal: {trouble}")
            if self._places.watched is not None and self._report is None:
                _say(f"{device_id}: {error}")
            self._move(file, "failed", False)
            self._counts["refused"] += 1
            group = self._groups.setdefault(error.reason, {"count": 0, "examples": []})
            group["count"] += 1
            if len(group["examples"]) < _EXAMPLES:
                group["examples"].append(f"{device_id}: {error.message}")
            self._line({"device_id": device_id, "status": "refused", "reason": error.reason, "message": error.message})

    def _held(self, request: FileRequest, error: Refused) -> None:
        with self._lock:
            new, first = self.source.holds.refuse_order(request.file, error.reason)
            if new:
                _say(f"{error}; CSRs stay in {request.file.parent} and are tried again")
            if first:
                self._held_line(request, error)

    def _held_line(self, request: FileRequest, error: Refused) -> None:
        told = {"device_id": request.device_id, "status": "held", "reason": error.reason, "message": error.message}
        self._line(told)

    def _not_written(self, request: FileRequest, trouble: OSError) -> None:
        error = Refused(f"cannot write the certificate: {trouble}", "NOT_WRITTEN")
        if self._places.watched is not None:
            if self.source.holds.not_written(request.file):
                _say(f"{request.device_id}: {error}; will keep trying")
                self._held_line(request, error)
        elif concerns_all(trouble):
            raise trouble
        else:
            self._refused_file(request.device_id, request.file, error)

    def _move(self, file: Path, to: str, issued: bool) -> None:
        if self._places.watched is None:
            return
        if self.source.holds.release(file, issued):
            _say("the order can be used again")
        try:
            self._places.move_away(file, to)
        except OSError as error:
            _say(f"cannot move {file} to {to}: {error}; it is left there")

    def _tell(self, status: str, device_id: str, der: bytes) -> None:
        self._line(
            {
                "device_id": device_id,
                "status": status,
                "serial_number": _der.serial_number(der).hex(),
                "certificate_id": hashlib.sha256(der).hexdigest(),
                "file": str(self._places.certificate(device_id)),
            }
        )

    def _line(self, told: dict[str, Any]) -> None:
        if self._report is not None:
            # A program that reads along must not wait for a buffer to fill.
            print(json.dumps(told), file=self._report, flush=True)


def _concerns_all(error: Refused) -> bool:
    """Whether the refusal of one device is about what the run was started with: the next device would meet the same."""
    return error.code == "NOT_FOUND" or error.reason.startswith(("PROFILE_", "STATION_", "ROLE_"))


def _concerns_order(error: Refused) -> bool:
    """Whether it is about the order, or what else all devices of it have in common. It may pass."""
    return _concerns_all(error) or error.reason.startswith(("ORDER_", "ISSUER_"))


def _confirm(arguments: argparse.Namespace) -> int:
    with Station(arguments.server, arguments.identity) as station:
        if arguments.certificates is None:
            serials = list(arguments.serial_numbers)
        else:
            serials = _serials_in(arguments.certificates)
        results = station.confirm_many(serials)
    refused = [result for result in results if result.error is not None]
    confirmed = len(results) - len(refused)
    if arguments.json:
        told = [
            {"serial_number": result.serial, "reason": result.error.reason, "message": result.error.message}
            for result in refused
            if result.error is not None
        ]
        print(json.dumps({"confirmed": confirmed, "refused": told}))
    else:
        for result in refused:
            _say(f"{result.serial}: {result.error}")
        print(f"{confirmed} confirmed, {len(refused)} refused")
    if not refused:
        return 0
    return 3 if confirmed else 1


def _serials_in(folder: Path) -> list[str]:
    """Each *.pem that begins with a certificate, each certificate once."""
    serials: dict[str, None] = {}
    for path in sorted(folder.glob("*.pem")):
        try:
            certificate = _der.first_certificate(path.read_bytes())
            if certificate is not None:
                serials[_der.serial_number(certificate).hex()] = None
                continue
        except ValueError:
            pass
        _say(f"left out: {path} begins with no certificate")
    if not serials:
        raise SettingsError(f"there is no certificate of a device in {folder}")
    return list(serials)


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError("a duration is written as 500ms, 90s, 10m or 2h")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def _window(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError("a number from 1 to 4096")
    return int(text)


def _days(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a number of days from 0 to 65535")
    return int(text)


def _say(line: str) -> None:
    print(f"birthmark-hot-folder: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
