"""The command: a folder of CSRs, a watched one, confirmation; against the real daemon."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from csrs import csr, csrs, fresh, weak_csr
from site_of_tests import Site, wait_until

from birthmark_station import cli
from birthmark_station._archive import Archive
from birthmark_station._folder import FileRequest, Holds, Source
from birthmark_station._places import Places

IMPATIENT = """
import sys
from birthmark_station import _folder, cli
_folder.FILE_AGAIN = 0.5
sys.exit(cli.main())
"""

COMMAND = [sys.executable, "-m", "birthmark_station"]


@dataclass
class Run:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Run:
    """The command in this process, which is quicker."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(list(arguments))
        except SystemExit as ended:
            code = int(str(ended.code))
    return Run(code, out.getvalue(), err.getvalue())


class Line:
    """A station of the line: folders, and the command on them."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.inbox, self.out = site, folder / "in", folder / "out"
        self.inbox.mkdir()
        self.connection = ["--server", site.server, "--identity", str(site.station())]
        self.log = folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def put(self, devices: list[tuple[str, bytes]]) -> list[str]:
        """Devices leave their CSRs."""
        for device, content in devices:
            (self.inbox / f"{device}.csr").write_bytes(content)
        return [device for device, _ in devices]

    def arguments(self, order: str, *more: str) -> list[str]:
        """Those of `sign`."""
        places = ["--in", str(self.inbox), "--out", str(self.out)]
        return ["sign", *self.connection, "--order", order, "--profile", "device", *places, *more]

    def sign(self, order: str, *more: str) -> Run:
        """Runs to its end."""
        return run(*self.arguments(order, *more))

    def watch(self, order: str, *more: str) -> subprocess.Popen[bytes]:
        """Starts a hot folder; what could not be written is tried again sooner than usual."""
        arguments = [sys.executable, "-c", IMPATIENT, *self.arguments(order, "--watch", "--poll", "50ms", *more)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(arguments, stderr=log, stdout=log)
        self.processes.append(process)
        return process

    def said(self) -> str:
        """What the hot folder printed."""
        return self.log.read_text(encoding="utf-8")

    def certificates(self) -> dict[str, bytes]:
        """By device."""
        names = [path for path in self.out.glob("*.pem") if not path.name.endswith(".chain.pem")]
        return {path.stem: path.read_bytes() for path in names}


@pytest.fixture
def line(site: Site, tmp_path: Path) -> Iterator[Line]:
    """Its processes are ended with the test."""
    line = Line(site, tmp_path)
    yield line
    for process in line.processes:
        process.kill()
        process.wait()


def names(folder: Path) -> list[str]:
    """The files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_folder_gives_certificates_refusals_and_exit_codes(line: Line) -> None:
    order = line.site.order(10)
    good = line.put(csrs("cmd", 3))
    weak = line.put([(fresh("weak"), weak_csr("weak"))])[0]
    (line.inbox / "garbage.pem").write_bytes(b"garbage")
    (line.inbox / "no id.csr").write_bytes(csr("x"))
    (line.inbox / f"{good[0]}.req").write_bytes(csr("another"))
    (line.inbox / "readme.txt").write_bytes(b"")
    ended = line.sign(order, "--json", "--chain")
    assert ended.returncode == 3, ended.stderr
    assert "3 issued" in ended.stderr and "KEY_WEAK" in ended.stderr
    *lines, last = [json.loads(text) for text in ended.stdout.splitlines()]
    told = {(one["device_id"], one["status"]): one for one in lines}
    assert {device for device, status in told if status == "issued"} == set(good)
    assert told[weak, "refused"]["reason"] == "KEY_WEAK"
    assert told["garbage", "refused"]["reason"] == "CSR_MALFORMED"
    assert told["no id", "refused"]["reason"] == "REQUEST_INVALID"
    assert told[good[0], "refused"]["reason"] == "DUPLICATE_DEVICE"
    assert last["summary"]["issued"] == 3 and last["summary"]["refused"] == 4
    assert last["summary"]["ignored_files"] == 1 and "ended" not in last["summary"]
    for device in good:
        chain = x509.load_pem_x509_certificates((line.out / f"{device}.chain.pem").read_bytes())
        alone = x509.load_pem_x509_certificate((line.out / f"{device}.pem").read_bytes())
        assert chain[0] == alone and len(chain) == 2
        assert told[device, "issued"]["serial_number"] == f"{alone.serial_number:040x}"
    refusal = json.loads((line.out / f"{weak}.error.json").read_text(encoding="utf-8"))
    assert refusal["reason"] == "KEY_WEAK" and refusal["order"] == order and refusal["file"] == f"{weak}.csr"
    assert "garbage.error.json" in names(line.out) and f"{good[0]}.req.error.json" in names(line.out)
    # The refused device does better, and its refusal goes.
    for path in ("garbage.pem", "no id.csr", f"{good[0]}.req"):
        (line.inbox / path).unlink()
    (line.inbox / f"{weak}.csr").write_bytes(csr(weak))
    before = line.certificates()
    ended = line.sign(order, "--json", "--chain")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["summary"]["already_there"] == 3
    assert f"{weak}.error.json" not in names(line.out)
    assert {device: pem for device, pem in line.certificates().items() if device in before} == before
    assert len(line.site.records(order)) == 4


def test_what_concerns_all_devices_ends_the_run(line: Line, site: Site) -> None:
    assert line.sign("lot-1").returncode == 1
    line.put(csrs("all", 2))
    ended = line.sign("nonesuch")
    assert ended.returncode == 1 and "nonesuch" in ended.stderr
    ended = line.sign("lot-1", "--profile", "nonesuch")
    assert ended.returncode == 1 and "it may use: device" in ended.stderr
    ended = line.sign("")
    assert ended.returncode == 1 and "requires an order" in ended.stderr and "0 refused" not in ended.stderr
    ended = line.sign("no id")
    assert ended.returncode == 1 and "id of an order" in ended.stderr
    ended = line.sign("lot-1", "--out", str(line.inbox))
    assert ended.returncode == 1 and "cannot share" in ended.stderr
    for wrong in (["--window", "0"], ["--poll", "1"], ["--give-up-after", "0s"]):
        assert line.sign("lot-1", *wrong).returncode == 2
    (line.out).mkdir(exist_ok=True)
    site.kill()
    arguments = [*COMMAND, *line.arguments("lot-1", "--give-up-after", "500ms")]
    away = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert away.returncode == 1 and "could not sign for 0.5 s" in away.stderr and "Connection refused" in away.stderr
    assert "ssl_transport" not in away.stderr


def test_killed_command_goes_on_where_it_was(line: Line) -> None:
    order = line.site.order(150)
    devices = line.put(csrs("killed", 150))
    process = subprocess.Popen([*COMMAND, *line.arguments(order, "--window", "8")], stderr=subprocess.DEVNULL)
    wait_until("some are there", lambda: line.out.exists() and len(line.certificates()) > 20)
    process.kill()
    process.wait()
    there = line.certificates()
    ended = line.sign(order)
    assert ended.returncode == 0, ended.stderr
    assert line.certificates().keys() == set(devices)
    assert there.items() <= line.certificates().items()
    assert len(line.site.records(order)) == 150


def test_watched_folder_moves_what_is_done_and_what_failed(line: Line) -> None:
    order = line.site.order(100)
    process = line.watch(order, "--settle", "300ms")
    first = line.put(csrs("watch", 3))
    wait_until("they are done", lambda: (line.inbox / "done").exists() and len(names(line.inbox / "done")) == 3)
    assert line.certificates().keys() == set(first)
    # A daemon that is killed under it, and CSRs that come while it is away.
    line.site.kill()
    later = line.put(csrs("watch", 40))
    wait_until("it waits", lambda: "waiting" in line.said())
    line.site.start()
    wait_until("those are done", lambda: len(names(line.inbox / "done")) == 43)
    assert line.certificates().keys() == {*first, *later}
    # One that is not whole yet, one that never will be, and one that is bad.
    slow, never, weak = fresh("slow"), fresh("never"), fresh("weak")
    content = csr(slow)
    (line.inbox / f"{weak}.csr").write_bytes(weak_csr(weak))
    (line.inbox / f"{never}.csr").write_bytes(csr(never)[:200])
    with (line.inbox / f"{slow}.csr").open("wb") as file:
        for start in range(0, len(content), 60):
            file.write(content[start : start + 60])
            file.flush()
            time.sleep(0.15)
    wait_until("it is done", lambda: slow in line.certificates())
    wait_until("both have failed", lambda: {f"{never}.csr", f"{weak}.csr"} <= set(names(line.inbox / "failed")))
    refusals = {
        device: json.loads((line.inbox / f"failed/{device}.error.json").read_text(encoding="utf-8"))
        for device in (never, weak)
    }
    assert refusals[never]["reason"] == "CSR_MALFORMED" and refusals[weak]["reason"] == "KEY_WEAK"
    # It is put in again and does better.
    (line.inbox / f"{weak}.csr").write_bytes(csr(weak))
    wait_until("it is done", lambda: weak in line.certificates())
    wait_until("its refusal is gone", lambda: f"{weak}.error.json" not in names(line.inbox / "failed"))
    wait_until("its CSR has moved", lambda: names(line.inbox) == [])
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert "45 issued" in line.said()
    assert len(line.site.records(order)) == 45


def test_order_that_is_used_up_holds_the_files(line: Line) -> None:
    order = line.site.order(2)
    device, content = csrs("held", 1)[0]
    process = line.watch(order)
    line.put(csrs("fits", 2))
    wait_until("they are done", lambda: len(line.certificates()) == 2)
    line.put([(device, content), *csrs("held", 2)])
    wait_until("it says so", lambda: "ORDER_EXHAUSTED" in line.said())
    time.sleep(0.5)
    assert len(names(line.inbox)) == 3 and not names(line.inbox / "failed")
    assert line.said().count("ORDER_EXHAUSTED") == 1
    # A device of the order is scrapped: the order may make another one.
    serial = line.site.records(order)[0]["serial_number"]
    line.site.birthmark("record", "scrap", serial, "--reason", "cracked housing")
    wait_until("one is done", lambda: len(line.certificates()) == 3)
    wait_until("its CSR has moved", lambda: len(names(line.inbox)) == 2)
    wait_until("it says so", lambda: "the order can be used again" in line.said())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    # Those that were asked for while the order was refused.
    assert " waiting" in line.said()


def test_stop_ends_in_time_though_the_daemon_is_silent(line: Line) -> None:
    order = line.site.order(5)
    process = line.watch(order)
    line.put(csrs("warm", 1))
    wait_until("it is served", lambda: len(line.certificates()) == 1)
    line.site.hold()
    try:
        line.put(csrs("silent", 1))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        # What is unanswered has some seconds; a second signal ends it at once.
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) == 143
    finally:
        line.site.resume()


def test_confirm_by_folder_and_by_serial_number(line: Line) -> None:
    order = line.site.order(3)
    line.put(csrs("confirm", 3))
    assert line.sign(order, "--chain").returncode == 0

    def confirm(*more: str) -> Run:
        return run("confirm", *line.connection, *more)

    (line.out / "notes.pem").write_bytes(b"notes")
    by_folder = confirm("--certificates", str(line.out))
    assert (by_folder.returncode, by_folder.stdout) == (0, "3 confirmed, 0 refused\n"), by_folder.stderr
    assert "notes.pem" in by_folder.stderr
    serials = [record["serial_number"] for record in line.site.records(order)]
    assert {record["state"] for record in line.site.records(order)} == {"confirmed"}
    some = confirm("--json", *serials, "ff" * 20)
    assert some.returncode == 3
    told = json.loads(some.stdout)
    assert told["confirmed"] == 3 and told["refused"][0]["serial_number"] == "ff" * 20
    assert confirm("ff" * 20).returncode == 1
    assert confirm("junk").returncode == 1
    assert confirm().returncode == 2
    assert confirm("--certificates", str(line.inbox)).returncode == 1


def test_script_is_installed_and_explains_itself() -> None:
    script = Path(sys.executable).with_name("birthmark-hot-folder")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert version.returncode == 0 and version.stdout.startswith("birthmark-hot-folder ")
    for arguments in (["--help"], ["sign", "--help"], ["confirm", "--help"]):
        ended = run(*arguments)
        assert ended.returncode == 0 and len(ended.stdout) > 10


# What needs no daemon.


def source(folder: Path, places: Places) -> tuple[Source, list[tuple[str, str]]]:
    """A source and what it refuses."""
    refused: list[tuple[str, str]] = []
    made = Source(
        folder,
        places,
        say=lambda text: refused.append(("said", text)),
        existing=lambda device, certificate, file: refused.append((device, "there")),
        refused=lambda device, file, error: refused.append((device, error.reason)),
    )
    return made, refused


def test_folder_that_does_not_tell_upper_from_lower_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: the file system here is told to be such a one."""
    out = tmp_path / "out"
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name.startswith(".birthmark.") or real(path))
    (out).mkdir()
    (out / "DEV-9.pem").write_bytes(b"")
    places = Places(out, True, None)
    assert places.make() == []
    places._colon = False
    refused = {
        device: places.claim(device)
        for device in ("Dev-1", "dev-1", "dev-9", "DEV-9", "a:b", "nul", "Com1.x", "COM10", "CONSOLE", "a.Chain")
    }
    assert {device for device, why in refused.items() if why is None} == {"Dev-1", "DEV-9", "COM10", "CONSOLE"}
    assert names(out) == ["DEV-9.pem"]
    # A device that was refused has no files.
    assert places.claim("Dev-1") is None
    places.release("Dev-1")
    assert places.claim("dev-1") is not None
    places.release("Dev-1")
    assert places.claim("dev-1") is None and places.claim("Dev-1") is not None


def test_folder_that_tells_them_apart_takes_every_id(tmp_path: Path) -> None:
    places = Places(tmp_path, False, None)
    places.make()
    assert [places.claim(device) for device in ("Dev-1", "dev-1", "a:b", "NUL")] == [None] * 4
    assert names(tmp_path) == []


def test_hot_folder_refuses_names_that_windows_cannot_hold(line: Line) -> None:
    process = line.watch(line.site.order(10), "--settle", "100ms")
    upper = fresh("case").upper()
    line.put([(upper, csr(upper))])
    wait_until("it is done", (line.inbox / f"done/{upper}.csr").exists)
    line.put([(name, csr(name)) for name in (upper.lower(), "CON", "aa:bb")])
    # Nothing was written into it, and nothing will be.
    line.put([("empty", b"")])
    odd = [upper.lower(), "CON", "aa:bb", "empty"]
    wait_until("all are refused", lambda: all((line.inbox / f"failed/{name}.csr").exists() for name in odd))
    wait_until("no file is left", lambda: names(line.inbox) == [])
    reasons = [json.loads((line.inbox / f"failed/{name}.error.json").read_text("utf-8"))["reason"] for name in odd]
    assert reasons == ["NAME_REFUSED"] * 3 + ["CSR_MALFORMED"]
    assert line.certificates().keys() == {upper}
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143


def test_hot_folder_keeps_its_days_apart_and_only_so_long(tmp_path: Path) -> None:
    today = datetime.date.today()
    day = [(today - datetime.timedelta(back)).isoformat() for back in range(32)]
    for name in ("done/a.csr", "done/notes.txt", "failed/b.PEM", "failed/b.error.json", "done/2001-01-01/report.xlsx",
                 f"failed/{day[31]}/x.csr", f"failed/{day[31]}/x.error.json", f"failed/{day[30]}/y.csr"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    earlier = time.time() - 3 * 86_400
    of = datetime.date.fromtimestamp(earlier).isoformat()
    for folder in ("done", "failed"):
        os.utime(tmp_path / folder, (earlier, earlier))

    def files() -> set[str]:
        return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}

    # Nothing was put away yet since the program began: it is of the day of the last change.
    archive = Archive(tmp_path, tmp_path / "certs", 30)
    assert archive.turn(today) == []
    kept = {"done/notes.txt", "done/2001-01-01/report.xlsx", f"failed/{day[30]}/y.csr"}
    assert files() == {f"done/{of}/a.csr", f"failed/{of}/b.PEM", f"failed/{of}/b.error.json", *kept}
    # What comes today stays until tomorrow.
    (tmp_path / "done/c.csr").write_bytes(b"")
    assert archive.turn(today) == [] and "done/c.csr" in files()
    assert archive.turn(today + datetime.timedelta(1)) == [] and f"done/{day[0]}/c.csr" in files()
    # A folder that has certificates in it is left alone, and so is everything without a limit.
    old = tmp_path / "done/2001-01-02/a.pem"
    old.parent.mkdir()
    old.write_bytes(b"")
    assert Archive(tmp_path, old.parent, 1).turn(today) == [] and old.exists()
    assert Archive(tmp_path, tmp_path / "certs", 0).turn(today) == [] and old.exists()
    assert Archive(tmp_path, tmp_path / "certs", 1).turn(today) == [] and not old.parent.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe")
def test_what_lies_in_the_folder_blocks_nobody(tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    os.mkfifo(inbox / "pipe.csr")
    (inbox / "folder.csr").mkdir()
    (inbox / "nowhere.csr").symlink_to("gone")
    (inbox / ".hidden.csr").write_bytes(csr("x"))
    (inbox / "good.csr").write_bytes(csr("good"))
    once, refused = source(inbox, Places(tmp_path / "out", False, None))
    assert [request.device_id for request in once.once()] == ["good"]
    assert sorted(refused) == [("nowhere", "CSR_UNREADABLE"), ("pipe", "CSR_UNREADABLE")]
    watching, refused = source(inbox, Places(tmp_path / "out", False, inbox))
    taken: list[FileRequest] = []

    def work() -> None:
        taken.extend(watching.watch(0.01, 0.05, 0))

    thread = threading.Thread(target=work)
    thread.start()
    wait_until("the good one is taken", lambda: taken or "good" in [request.device_id for request in taken], 10)
    watching.stop.set()
    thread.join()
    assert [request.device_id for request in taken] == ["good"]
    assert [what for what, _ in refused] == ["said"] and "pipe.csr" in refused[0][1]


def test_refused_order_is_tried_with_one_file_at_a_time() -> None:
    now = 1000.0
    holds = Holds(clock=lambda: now)
    a, b, c = Path("a"), Path("b"), Path("c")
    assert holds.may_ask(a)
    assert holds.refuse_order(a, "ORDER_EXHAUSTED") == (True, True)
    assert holds.refuse_order(b, "ORDER_EXHAUSTED") == (False, True)
    assert holds.refuse_order(b, "ORDER_CLOSED") == (True, False)
    assert holds.is_due(a) and not holds.is_due(c)
    assert not holds.may_ask(a) and len(holds) == 2
    now += 2
    assert holds.may_ask(a) and not holds.may_ask(b)
    assert not holds.is_due(a), "it is being asked for"
    assert not holds.release(c, True), "one that was on its way before says nothing"
    assert not holds.may_ask(b)
    assert not holds.release(a, False), "a bad CSR says nothing of the order"
    assert holds.may_ask(b)
    assert holds.release(b, True)
    assert holds.may_ask(a) and holds.may_ask(c) and len(holds) == 0


def test_certificate_that_cannot_be_written_holds_its_file(line: Line) -> None:
    order = line.site.order(2)
    process = line.watch(order)
    device, content = csrs("unwritten", 1)[0]
    wait_until("it runs", lambda: (line.inbox / "done").exists())
    # A folder in the place of the certificate.
    (line.out / f"{device}.pem").mkdir()
    line.put([(device, content), *csrs("written", 1)])
    wait_until("it says so", lambda: "will keep trying" in line.said())
    wait_until("the other one is done", lambda: len(names(line.inbox / "done")) == 1)
    wait_until("its CSR has moved", lambda: names(line.inbox) == [f"{device}.csr"])
    (line.out / f"{device}.pem").rmdir()
    wait_until("it is written", lambda: device in line.certificates())
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
